"""Suggested queries as the user types: words of titles, attribute values and categories of the indexed products [ours].

Suggested are the runs of one to three words in titles, without function words, sizes and article numbers, that at least
two products have, and attribute values and categories; Chinese and other scripts without spaces are split into words
(`catalog/title_units.py`). "cheap red sh" is completed by what starts like "red sh", or else like "sh" among products
that have "cheap" and "red": every suggestion has a product. No searches of users are read.
"""

import bisect
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32

from make_jax.catalog.attributes import attribute_texts
from make_jax.catalog.keywords import normalize_text, token_spans
from make_jax.catalog.schema import Product
from make_jax.catalog.title_units import MAX_VALUE_WORDS, TitleStatistics, Unit, join, unit_of

MAX_PRODUCTS = 50_000  # that suggestions are drawn from; every n-th of more
MAX_LENGTH = 100  # characters of what the user typed that are read
_MAX_UNITS = 3  # words of a title in a suggestion
_MIN_PRODUCTS = 2  # that have these words in their titles
_END = "\U0010ffff"  # sorts after every character


class Suggestions:
    """Queries that begin like a text or continue it."""

    def __init__(self, products: Sequence[Product]) -> None:
        """Reads all `products`; about 30 seconds for a million words of titles."""
        titles = [product.title for product in products]
        values = [[unit for unit in map(unit_of, _values(product)) if unit] for product in products]
        statistics = TitleStatistics.from_texts(titles, {unit.text for units in values for unit in units})
        texts: dict[str, str] = {}
        rows: dict[str, list[int]] = defaultdict(list)
        named: set[str] = set()
        for row, (title, units) in enumerate(zip(titles, values, strict=True)):
            short = [unit for unit in units if unit.words <= MAX_VALUE_WORDS and not unit.code]
            named.update(unit.key for unit in short)
            of_product = {unit.key: unit.text for unit in short}
            for span in _spans(statistics.units(title)):
                text = " ".join(join(span).split())
                of_product.setdefault(normalize_text(text), text)
            for key, text in of_product.items():
                texts.setdefault(key, text)
                rows[key].append(row)
        self._keys = sorted(key for key in texts if key in named or len(rows[key]) >= _MIN_PRODUCTS)
        self._texts = [texts[key] for key in self._keys]
        self._rows = {key: np.array(found, np.int32) for key, found in rows.items()}
        self._counts = np.array([len(rows[key]) for key in self._keys], np.int64)

    def products_with(self) -> dict[str, int]:
        """How many products have each word of titles, attribute values and categories, at least."""
        counts: dict[str, int] = {}
        for key, rows in self._rows.items():
            for word in key.split(" "):
                counts[word] = max(counts.get(word, 0), len(rows))
        return counts

    def suggest(self, text: str, limit: int) -> list[str]:
        """At most `limit` queries, those of most products first; [] for a text without a letter or digit."""
        key = normalize_text(text[:MAX_LENGTH])
        if not key:
            return []
        typed = f"{key} " if text[:MAX_LENGTH][-1:].isspace() else key
        found = {self._texts[at]: None for at in self._starting(typed, limit)}
        for start, _ in token_spans(typed)[1:]:
            if len(found) >= limit:
                break
            rows = self._rows_with(typed[:start])
            if rows is not None:
                found |= dict.fromkeys(self._continued(typed[:start], typed[start:], rows, limit - len(found)))
        return list(found)[:limit]

    def _starting(self, typed: str, limit: int) -> list[int]:
        """Positions of the most frequent suggestions that start with `typed`."""
        first, end = (bisect.bisect_left(self._keys, bound) for bound in (typed, typed + _END))
        order = np.argsort(-self._counts[first:end], kind="stable")[:limit]
        return (first + order).tolist()

    def _rows_with(self, words: str) -> Int32[np.ndarray, " n"] | None:
        """The products that have some words of a query; None if there is none."""
        keys = [words.strip()]
        if keys[0] not in self._rows:
            keys = [words[start:end] for start, end in token_spans(words)]
        known = [self._rows[key] for key in keys if key in self._rows]
        if len(known) < len(keys):
            return None
        common: Int32[np.ndarray, " n"] = functools.reduce(_intersect, known)
        return common if len(common) else None

    def _continued(self, head: str, typed: str, rows: Int32[np.ndarray, " n"], limit: int) -> Iterator[str]:
        """Continuations of `head` by suggestions that start with `typed`, of products among `rows`."""
        counts = {at: len(_intersect(self._rows[self._keys[at]], rows)) for at in self._starting(typed, 10 * limit)}
        order = sorted((at for at, count in counts.items() if count), key=lambda at: -counts[at])
        return (head + self._texts[at] for at in order[:limit])


def sample(products: Sequence[Product], live: Int32[np.ndarray, " n"]) -> list[Product]:
    """The products at positions `live`, every n-th of more than MAX_PRODUCTS."""
    return [products[i] for i in live[:: max(1, -(-len(live) // MAX_PRODUCTS))].tolist()]


def _values(product: Product) -> Iterator[str]:
    """Attribute values and categories of a product."""
    return itertools.chain((text for _, text in attribute_texts(product.attributes)), product.category)


def _spans(units: Sequence[Unit]) -> Iterator[Sequence[Unit]]:
    """Runs of one to three neighboring words."""
    for first in range(len(units)):
        for end in range(first + 1, min(first + _MAX_UNITS, len(units)) + 1):
            if not units[end - 1].is_word:
                break
            yield units[first:end]


_intersect = functools.partial(np.intersect1d, assume_unique=True)
