"""Training pairs derived from titles, attributes and categories, for catalogs without clicks: `data.queries` [ours].

Each training product gets QUERIES_PER_PRODUCT short queries of three kinds:

* what it is: the head noun of its title, or its category: "boots"
* attributes before that noun: "red boots", "nike running shoes"
* a span of its title from which words are dropped: "red leather ankle boots" -> "red ankle boots"

Queries have the lengths of real ones (LENGTHS). Products of the splits val and test are never read, and judged queries
are neither read nor made: what is measured stays measured on real queries. The pairs are a pure function of the
training products and the seed; those of one product do not depend on the order of the others.

Sources of LENGTHS. SLI Systems, 1.5 billion searches in retail sites from 2013 to 2017: of one word 45 % (2013) and
56 % (2017), of three and more 24 % and 18 %, of exactly three 11 % (2017) (marketingcharts.com/industries/
retail-and-e-commerce-76709). Site Search 360, 10 million searches: 1.6 words on average, 86 % of one or two words (D.
Urbansky, "Lessons learned after analyzing 10 million search queries", 2018). LENGTHS is between the two years of the
first. Both count searches; of distinct queries, fewer are short. A title that is shorter gives shorter queries. In
scripts without spaces a word is one that `title_units` finds.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

from make_jax.catalog.attributes import attribute_texts
from make_jax.catalog.keywords import normalize_text
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Click, Product
from make_jax.catalog.title_units import MAX_VALUE_WORDS, TitleStatistics, Unit, join, unit_of
from make_jax.errors import InputError

QueryOrigin = Literal["clicks", "derived", "both"]
VERSION = 2  # of the derivation: built training data of another version is built again
QUERIES_PER_PRODUCT = 8
LENGTHS = {1: 0.50, 2: 0.29, 3: 0.13, 4: 0.05, 5: 0.03}  # words of a query -> share of the queries
_NOUN_ALONE = 0.7  # of the one-word queries; the others are any word of title and attributes
_ATTRIBUTES = 0.5  # of the longer queries, of products that have attributes; the others are title spans
_WITH_NOUN = 0.8  # of the title spans contain the head noun
_MAX_DROPPED = 2  # words between the first and the last of a title span

_PARTS = re.compile(r"\s*(?:>|/|&|,|;|\||\band\b|\bund\b|\s-\s)\s*|_")  # between the names in a category
# What shops write where they have no value.
_NO_NAMES = frozenset(
    re.findall(
        r"\w+",
        "all default general home misc miscellaneous na n a new no none null other others sale true false "
        "uncategorized unisex unknown various yes",
    )
) | {"home page", "default category", "n a", "not applicable"}
Item = TypeVar("Item")


def training_catalog(path: str | Path, queries: QueryOrigin, seed: int, cache: str = "") -> Catalog:
    """The catalog at `path` whose clicks are the training pairs that `data.queries` selects: those of clicks.jsonl,
    derived ones, or both. Its digest is that of the files in every case; `derivation` tells the pairs apart.

    Raises InputError as `Catalog.load` does, and if nothing can be derived.
    """
    catalog = Catalog.load(path, cache)
    if queries == "clicks":
        return catalog
    derivation = f"{queries} version {VERSION} seed {seed}"
    derived = catalog.with_clicks(derive_queries(catalog, seed), derivation, add=queries == "both")
    count = len(derived.clicks) - (len(catalog.clicks) if queries == "both" else 0)
    if not count and len(catalog.split_products("train")):
        expected = 'expected titles, categories or attributes in the split "train"'
        raise InputError(f"{catalog.path}: data.queries is {queries!r}, but nothing to derive queries from; {expected}")
    return derived


def derive_queries(catalog: Catalog, seed: int) -> Iterator[Click]:
    """Yields the derived training pairs, product by product in catalog order; pairs may repeat."""
    products = catalog.split_products("train")
    keys = [key for key in catalog.info.attributes if key != "category"]
    materials = [(_values(product, keys), _categories(product)) for product in products]
    names = {unit.text for values, categories in materials for unit in (*values, *categories)}
    statistics = TitleStatistics.from_texts([product.title for product in products], sorted(names))
    for product, (values, categories) in zip(products, materials, strict=True):
        material = _Material.of_product(product, values, categories, statistics)
        random = Random(f"{seed}:{product.id}")  # of `random` only `random()`, which no Python version changes
        for length in _lengths(random):
            if query := join(material.query(length, random)):
                yield Click(query, product.id)


@dataclass(frozen=True)
class _Material:
    """What the queries of a product are made of."""

    title: list[Unit]  # without function words
    noun: int | None  # position of the head noun in `title`
    nouns: list[Unit]  # names of what the product is, the best first
    values: list[Unit]  # of attributes
    noun_first: bool  # nouns precede attributes

    @classmethod
    def of_product(
        cls, product: Product, values: list[Unit], categories: list[Unit], statistics: TitleStatistics
    ) -> "_Material":
        """The material of a product; `values` and `categories` are its units of these."""
        units = statistics.units(product.title)
        head = statistics.head(units, categories, {value.key for value in values})
        title = [unit for unit in units if not unit.function] or units
        if head is None and not categories:  # the word at its place is the best guess
            head = next((unit for unit in title if unit.outer), None)
        nouns = list(dict.fromkeys([*filter(None, [head]), *categories]))
        return cls(title, title.index(head) if head else None, nouns, values, statistics.noun_first)

    def query(self, length: int, random: Random) -> list[Unit]:
        """The units of a query of `length` words, or of as near to it as the product has; empty if it has nothing."""
        kinds = [self._single] if length == 1 else [self._span, self._combination]
        if length > 1 and self.values and self.nouns and random.random() < _ATTRIBUTES:
            kinds.reverse()
        best: list[Unit] = []
        for kind in kinds:
            made = kind(length, random)
            if _count(made) == length:
                return made
            if made and (not best or abs(_count(made) - length) < abs(_count(best) - length)):
                best = made
        return best or (self.nouns or self.title or self.values)[:1]  # an article number, say

    def _single(self, length: int, random: Random) -> list[Unit]:
        """One unit of `length` words: what the product is, or any other word of it."""
        nouns = [unit for unit in self.nouns if unit.words == length]
        others = [unit for unit in (*self.title, *self.values) if unit.is_word and unit.words == length]
        if nouns and (not others or random.random() < _NOUN_ALONE):
            return [_first_more_often(nouns, random)]
        return [_choice(others, random)] if others else []

    def _combination(self, length: int, random: Random) -> list[Unit]:
        """Attribute values in random order before a noun, or after it."""
        nouns = [unit for unit in self.nouns if unit.words < length]
        if not nouns:
            return []
        noun = _first_more_often(nouns, random)
        chosen, used, left = [], set(noun.key.split()), length - noun.words
        for value in _shuffled(self.values, random):
            if value.words <= left and used.isdisjoint(value.key.split()):
                chosen.append(value)
                used.update(value.key.split())
                left -= value.words
        return [noun, *chosen] if self.noun_first else [*chosen, noun]

    def _span(self, length: int, random: Random) -> list[Unit]:
        """Units of the title in their order: a span of it, shortened to `length` words by dropping units."""
        title, noun = self.title, self.noun if random.random() < _WITH_NOUN else None
        size = length + int(random.random() * (_MAX_DROPPED + 1))
        first = 0 if noun is None else max(0, noun - size + 1)
        last = max(first, min(len(title) - size, len(title) - 1 if noun is None else noun))
        start = first + int(random.random() * (last - first + 1))
        kept = list(range(start, min(len(title), start + size)))
        for number in _shuffled(kept, random):
            rest = [title[other] for other in kept if other != number]
            if number != noun and _count(rest) >= length:
                kept.remove(number)
        units = [title[number] for number in kept]
        while len(units) > 1 and _count(units) > length:  # names of several words do not always fit
            units.pop(0)
        return units if any(unit.is_word for unit in units) else []


def _lengths(random: Random) -> Iterator[int]:
    """QUERIES_PER_PRODUCT lengths, stratified: their shares over a few products are those of LENGTHS."""
    offset = random.random()
    bounds = list(itertools.accumulate(LENGTHS.values()))
    for number in range(QUERIES_PER_PRODUCT):
        share = (number + offset) / QUERIES_PER_PRODUCT * bounds[-1]
        yield next(length for length, bound in zip(LENGTHS, bounds, strict=True) if share <= bound)


def _values(product: Product, keys: Sequence[str]) -> list[Unit]:
    """The attribute values that can be part of a query: texts of a few words; no numbers, no yes and no."""
    texts = attribute_texts({key: product.attributes[key] for key in keys if key in product.attributes})
    units = dict.fromkeys(unit_of(text) for _, text in texts if _is_name(text))
    return [unit for unit in units if unit is not None and unit.is_word]


def _categories(product: Product) -> list[Unit]:
    """The names in the category of a product, the most specific first."""
    names = [name for level in reversed(product.category) for name in reversed(_PARTS.split(level)) if _is_name(name)]
    return [unit for unit in dict.fromkeys(map(unit_of, names)) if unit is not None and unit.is_word]


def _is_name(text: str) -> bool:
    key = normalize_text(text)
    return bool(key) and key not in _NO_NAMES and len(key.split()) <= MAX_VALUE_WORDS


def _count(units: Sequence[Unit]) -> int:
    return sum(unit.words for unit in units)


def _choice(items: Sequence[Item], random: Random) -> Item:
    return items[int(random.random() * len(items))]


def _first_more_often(nouns: Sequence[Unit], random: Random) -> Unit:
    """One of the nouns, mostly the first: shoppers type the noun of the title and the specific category; the general
    ones ("apparel") are the merchant's."""
    return nouns[int(random.random() ** 3 * len(nouns))]


def _shuffled(items: Sequence[Item], random: Random) -> list[Item]:
    order = sorted((random.random(), number) for number in range(len(items)))
    return [items[number] for _, number in order]
