"""Why a product was found: keywords that query and product share, and those that the model predicts for the query."""

from collections.abc import Iterable, Mapping

from make_jax.catalog.attributes import AttributeValue, attribute_texts
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.evaluation.bm25_terms import tokenize
from make_jax.evaluation.models.exported import Exported
from make_jax.retrieval.embed import Encoder
from make_jax.retrieval.retriever import Retriever

MAX_PREDICTED = 10  # keywords of a query


class Explainer:
    """The keywords of queries and products, by the vocabulary of the model; words instead where it has none."""

    def __init__(self, model: Encoder) -> None:
        self._retriever = model if isinstance(model, Retriever) and model.model.has_enrichment else None
        self._vocabulary: KeywordVocabulary | None = None
        if isinstance(model, Retriever):
            self._vocabulary = model.keywords
        elif isinstance(model, Exported):
            self._vocabulary = model.bundle.keywords

    def matched(self, query: str, title: str, attributes: Mapping[str, AttributeValue]) -> tuple[str, ...]:
        """Names of the query's keywords that the title or an attribute has; of its words without a vocabulary."""
        vocabulary = self._vocabulary
        if not vocabulary:
            return _shared_words(query, [title, *(text for _, text in attribute_texts(attributes))])
        ids = vocabulary.tag(query)
        ids &= vocabulary.tag(title) | vocabulary.attribute_keywords(attributes) if ids else ids
        return tuple(dict.fromkeys(vocabulary.keywords[id].name for id in sorted(ids)))

    def predicted(self, query: str) -> tuple[tuple[str, float], ...]:
        """Name and probability of the keywords that Keyword Enhancement predicts, descending; () without it."""
        if self._retriever is None or not query:
            return ()
        keywords = self._retriever.expand_query(query).keywords[:MAX_PREDICTED]
        return tuple((keyword.name, probability) for keyword, probability in keywords)

    def warm_up(self) -> None:
        """Compiles what `predicted` runs."""
        self.predicted("red")


def _shared_words(query: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The query's words, as BM25 reads them, that a text has, without those inside another ("恤" in "T恤")."""
    words = {word for text in texts for word in tokenize(text)}
    shared = [word for word in dict.fromkeys(tokenize(query)) if word in words]
    return tuple(word for word in shared if not any(word != other and word in other for other in shared))
