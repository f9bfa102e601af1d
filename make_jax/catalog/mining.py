"""Mines the keyword vocabulary of a catalog from its training products and clicks; judged queries are not read [ours].

If training products have attributes that are texts, each value with enough of them is a keyword, and a query word
(terms.py) becomes a synonym of it if nearly all products clicked for queries with that word have the value. This also
links the languages of a catalog. Without attributes, keywords are the words that queries and titles of their clicked
products share far more often than chance.

Statistics: Dunning's log-likelihood ratio G2 (1993) and Wilson's confidence interval (1927).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from make_jax.catalog.attributes import attribute_texts
from make_jax.catalog.keywords import TERM, Keyword, KeywordVocabulary, normalize_text
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Click, Product
from make_jax.catalog.terms import Span, TokenizedText, find_words, is_compound, longest_spans, subterms
from make_jax.errors import InputError

Value = tuple[str, str]  # kind and normalized name of a keyword

MIN_SHARE = 0.85  # of the clicked products that must have a value, ...
MIN_WILSON = 0.6  # ... lower bound of that share, Wilson's 95 % interval, ...
MAX_LACKING = 0.25  # ... and of the products expected to lack the value by chance, at most this share may lack it
DENIED = 0.5  # a value that fewer of the clicked products have is not part of the query's meaning
MIN_REFERENCE = 0.4  # lower bound of a term's reference share (`_SynonymMiner._reference_share`)
SIGNIFICANT = 15.13  # G2 with one degree of freedom at p = 0.0001
MAX_TITLE_SHARE = 0.2  # a term in more of the titles is too general for a keyword
ROUNDS = 4  # of synonym mining; the first half considers single words only


def mine_keywords(
    catalog: Catalog, *, attributes: bool = True, min_products: int = 5, max_keywords: int = 4096
) -> KeywordVocabulary:
    """The keyword vocabulary of a catalog's training products and clicks, by descending number of products.

    Args:
        catalog: judged queries and products of the other splits are not read; of a large one, a sample is read
            (`Catalog.training_sample`).
        attributes: whether attribute values that are texts become keywords; False mines titles and clicks only.
        min_products: training products that a keyword needs, and distinct clicked products that a synonym needs.
        max_keywords: the rarest keywords beyond this number are dropped.

    Raises InputError for a number below 1.
    """
    for name, number in (("min_products", min_products), ("max_keywords", max_keywords)):
        if number < 1:
            raise InputError(f"{name}: {number}, expected 1 or more")
    sample, sample_clicks = catalog.training_sample()
    products = {product.id: product for product in sample}
    clicks = _QueryClicks.from_clicks(sample_clicks, products, min_products)
    of_attributes = {product.id: _attribute_values(product) for product in products.values()} if attributes else {}
    if any(of_attributes.values()):
        values, spellings = of_attributes, _frequent_spellings(products.values())
    else:
        values = _shared_words(products, clicks, min_products)
        spellings = {}
    counts = Counter(value for of_product in values.values() for value in of_product)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:max_keywords]
    kept = {value: count for value, count in ranked if count >= min_products}
    values = {id: of_product.intersection(kept) for id, of_product in values.items()}
    names = _SynonymMiner(clicks, values, kept, min_products).names()
    return KeywordVocabulary(
        tuple(
            Keyword(kind, spellings.get((kind, name), name), tuple(sorted(names[kind, name])), count)
            for (kind, name), count in kept.items()
        )
    )


@dataclass(frozen=True)
class _QueryClicks:
    """Distinct normalized queries with the words in them and the training products clicked for each."""

    occurrences: list[list[tuple[str, Span]]]
    clicked: list[set[str]]
    words: set[str]
    single: set[str]  # words that are not compounds of other words

    @classmethod
    def from_clicks(cls, clicks: Iterable[Click], products: dict[str, Product], min_products: int) -> "_QueryClicks":
        by_query: dict[str, set[str]] = defaultdict(set)
        for click in clicks:
            if click.product in products:
                by_query[normalize_text(click.query)].add(click.product)
        queries = sorted(by_query)
        texts = [TokenizedText.from_text(query) for query in queries]
        clicked = [by_query[query] for query in queries]
        counts: Counter[str] = Counter()
        for text, ids in zip(texts, clicked, strict=True):
            for term in {term for term, _ in text.terms()}:
                counts[term] += len(ids)
        words = find_words(texts, {term for term, count in counts.items() if count >= min_products})
        single = {term for term in words if not is_compound(term, words)}
        return cls([text.occurrences(words) for text in texts], clicked, words, single)

    def clicked_by_word(self, names: set[str]) -> dict[str, set[str]]:
        """Word -> products clicked for the queries in which it occurs separately: not inside one of `names` or another
        single word, and not across the border of one of `names`."""
        clicked: dict[str, set[str]] = defaultdict(set)
        for occurrences, ids in zip(self.occurrences, self.clicked, strict=True):
            named = [span for term, span in occurrences if term in names]
            single = [span for term, span in occurrences if term in self.single]
            for term, span in occurrences:
                first, end = span
                if all(b <= first or end <= a or (first <= a and b <= end) for a, b in named) and not any(
                    a <= first and end <= b and (a, b) != span for a, b in single
                ):
                    clicked[term] |= ids
        return clicked


class _SynonymMiner:
    """Assigns query words to keyword values."""

    def __init__(
        self, clicks: _QueryClicks, values: dict[str, frozenset[Value]], counts: dict[Value, int], min_products: int
    ) -> None:
        self.clicks, self.values, self.counts, self.min_products = clicks, values, counts, min_products
        self.products: dict[Value, set[str]] = defaultdict(set)
        for product, of_product in values.items():
            for value in of_product:
                self.products[value].add(product)
        self.own: dict[str, set[Value]] = defaultdict(set)  # name -> values that have it as their own name
        for value in counts:
            self.own[value[1]].add(value)
        self.only_terms = all(kind == TERM for kind, _ in counts)
        clicked = clicks.clicked_by_word(set(self.own))
        self.reference = {value: self._reference_share(value, clicked.get(value[1], set())) for value in counts}

    def names(self) -> dict[Value, set[str]]:
        """All names of each value: its own, and the query words assigned to it.

        A word is counted only where no longer name covers it, so the assignment is iterated: "red" is separated from
        "wine red" once "wine red" is known to mean maroon.
        """
        assigned: dict[str, Value] = {}
        for number in range(ROUNDS):
            clicked = self.clicks.clicked_by_word(set(assigned) | set(self.own))
            eligible = self.clicks.single if self.only_terms or number < ROUNDS // 2 else self.clicks.words
            assigned = self._assign(clicked, eligible)
        named = self.own | {name: {value} for name, value in assigned.items()}
        full = self._with_inherited(named, self.clicks.clicked_by_word(set(named)))
        redundant = self._redundant(full)
        names: dict[Value, set[str]] = defaultdict(set)
        for name in full.keys() - redundant:
            for value in full[name]:
                names[value].add(name)
        return names

    def _assign(self, clicked: dict[str, set[str]], eligible: set[str]) -> dict[str, Value]:
        """Word -> the value with the highest G2, if nearly all products clicked for the word have it. G2 decides
        because "saree" is the category although all sarees are for women."""
        assigned: dict[str, Value] = {}
        for term in sorted(eligible - self.own.keys(), key=lambda term: (len(term), term)):
            ids = clicked.get(term, set())
            counts = Counter(value for product in ids for value in self.values[product])
            if len(ids) < self.min_products or not counts:
                continue
            gain, value = max((self._gain(value, count, len(ids)), value) for value, count in counts.items())
            certain = gain >= SIGNIFICANT and self._nearly_all(value, counts[value], len(ids))
            if certain and (term in self.clicks.single or self._idiomatic(term, assigned, counts, len(ids))):
                assigned[term] = value
        return assigned

    def _idiomatic(self, term: str, assigned: dict[str, Value], counts: Counter[Value], total: int) -> bool:
        """Whether a compound means something else than its parts: no part is a name, or the products lack a value
        that a part names. "dress shoes" are not dresses; "kurta for men" is both a kurta and for men."""
        parts = _covering_terms(TokenizedText.from_text(term), (assigned.keys() | self.own.keys()) - {term})
        meanings = [self.own[part] if part in self.own else {assigned[part]} for part in parts]
        return not meanings or any(max(counts[value] for value in values) < DENIED * total for values in meanings)

    def _gain(self, value: Value, count: int, total: int) -> float:
        return log_likelihood_ratio(count, total, self.counts[value], len(self.values))

    def _reference_share(self, value: Value, clicked: set[str]) -> float:
        """The share of products with a value among those clicked for its own name: 1 for attributes, less for terms,
        because titles omit words."""
        if value[0] != TERM or len(clicked) < self.min_products:
            return 1.0
        return max(MIN_REFERENCE, len(clicked & self.products[value]) / len(clicked))

    def _nearly_all(self, value: Value, count: int, total: int) -> bool:
        share = self.counts[value] / len(self.values)
        least = self.reference[value] * max(MIN_SHARE, 1 - MAX_LACKING * (1 - share))
        return count >= least * total and wilson_low(count, total) >= MIN_WILSON * self.reference[value]

    def _with_inherited(self, named: dict[str, set[Value]], clicked: dict[str, set[str]]) -> dict[str, set[Value]]:
        """Each name with its values and those values of the names inside it that its products have too: "casual
        shoes" are casual, "navy blue" is not blue."""
        full: dict[str, set[Value]] = {}
        for term, own in named.items():
            ids = clicked.get(term, set()) | set().union(*(self.products[v] for v in own if v[1] == term))
            inner = {v for part in subterms(term) & named.keys() for v in named[part]}
            full[term] = own | {v for v in inner if self._nearly_all(v, len(ids & self.products[v]), len(ids))}
        return full

    def _redundant(self, named: dict[str, set[Value]]) -> set[str]:
        """Names with exactly the values of the names inside them: "black shirt"."""
        redundant = set()
        for term in named.keys() - self.own.keys():
            parts = _covering_terms(TokenizedText.from_text(term), named.keys() - {term})
            if named[term] == set().union(*(named[part] for part in parts)):
                redundant.add(term)
        return redundant


def _attribute_values(product: Product) -> frozenset[Value]:
    """The attributes of a product as keyword values."""
    normalized = ((kind, normalize_text(text)) for kind, text in attribute_texts(product.attributes))
    return frozenset((kind, name) for kind, name in normalized if name)


def _shared_words(products: dict[str, Product], clicks: _QueryClicks, min_products: int) -> dict[str, frozenset[Value]]:
    """Product -> the words of its title that queries and titles of their clicked products share far above chance."""
    clicked = clicks.clicked_by_word(set())
    texts = {id: TokenizedText.from_text(product.title) for id, product in products.items()}
    by_term: dict[str, set[str]] = defaultdict(set)
    for id, text in texts.items():
        for term, _ in text.occurrences(clicks.words):
            by_term[term].add(id)
    shared = {
        term
        for term, ids in by_term.items()
        if min_products <= len(ids) <= MAX_TITLE_SHARE * len(products)
        and log_likelihood_ratio(len(ids & clicked[term]), len(clicked[term]), len(ids), len(products)) >= SIGNIFICANT
    }
    eligible = shared & clicks.single
    return {id: frozenset((TERM, term) for term in _covering_terms(text, eligible)) for id, text in texts.items()}


def _covering_terms(text: TokenizedText, terms: Collection[str]) -> set[str]:
    """The terms in a text that are not part of longer ones."""
    occurrences = text.occurrences(terms)
    kept = longest_spans([span for _, span in occurrences])
    return {term for term, span in occurrences if span in kept}


def _frequent_spellings(products: Iterable[Product]) -> dict[Value, str]:
    """The most frequent spelling of each attribute value."""
    spellings: dict[Value, Counter[str]] = defaultdict(Counter)
    for product in products:
        for kind, text in attribute_texts(product.attributes):
            spellings[kind, normalize_text(text)][text] += 1
    return {value: counts.most_common(1)[0][0] for value, counts in spellings.items()}


def wilson_low(count: int, total: int) -> float:
    """Lower bound of Wilson's 95 % confidence interval of the share count / total."""
    z = 1.96
    share = count / total
    center = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (center - spread) / (1 + z * z / total)


def log_likelihood_ratio(both: int, first: int, second: int, total: int) -> float:
    """Dunning's G2 of two events that co-occur `both` times; 0 if they co-occur no more often than by chance."""
    if both * total <= first * second:
        return 0.0
    cells = [
        (both, first, second),
        (first - both, first, total - second),
        (second - both, total - first, second),
        (total - first - second + both, total - first, total - second),
    ]
    return 2 * sum(
        observed * math.log(observed * total / (row * column)) for observed, row, column in cells if observed
    )
