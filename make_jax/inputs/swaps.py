"""Keyword-swap negatives: the query with one keyword replaced by another of its type that the product has not [ours].

"red shoes" becomes "blue shoes" for a product that is not blue. The replacement is drawn in proportion to the products
that have it, so that a swapped query looks like a real one, and keeps to the script of what it replaces.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt32

from make_jax.catalog.keywords import KeywordVocabulary, is_unsegmented

_TRIES = 8  # draws until a keyword is found that the product has not


@dataclass(frozen=True)
class _Choices:
    """The keywords of one type that have a name in one script."""

    keywords: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]
    upto: tuple[int, ...]  # running sum of the products that have each

    def draw(self, rng: np.random.Generator) -> tuple[int, str]:
        place = int(np.searchsorted(self.upto, rng.integers(self.upto[-1]), side="right"))
        names = self.names[place]
        return self.keywords[place], names[int(rng.integers(len(names)))]


class Swapper:
    """Draws swapped queries. Can be sent to other processes."""

    def __init__(
        self,
        vocabulary: KeywordVocabulary,
        queries: Sequence[str],
        product_keywords: UInt32[np.ndarray, "products words"],
    ) -> None:
        self._vocabulary = vocabulary
        self._held = product_keywords
        self._choices = _choices(vocabulary)
        self._queries = queries

    def swap(self, query: int, product: int, rng: np.random.Generator) -> str | None:
        """Query number `query` with one keyword replaced by one that `product` has not; None when there is none.

        Parts of a query that stand for several keywords at once stay as they are.
        """
        pieces = self._vocabulary.segments(self._queries[query])
        asked = frozenset().union(*(keywords for _, keywords in pieces))
        slots = [i for i, (_, keywords) in enumerate(pieces) if len(keywords) == 1]
        if not slots:
            return None
        slot = slots[int(rng.integers(len(slots)))]
        text, keywords = pieces[slot]
        (replaced,) = keywords
        choices = self._choices.get((self._vocabulary.keywords[replaced].kind, is_unsegmented(text)))
        for _ in range(_TRIES if choices else 0):
            assert choices is not None
            keyword, name = choices.draw(rng)
            if keyword in asked or self._has(product, keyword):
                continue
            swapped = "".join(name if i == slot else piece for i, (piece, _) in enumerate(pieces))
            # A new neighbourhood may read differently: "navy" before "blue" is one colour.
            if self._vocabulary.tag(swapped) - asked == {keyword}:
                return swapped
        return None

    def _has(self, product: int, keyword: int) -> bool:
        return bool(self._held[product, keyword // 32] >> np.uint32(keyword % 32) & np.uint32(1))


def _choices(vocabulary: KeywordVocabulary) -> dict[tuple[str, bool], _Choices]:
    """By type and whether the script puts spaces between words; types with a single keyword are left out."""
    found: dict[tuple[str, bool], list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for number, keyword in enumerate(vocabulary.keywords):
        for script in (False, True):
            names = tuple(name for name in keyword.names if is_unsegmented(name) == script)
            if names:
                found[keyword.kind, script].append((number, names))
    return {
        key: _Choices(
            tuple(number for number, _ in rows),
            tuple(names for _, names in rows),
            tuple(itertools.accumulate(vocabulary.keywords[number].products for number, _ in rows)),
        )
        for key, rows in found.items()
        if len(rows) > 1
    }
