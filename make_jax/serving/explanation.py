"""Why a product was found: keywords that query and product share, and those that the model predicts for the query."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from make_jax.catalog.attributes import attribute_texts
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.schema import Product
from make_jax.evaluation.bm25_terms import tokenize
from make_jax.evaluation.models.exported import Exported
from make_jax.retrieval.embed import Encoder
from make_jax.retrieval.retriever import Retriever

MAX_PREDICTED = 10  # keywords of a query


class Explainer:
    """The keywords of queries and products, by the vocabulary of the model; words instead where it has none."""

    def __init__(self, model: Encoder) -> None:
        self._retriever = model if isinstance(model, Retriever) and model.model.has_enrichment else None
        self._thread = ThreadPoolExecutor(1, "predicted-keywords")
        self._vocabulary: KeywordVocabulary | None = None
        if isinstance(model, Retriever):
            self._vocabulary = model.keywords
        elif isinstance(model, Exported):
            self._vocabulary = model.bundle.keywords

    def matched(self, query: str, products: Iterable[Product]) -> list[tuple[str, ...]]:
        """For each product the names of the query's keywords that its title or an attribute has.

        Of a model without a vocabulary, the words of the query instead.
        """
        vocabulary = self._vocabulary
        if not vocabulary:
            return [
                _shared_words(query, [product.title, *(text for _, text in attribute_texts(product.attributes))])
                for product in products
            ]
        ids = vocabulary.tag(query)
        return [_shared_keywords(vocabulary, ids, product) for product in products]

    def predicted(self, queries: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
        """Name and probability of the keywords that Keyword Enhancement predicts for each query, descending.

        () for an empty query, and for a model without Keyword Enhancement. The queries share a batch.
        """
        found: list[tuple[tuple[str, float], ...]] = [()] * len(queries)
        rows = [row for row, query in enumerate(queries) if query]
        if self._retriever is not None and rows:
            expansions = self._retriever.expand_queries([queries[row] for row in rows])
            for row, expansion in zip(rows, expansions, strict=True):
                keywords = expansion.keywords[:MAX_PREDICTED]
                found[row] = tuple((keyword.name, probability) for keyword, probability in keywords)
        return found

    def start_predicting(self, queries: Sequence[str]) -> "Future[list[tuple[tuple[str, float], ...]]]":
        """`predicted` in another thread, while the engine searches."""
        return self._thread.submit(self.predicted, queries)

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Compiles what `predicted` runs."""
        for size in batch_sizes:
            self.predicted(["red"] * size)


def _shared_keywords(vocabulary: KeywordVocabulary, ids: frozenset[int], product: Product) -> tuple[str, ...]:
    if not ids:
        return ()
    shared = ids & (vocabulary.tag(product.title) | vocabulary.attribute_keywords(product.attributes))
    return tuple(dict.fromkeys(vocabulary.keywords[id].name for id in sorted(shared)))


def _shared_words(query: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The query's words, as BM25 reads them, that a text has, without those inside another ("恤" in "T恤")."""
    words = {word for text in texts for word in tokenize(text)}
    shared = [word for word in dict.fromkeys(tokenize(query)) if word in words]
    return tuple(word for word in shared if not any(word != other and word in other for other in shared))
