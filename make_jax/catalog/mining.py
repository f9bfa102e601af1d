"""Mines the keywords of a catalog from its training products and clicks; no judged query is read [ours].

Where the catalog names attributes, every value that `min_products` training products have is a keyword, and a word of the
queries (terms.py) is another name for it when the clicks say so: nearly all products taken after queries with that word
carry the value. The two languages of a catalog meet there. Where it names none, keywords are the words that queries and
the titles of the products they took share far more often than chance.

"Far more often" is Dunning's log-likelihood ratio G2 (1993), the interval is Wilson's (1927).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from make_jax.catalog.keywords import TERM, Keyword, KeywordVocabulary, normalize_text
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product
from make_jax.catalog.terms import Span, Text, composed, inside, longest, words
from make_jax.errors import InputError

Value = tuple[str, str]  # kind and normalize_text name of a keyword

NEARLY_ALL = 0.85  # share of the taken products that carry a value, ...
CERTAIN = 0.6  # ... its lower end, by Wilson's 95 % interval, ...
LEFT = 0.25  # ... and of those that would lack it by chance at most this share may lack it
DENIED = 0.5  # a value that fewer of the taken products carry is not what was asked for
LEAST_REFERENCE = 0.4  # a name that fewer titles bear out tells nothing about what its synonyms would
SIGNIFICANT = 15.13  # G2 with one degree of freedom at p = 0.0001
TOO_GENERAL = 0.2  # a term in more than this share of the titles asks for nothing
ROUNDS = 4  # of tying names to values; the first half without names that are other names in a row


def mine_keywords(
    catalog: Catalog, *, attributes: bool = True, min_products: int = 5, max_keywords: int = 4096
) -> KeywordVocabulary:
    """The keywords of a catalog's training products and clicks, those of most products first.

    Args:
        catalog: its judged queries, and the products of other splits, are not looked at.
        attributes: whether to read them; False mines titles and clicks alone.
        min_products: products that must have a keyword, and different products taken that must support a name.
        max_keywords: most keywords; the rarest are left out.

    InputError when a number is below 1.
    """
    for name, number in (("min_products", min_products), ("max_keywords", max_keywords)):
        if number < 1:
            raise InputError(f"{name}: {number}, expected 1 or more")
    products = {product.id: product for product in catalog.products if product.split == "train"}
    asked = _Asked.of(catalog, products, min_products)
    if attributes and catalog.info.attributes:
        carried = {
            product.id: frozenset(
                (kind, normalize_text(value)) for kind, value in product.attributes.items() if normalize_text(value)
            )
            for product in products.values()
        }
        shown = _shown(products.values())
    else:
        carried = _shared_words(products, asked, min_products)
        shown = {}
    counts = Counter(value for values in carried.values() for value in values)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:max_keywords]
    kept = {value: count for value, count in ranked if count >= min_products}
    carried = {id: values.intersection(kept) for id, values in carried.items()}
    names = _Ties(asked, carried, kept, min_products).names()
    return KeywordVocabulary(
        tuple(
            Keyword(kind, shown.get((kind, name), name), tuple(sorted(names[kind, name])), count)
            for (kind, name), count in kept.items()
        )
    )


@dataclass(frozen=True)
class _Asked:
    """Different queries by the words in them, and the training products taken after each."""

    places: list[list[tuple[str, Span]]]
    taken: list[set[str]]
    words: set[str]
    single: set[str]  # those that are not other words in a row

    @classmethod
    def of(cls, catalog: Catalog, products: dict[str, Product], min_products: int) -> "_Asked":
        by_query: dict[str, set[str]] = defaultdict(set)
        for click in catalog.clicks:
            if click.product in products:
                by_query[normalize_text(click.query)].add(click.product)
        queries = sorted(by_query)
        texts = [Text.of(query) for query in queries]
        taken = [by_query[query] for query in queries]
        clicks: Counter[str] = Counter()
        for text, found in zip(texts, taken, strict=True):
            for term in {term for term, _ in text.terms()}:
                clicks[term] += len(found)
        known = words(texts, {term for term, count in clicks.items() if count >= min_products})
        single = {term for term in known if not composed(term, known)}
        return cls([text.places(known) for text in texts], taken, known, single)

    def free(self, names: set[str]) -> dict[str, set[str]]:
        """Word -> products taken after the queries in which it stands free: neither in one of `names` or another
        single word nor across the end of one of `names`."""
        taken: dict[str, set[str]] = defaultdict(set)
        for places, found in zip(self.places, self.taken, strict=True):
            fixed = [span for term, span in places if term in names]
            whole = [span for term, span in places if term in self.single]
            for term, span in places:
                first, end = span
                if all(b <= first or end <= a or (first <= a and b <= end) for a, b in fixed) and not any(
                    a <= first and end <= b and (a, b) != span for a, b in whole
                ):
                    taken[term] |= found
        return taken


class _Ties:
    """Which names tell of which values."""

    def __init__(
        self, asked: _Asked, carried: dict[str, frozenset[Value]], values: dict[Value, int], min_products: int
    ) -> None:
        self.asked, self.carried, self.values, self.min_products = asked, carried, values, min_products
        self.holders: dict[Value, set[str]] = defaultdict(set)
        for product, of in carried.items():
            for value in of:
                self.holders[value].add(product)
        self.own: dict[str, set[Value]] = defaultdict(set)
        for value in values:
            self.own[value[1]].add(value)
        self.terms = all(kind == TERM for kind, _ in values)
        free = asked.free(set(self.own))
        self.reference = {value: self._reference(value, free.get(value[1], set())) for value in values}

    def names(self) -> dict[Value, set[str]]:
        """The names of every value: its own, and the words that clicks tie to it.

        A word is counted where it stands free of longer names, so names are tied in rounds: "red" is told from "wine
        red" once that one is known to be maroon.
        """
        named: dict[str, Value] = {}
        for number in range(ROUNDS):
            taken = self.asked.free(set(named) | set(self.own))
            eligible = self.asked.single if self.terms or number < ROUNDS // 2 else self.asked.words
            named = self._tied(taken, eligible)
        everything = self.own | {name: {value} for name, value in named.items()}
        full = self._inherited(everything, self.asked.free(set(everything)))
        needless = self._needless(full)
        names: dict[Value, set[str]] = defaultdict(set)
        for name in full.keys() - needless:
            for value in full[name]:
                names[value].add(name)
        return names

    def _tied(self, taken: dict[str, set[str]], eligible: set[str]) -> dict[str, Value]:
        """Each name with its value: the one that it tells most about, where nearly all products taken after it carry
        it. "saree" is the category, though all sarees are for women."""
        named: dict[str, Value] = {}
        for term in sorted(eligible - self.own.keys(), key=lambda term: (len(term), term)):
            found = taken.get(term, set())
            carried = Counter(value for product in found for value in self.carried[product])
            if len(found) < self.min_products or not carried:
                continue
            gain, value = max((self._gain(value, count, len(found)), value) for value, count in carried.items())
            certain = gain >= SIGNIFICANT and self._nearly_all(value, carried[value], len(found))
            if certain and (term in self.asked.single or self._own_meaning(term, named, carried, len(found))):
                named[term] = value
        return named

    def _own_meaning(self, term: str, named: dict[str, Value], carried: Counter[Value], of: int) -> bool:
        """Whether words in a row mean something that they do not mean one by one: none of them is a name, or the
        products lack what one names. "dress shoes" are no dresses; "kurta for men" is a kurta, and for men."""
        parts = _said(Text.of(term), (named.keys() | self.own.keys()) - {term})
        told = [self.own[part] if part in self.own else {named[part]} for part in parts]
        return not told or any(max(carried[value] for value in values) < DENIED * of for values in told)

    def _gain(self, value: Value, count: int, of: int) -> float:
        return log_likelihood_ratio(count, of, self.values[value], len(self.carried))

    def _reference(self, value: Value, taken: set[str]) -> float:
        """The share of products that carry a value where queries say its own name. Titles leave words out, attributes
        do not: of a term it is less than 1."""
        if value[0] != TERM or len(taken) < self.min_products:
            return 1.0
        return max(LEAST_REFERENCE, len(taken & self.holders[value]) / len(taken))

    def _nearly_all(self, value: Value, count: int, of: int) -> bool:
        share = self.values[value] / len(self.carried)
        least = self.reference[value] * max(NEARLY_ALL, 1 - LEFT * (1 - share))
        return count >= least * of and wilson_low(count, of) >= CERTAIN * self.reference[value]

    def _inherited(self, named: dict[str, set[Value]], taken: dict[str, set[str]]) -> dict[str, set[Value]]:
        """Every name with its own values and those of the names within it that its products carry too: "casual shoes"
        are casual, "navy blue" is not blue."""
        full: dict[str, set[Value]] = {}
        for term, own in named.items():
            found = taken.get(term, set()) | set().union(*(self.holders[v] for v in own if v[1] == term))
            also = {v for part in inside(term) & named.keys() for v in named[part]}
            full[term] = own | {v for v in also if self._nearly_all(v, len(found & self.holders[v]), len(found))}
        return full

    def _needless(self, named: dict[str, set[Value]]) -> set[str]:
        """Names that say nothing but what the names within them say without them: "black shirt"."""
        needless = set()
        for term in named.keys() - self.own.keys():
            parts = _said(Text.of(term), named.keys() - {term})
            if named[term] == set().union(*(named[part] for part in parts)):
                needless.add(term)
        return needless


def _shared_words(products: dict[str, Product], asked: _Asked, min_products: int) -> dict[str, frozenset[Value]]:
    """Product -> the words in its title that queries and the titles they took share far more often than chance."""
    taken = asked.free(set())
    texts = {id: Text.of(product.title) for id, product in products.items()}
    holders: dict[str, set[str]] = defaultdict(set)
    for id, text in texts.items():
        for term, _ in text.places(asked.words):
            holders[term].add(id)
    shared = {
        term
        for term, held in holders.items()
        if min_products <= len(held) <= TOO_GENERAL * len(products)
        and log_likelihood_ratio(len(held & taken[term]), len(taken[term]), len(held), len(products)) >= SIGNIFICANT
    }
    return {id: frozenset((TERM, term) for term in _said(text, shared & asked.single)) for id, text in texts.items()}


def _said(text: Text, terms: Collection[str]) -> set[str]:
    """The terms in a text that are not in longer ones."""
    places = text.places(terms)
    kept = longest([span for _, span in places])
    return {term for term, span in places if span in kept}


def _shown(products: Iterable[Product]) -> dict[tuple[str, str], str]:
    """How the catalog writes each attribute value most often."""
    spellings: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for product in products:
        for kind, value in product.attributes.items():
            spellings[kind, normalize_text(value)][value] += 1
    return {value: counts.most_common(1)[0][0] for value, counts in spellings.items()}


def wilson_low(count: int, of: int) -> float:
    """The lower end of Wilson's 95 % interval of a share."""
    z = 1.96
    share = count / of
    centre = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (centre - spread) / (1 + z * z / of)


def log_likelihood_ratio(both: int, first: int, second: int, total: int) -> float:
    """Dunning's G2 of two events that meet `both` times, 0 where they meet no more often than chance."""
    if both * total <= first * second:
        return 0.0
    cells = [
        (both, first, second),
        (first - both, first, total - second),
        (second - both, total - first, second),
        (total - first - second + both, total - first, total - second),
    ]
    return 2 * sum(seen * math.log(seen * total / (row * column)) for seen, row, column in cells if seen > 0)
