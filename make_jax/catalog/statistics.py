"""Reports on a keyword vocabulary: its size, and its coverage of validation queries."""

from collections import Counter
from collections.abc import Iterable, Sequence

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Query

MIN_RELEVANT = 3  # with a title; keywords shared by fewer titles are mostly coincidence


def summary(vocabulary: KeywordVocabulary) -> str:
    """One line with the numbers of keywords of each kind, and of names."""
    kinds = Counter(keyword.kind for keyword in vocabulary.keywords)
    parts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    names = sum(len(keyword.names) for keyword in vocabulary.keywords)
    return f"{len(vocabulary):,} keywords{f' ({parts})' if parts else ''}, {names:,} names"


def coverage_table(catalog: Catalog, vocabulary: KeywordVocabulary, show: int) -> str:
    """A Markdown table of `show` validation queries, sampled over languages and kinds: the keywords found in each, the
    words that no keyword covers, and the keywords of all titles of its relevant products that the query lacks.

    The last two columns show what the vocabulary may miss. The last one is empty for queries with fewer than three
    relevant titles. Attributes of validation products are not read.
    """
    rows = ["| query | keywords found | words without keyword | in all relevant titles |", "| --- | --- | --- | --- |"]
    for query in _sample(catalog.split_queries("val"), show):
        segments = vocabulary.segments(query.text)
        found = frozenset[int]().union(*(keywords for _, keywords in segments))
        rest = " ".join(text.strip() for text, keywords in segments if text.strip() and not keywords)
        cells = (
            query.text,
            _names(vocabulary, found),
            rest,
            _names(vocabulary, _shared(catalog, vocabulary, query) - found),
        )
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows)


def _sample(queries: Sequence[Query], size: int) -> list[Query]:
    """At most `size` queries, evenly spaced in the order of language and kind."""
    ordered = sorted(queries, key=lambda query: (query.lang, query.kind))
    count = min(size, len(ordered))
    return [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]


def _shared(catalog: Catalog, vocabulary: KeywordVocabulary, query: Query) -> frozenset[int]:
    """The keywords of all titles of the relevant products, if there are at least MIN_RELEVANT."""
    relevant = (
        catalog.products[catalog.index[id]] for id, grade in query.rel.items() if grade >= catalog.info.relevant
    )
    tags = [vocabulary.tag(product.title) for product in relevant if product.title]
    return frozenset.intersection(*tags) if len(tags) >= MIN_RELEVANT else frozenset()


def _names(vocabulary: KeywordVocabulary, keywords: Iterable[int]) -> str:
    return ", ".join(str(vocabulary.keywords[number]) for number in sorted(keywords))
