"""What a keyword vocabulary finds in validation queries, and what it misses, as text for people."""

from collections import Counter
from collections.abc import Iterable, Sequence

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Query

ENOUGH = 3  # relevant products with a title, from which on what all of them share may be what the query asks for


def counts(vocabulary: KeywordVocabulary) -> str:
    """One line: how many keywords there are of each kind, and names."""
    kinds = Counter(keyword.kind for keyword in vocabulary.keywords)
    parts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    names = sum(len(keyword.names) for keyword in vocabulary.keywords)
    return f"{len(vocabulary):,} keywords{f' ({parts})' if parts else ''}, {names:,} names"


def table(catalog: Catalog, vocabulary: KeywordVocabulary, show: int) -> str:
    """A Markdown table of `show` validation queries, spread over languages and kinds: the keywords found in each, the
    words that no keyword covers, and the keywords that all titles of its relevant products have but the query has not.

    The last two are what may have been missed: attributes of validation products are not read. The last is left empty
    for queries with fewer than three relevant titles, which always share much.
    """
    rows = ["| query | keywords found | words without keyword | in all relevant titles |", "| --- | --- | --- | --- |"]
    for query in _spread(catalog.split_queries("val"), show):
        pieces = vocabulary.segments(query.text)
        found = frozenset[int]().union(*(keywords for _, keywords in pieces))
        rest = " ".join(piece.strip() for piece, keywords in pieces if piece.strip() and not keywords)
        cells = (
            query.text,
            _names(vocabulary, found),
            rest,
            _names(vocabulary, _shared(catalog, vocabulary, query) - found),
        )
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows)


def _spread(queries: Sequence[Query], wanted: int) -> list[Query]:
    """At most so many queries, at even distances in the order of language and kind."""
    ordered = sorted(queries, key=lambda query: (query.lang, query.kind))
    count = min(wanted, len(ordered))
    return [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]


def _shared(catalog: Catalog, vocabulary: KeywordVocabulary, query: Query) -> frozenset[int]:
    """The keywords that the titles of all relevant products have, if there are enough."""
    relevant = (
        catalog.products[catalog.index[id]] for id, grade in query.rel.items() if grade >= catalog.info.relevant
    )
    tags = [vocabulary.tag(product.title) for product in relevant if product.title]
    return frozenset.intersection(*tags) if len(tags) >= ENOUGH else frozenset()


def _names(vocabulary: KeywordVocabulary, keywords: Iterable[int]) -> str:
    return ", ".join(str(vocabulary.keywords[number]) for number in sorted(keywords))
