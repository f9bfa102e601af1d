"""Keyword-swap negatives: the query with one keyword replaced by another of its type that the product lacks [ours].

"red shoes" becomes "blue shoes" for a product that is not blue. The replacement is drawn in proportion to the number of
products that have it, so that a swapped query looks like a real one, and is written in the script of what it replaces.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt32

from make_jax.catalog.keywords import KeywordVocabulary, is_unsegmented
from make_jax.inputs.mapped_array import MappedArray

_MAX_DRAWS = 8  # draws until a keyword is found that the product lacks


@dataclass(frozen=True)
class _Candidates:
    """The keywords of one type that have a name in one script."""

    keywords: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]
    cumulative_products: tuple[int, ...]  # running sum of the products that have each keyword

    def draw(self, rng: np.random.Generator) -> tuple[int, str]:
        total = self.cumulative_products[-1]
        i = int(np.searchsorted(self.cumulative_products, rng.integers(total), side="right"))
        names = self.names[i]
        return self.keywords[i], names[int(rng.integers(len(names)))]


class KeywordSwapper:
    """Draws swapped queries. Picklable, so that data workers can hold one."""

    def __init__(
        self,
        vocabulary: KeywordVocabulary,
        queries: Sequence[str],
        product_keywords: UInt32[np.ndarray, "products words"] | MappedArray,
    ) -> None:
        self._vocabulary = vocabulary
        self._product_keywords = product_keywords
        self._candidates = _candidates(vocabulary)
        self._queries = queries

    def swap(self, query: int, product: int, rng: np.random.Generator) -> str | None:
        """Returns query number `query` with one keyword replaced by one that `product` lacks; None if impossible.

        Parts of a query that name several keywords at once are never replaced.
        """
        pieces = self._vocabulary.segments(self._queries[query])
        query_keywords = frozenset().union(*(keywords for _, keywords in pieces))
        slots = [i for i, (_, keywords) in enumerate(pieces) if len(keywords) == 1]
        if not slots:
            return None
        slot = slots[int(rng.integers(len(slots)))]
        text, keywords = pieces[slot]
        (replaced,) = keywords
        candidates = self._candidates.get((self._vocabulary.keywords[replaced].kind, is_unsegmented(text)))
        for _ in range(_MAX_DRAWS if candidates else 0):
            assert candidates is not None
            keyword, name = candidates.draw(rng)
            if keyword in query_keywords or self._has(product, keyword):
                continue
            swapped = "".join(name if i == slot else piece for i, (piece, _) in enumerate(pieces))
            # Neighboring words can change the match: "navy" before "blue" is one color.
            if self._vocabulary.tag(swapped) - query_keywords == {keyword}:
                return swapped
        return None

    def _has(self, product: int, keyword: int) -> bool:
        return bool(self._product_keywords[product, keyword // 32] >> np.uint32(keyword % 32) & np.uint32(1))


def _candidates(vocabulary: KeywordVocabulary) -> dict[tuple[str, bool], _Candidates]:
    """By keyword type and whether the script is written without spaces; types with a single keyword are left out."""
    groups: dict[tuple[str, bool], list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for number, keyword in enumerate(vocabulary.keywords):
        for script in (False, True):
            names = tuple(name for name in keyword.names if is_unsegmented(name) == script)
            if names:
                groups[keyword.kind, script].append((number, names))
    return {
        key: _Candidates(
            tuple(number for number, _ in rows),
            tuple(names for _, names in rows),
            tuple(itertools.accumulate(vocabulary.keywords[number].products for number, _ in rows)),
        )
        for key, rows in groups.items()
        if len(rows) > 1
    }
