"""Mines the keywords of a catalog from its training products and clicks; no judged query is read [ours].

Where the catalog names attributes, every value that `least` training products have is a keyword, and a piece of a
query is another name for it when the clicks say so: nearly all products taken after queries with that piece carry the
value. The two languages of a catalog meet there. Where it names none, keywords are the terms that queries and the
titles of the products they took share far more often than chance.

"Far more often" is Dunning's log-likelihood ratio G2 (1993), "nearly all" the lower end of Wilson's 95 % interval.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from make_jax.catalog.keywords import TERM, Keyword, KeywordVocabulary, normal, pieces, spaceless
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product

Value = tuple[str, str]  # kind and name of a keyword

LONGEST = 3  # words of a term
LONGEST_RUN = 6  # characters of a term in a script without spaces
NEARLY_ALL = 0.8  # Wilson's lower end of the share of taken products that carry a value ...
LEFT = 0.25  # ... and of those that would lack it by chance at most this share may lack it
SIGNIFICANT = 15.13  # G2 with one degree of freedom at p = 0.0001
TOO_GENERAL = 0.2  # a term in more than this share of the titles asks for nothing
SAME = 0.9  # a term that stands inside one longer term this often is a part of it and no term of its own


def mine_keywords(
    catalog: Catalog, *, attributes: bool = True, least: int = 5, largest: int = 4096
) -> KeywordVocabulary:
    """The keywords of a catalog's training products and clicks, those of most products first.

    Args:
        attributes: whether to read them; False mines titles and clicks alone.
        least: products that must have a keyword, and different products taken that must support a name.
        largest: most keywords; the rarest are left out.
    """
    products = {product.id: product for product in catalog.products if product.split == "train"}
    clicks = _Clicks.of(catalog, products, least)
    if attributes and catalog.info.attributes:
        carried = {
            product.id: {(kind, normal(value)) for kind, value in product.attributes.items() if normal(value)}
            for product in products.values()
        }
        shown = _shown(products.values())
    else:
        terms = _shared_terms(products, clicks, least)
        carried = {id: {(TERM, term) for term in _terms(product.title) & terms} for id, product in products.items()}
        shown = {}
    counts = Counter(value for values in carried.values() for value in values)
    kept = [value for value, count in counts.most_common(largest) if count >= least]
    names = _names(clicks, carried, set(kept), least)
    return KeywordVocabulary(
        tuple(
            Keyword(kind, shown.get((kind, name), name), tuple(sorted(names[kind, name])), counts[kind, name])
            for kind, name in kept
        )
    )


@dataclass(frozen=True)
class _Clicks:
    """The terms of the queries, and which products were taken after a query that holds them."""

    taken: dict[str, set[str]]  # term -> products
    queries: Counter[str]  # term -> different queries that hold it

    @classmethod
    def of(cls, catalog: Catalog, products: dict[str, Product], least: int) -> "_Clicks":
        by_query: dict[str, set[str]] = defaultdict(set)
        for click in catalog.clicks:
            if click.product in products:
                by_query[normal(click.query)].add(click.product)
        taken: dict[str, set[str]] = defaultdict(set)
        queries: Counter[str] = Counter()
        for query, found in by_query.items():
            for term in _terms(query):
                taken[term] |= found
                queries[term] += 1
        enough = {term: found for term, found in taken.items() if len(found) >= least}
        whole = _without_parts(Counter({term: queries[term] for term in enough}))
        return cls({term: enough[term] for term in whole}, queries)


def _terms(text: str) -> set[str]:
    """Word n-grams, and the substrings of runs in scripts without spaces."""
    found: set[str] = set()
    for run, group in itertools.groupby(pieces(text), key=spaceless):
        if run:
            for piece in group:
                found.update(_slices(piece, LONGEST_RUN))
        else:
            found.update(" ".join(gram) for gram in _slices(list(group), LONGEST))
    return found


def _slices(of: Sequence[str], longest: int) -> Iterator[Sequence[str]]:
    """Every slice of at most `longest` items."""
    for start in range(len(of)):
        for end in range(start + 1, min(start + longest, len(of)) + 1):
            yield of[start:end]


def _without_parts(queries: Counter[str]) -> set[str]:
    """The terms that stand on their own: not nearly always inside one and the same longer term."""
    parts: set[str] = set()
    for longer, count in queries.items():
        for part in _shorter(longer):
            if count >= SAME * queries.get(part, math.inf):
                parts.add(part)
    return set(queries) - parts


def _shorter(term: str) -> tuple[str, ...]:
    """A term without its first and without its last word or character."""
    if spaceless(term):
        return (term[1:], term[:-1]) if len(term) > 1 else ()
    words = term.split(" ")
    return (" ".join(words[1:]), " ".join(words[:-1])) if len(words) > 1 else ()


def _names(clicks: _Clicks, carried: dict[str, set[Value]], values: set[Value], least: int) -> dict[Value, set[str]]:
    """The names of every value: its own, and the terms that clicks tie to it.

    A term names the value it tells most about, of those that nearly all products taken after it carry: "saree" is the
    category, though all sarees are for women. A name that holds another one stands for that one's value too where its
    products carry both: "casual shoes" are casual, "navy blue" is not blue.
    """
    everyone = Counter(value for product in carried for value in carried[product] & values)
    shares = {value: count / len(carried) for value, count in everyone.items()}
    holders: dict[Value, set[str]] = defaultdict(set)
    for product, of in carried.items():
        for value in of & values:
            holders[value].add(product)
    named: dict[str, set[Value]] = defaultdict(set)
    found: dict[str, set[str]] = {}  # name -> the products that tell what it stands for
    for value in sorted(values):
        named[value[1]].add(value)
        found[value[1]] = found.get(value[1], set()) | holders[value]
    for term in sorted(set(clicks.taken) - set(named), key=lambda term: (len(term), term)):
        taken = clicks.taken[term]
        best: tuple[float, Value] | None = None
        for value, count in Counter(value for product in taken for value in carried[product] & values).items():
            if count >= least and nearly_all(count, len(taken), shares[value]):
                gain = log_likelihood_ratio(count, len(taken), everyone[value], len(carried))
                if gain >= SIGNIFICANT and (best is None or (gain, value) > best):
                    best = (gain, value)
        if best is not None and not any(best[1] in named[part] for part in _terms(term) & set(named)):
            named[term].add(best[1])
            found[term] = taken
    names: dict[Value, set[str]] = defaultdict(set)
    for term, own in named.items():
        inside = {value for part in _terms(term) & set(named) - {term} for value in named[part]}
        also = {v for v in inside if nearly_all(len(found[term] & holders[v]), len(found[term]), shares[v])}
        for value in own | also:
            names[value].add(term)
    return names


def _shared_terms(products: dict[str, Product], clicks: _Clicks, least: int) -> set[str]:
    """Terms that queries and the titles of the products they took share far more often than chance."""
    holders: dict[str, set[str]] = defaultdict(set)
    for product in products.values():
        for term in _terms(product.title):
            if term in clicks.taken:
                holders[term].add(product.id)
    return {
        term
        for term, held in holders.items()
        if least <= len(held) <= TOO_GENERAL * len(products)
        and log_likelihood_ratio(len(held & clicks.taken[term]), len(clicks.taken[term]), len(held), len(products))
        >= SIGNIFICANT
    }


def _shown(products: Iterable[Product]) -> dict[tuple[str, str], str]:
    """How the catalog writes each attribute value most often."""
    spellings: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for product in products:
        for kind, value in product.attributes.items():
            spellings[kind, normal(value)][value] += 1
    return {value: counts.most_common(1)[0][0] for value, counts in spellings.items()}


def nearly_all(count: int, of: int, share: float) -> bool:
    """Whether `count` of `of` is nearly all, also against a value that `share` of all products carry anyway."""
    return wilson_low(count, of) >= max(NEARLY_ALL, 1 - LEFT * (1 - share))


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
    cells = ((both, first, second), (first - both, first, total - second))
    cells += ((second - both, total - first, second), (total - first - second + both, total - first, total - second))
    return 2 * sum(seen * math.log(seen * total / (row * column)) for seen, row, column in cells if seen > 0)
