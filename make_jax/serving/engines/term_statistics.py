"""BM25 as inner products of sparse vectors: `TermStatistics`.

The score of a query and a title is the sum over the query's terms t of

    idf(t) * tf / (tf + k1 * (1 - b + b * title length / mean title length))

(Lucene's variant, as `TitleBM25` has it). The second factor is the value of t in the title's sparse vector, the first
its value in the query's. Qdrant's own idf modifier would give the same numbers for a new collection, but it counts
deleted products until a segment is rewritten, titles without a term never, and each shard for itself; with our own
counts the scores are those of `TitleBM25` after updates and on a cluster too [ours, by test]. Qdrant's own BM25 vectors
are not used: their tokenizer, stop words and fixed mean length (256) differ from evaluation's.
"""

import math
from collections import Counter
from collections.abc import Iterable

from make_jax.evaluation.bm25_terms import BM25Parameters, tokenize
from make_jax.serving.engines.store import Sparse


class TermStatistics:
    """How many titles have each term, and the number of each term in sparse vectors."""

    def __init__(self, parameters: BM25Parameters) -> None:
        self._parameters = parameters
        self._numbers: dict[str, int] = {}
        self._titles_with: Counter[str] = Counter()
        self._titles = 0
        self._length = 0  # of all titles, in terms
        self._next = 0

    def copy(self) -> "TermStatistics":
        """Independent counts."""
        other = TermStatistics(self._parameters)
        other._numbers, other._titles_with = dict(self._numbers), Counter(self._titles_with)
        other._titles, other._length, other._next = self._titles, self._length, self._next
        return other

    @property
    def mean_length(self) -> float:
        """Terms of a title, in the mean; 0 without a title."""
        return self._length / self._titles if self._titles else 0.0

    def add(self, title: str, numbers: Iterable[int] | None = None) -> list[int]:
        """Counts a title and returns the numbers of its distinct terms; `numbers`: those that it is stored with."""
        terms = tokenize(title)
        distinct = list(dict.fromkeys(terms))
        if numbers is not None:
            self._numbers.update(zip(distinct, numbers, strict=True))
            self._next = max(self._next, 1 + max((self._numbers[term] for term in distinct), default=-1))
        for term in distinct:
            if term not in self._numbers:
                self._numbers[term] = self._next
                self._next += 1
        self._count(terms, 1)
        return [self._numbers[term] for term in distinct]

    def remove(self, title: str) -> None:
        """Takes a title out of the counts."""
        self._count(tokenize(title), -1)

    def _count(self, terms: list[str], sign: int) -> None:
        self._titles += sign
        self._length += sign * len(terms)
        for term in set(terms):
            self._titles_with[term] += sign

    def title_vector(self, title: str, mean_length: float) -> Sparse:
        """The sparse vector of a title whose terms are counted."""
        terms = tokenize(title)
        k1, b = self._parameters
        saturation = k1 * (1 - b + b * len(terms) / mean_length) if terms else 0.0
        counts = Counter(terms)
        values = [count / (count + saturation) for count in counts.values()]
        return Sparse([self._numbers[term] for term in counts], values)

    def query_vector(self, text: str) -> Sparse | None:
        """The sparse vector of a query; a repeated term counts as often. None if no title has a term of it."""
        counts = Counter(term for term in tokenize(text) if self._titles_with[term] > 0)
        values = [count * self._idf(self._titles_with[term]) for term, count in counts.items()]
        return Sparse([self._numbers[term] for term in counts], values) if counts else None

    def _idf(self, titles: int) -> float:
        return math.log(1 + (self._titles - titles + 0.5) / (titles + 0.5))
