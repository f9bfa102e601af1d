"""Exact search of vectors that stay on disk: every vector is scored once, and memory holds a block of them.

A processor multiplies blocks in float32 and keeps what may be among the best: all whose score reaches the k-th best of
the query so far, less what float32 can be wrong by. These are scored again in float64 and rounded to float32, and ties
go by ascending position. So the ranking is that of brute force in float64, whatever the sizes of blocks and shards and
the order in which a library adds up. Accelerators keep their best themselves (`retrieval/sharded.py`), in float32.
"""

import jax
import numpy as np
from jaxtyping import Float32

from make_jax.retrieval.embed import Progress, no_progress
from make_jax.retrieval.search import TopK
from make_jax.retrieval.sharded import search_sharded
from make_jax.retrieval.vectors import GROUP, Vectors
from make_jax.runs.mesh import make_mesh

_QUERIES = 1024  # scored together: with GROUP vectors they make 32 MiB of scores
_PAIRS = 1 << 11  # of query and vector that are scored again together: 4 MiB of each at width 256, what caches hold
_LOWEST = np.finfo(np.float32).min


def search_stored(
    queries: Float32[np.ndarray, "Q D"], source: Vectors, k: int, progress: Progress = no_progress
) -> TopK:
    """The k best vectors of each query by inner product, ties by ascending position; vectors of zeros are never found.

    The disk is read once, a block ahead. On a processor scores are those of float64, rounded to float32; accelerators
    work in float32. Memory: a few blocks of vectors, one of scores, and 2 Q max(k, 64) candidates.
    """
    if jax.default_backend() != "cpu":
        return search_sharded(queries, source, k, make_mesh(devices=jax.local_devices()), progress=progress)
    return search_on_host(queries, source, k, progress=progress)


def search_on_host(
    queries: Float32[np.ndarray, "Q D"],
    source: Vectors,
    k: int,
    *,
    block: int = GROUP,
    progress: Progress = no_progress,
) -> TopK:
    """What `search_stored` gives on a processor, `block` vectors at a time."""
    k = min(k, source.count)
    groups = [_Best(queries[i : i + _QUERIES], k) for i in range(0, len(queries), _QUERIES)]
    scores = np.empty((min(len(queries), _QUERIES), block), np.float32)
    for first, vectors in source.blocks(block, np.float32):
        for group in groups:
            group.add(first, vectors, scores[: len(group.queries), : len(vectors)])
        progress("vectors searched", first + len(vectors), source.count)
    found = [group.ranking() for group in groups]
    empty = TopK(np.zeros((0, k), np.float32), np.zeros((0, k), np.int32))
    return TopK(*(np.concatenate(parts) for parts in zip(*(found or [empty]), strict=True)))


def score_stored(queries: Float32[np.ndarray, "q D"], source: Vectors) -> Float32[np.ndarray, "q N"]:
    """The score of every query with every vector, in float32: memory is that of the result, so the caller chunks."""
    out = np.empty((len(queries), source.count), np.float32)
    for first, vectors in source.blocks(dtype=np.float32):
        out[:, first : first + len(vectors)] = queries @ vectors.T
    return out


class _Best:
    """The best of some queries so far, and candidates that may displace them."""

    def __init__(self, queries: Float32[np.ndarray, "q D"], k: int) -> None:
        self.queries = queries
        self._exact = queries.astype(np.float64)
        self._norms = np.linalg.norm(self._exact, axis=1)
        self._ranking = TopK(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int32))
        self._candidates: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # query, position, score
        self._waiting = 0

    def add(self, first: int, vectors: Float32[np.ndarray, "n D"], scores: Float32[np.ndarray, "q n"]) -> None:
        """Sees vectors from position `first` on; `scores` is memory to work in."""
        np.matmul(self.queries, vectors.T, out=scores)
        gone = np.logical_not(vectors.any(axis=1))
        if gone.any():
            scores[:, gone] = -np.inf
        wrong = self._wrong_by(vectors)
        least = self._ranking.scores[:, -1] - wrong
        kept = np.flatnonzero(scores >= _no_more_than(least)[:, None])
        k = self._ranking.scores.shape[1]
        if len(kept) > len(scores) * k and k <= scores.shape[1]:  # the first block, or ever better ones
            # k of this block are within `wrong` of their score, so the k-th best of all is no worse than this.
            within = -np.partition(-scores, k - 1, axis=1)[:, k - 1] - 2 * wrong
            kept = np.flatnonzero(scores >= _no_more_than(np.maximum(least, within))[:, None])
        query, column = np.divmod(kept, scores.shape[1])
        score = self._score(query, vectors, column)
        self._candidates.append((query.astype(np.int32), (column + first).astype(np.int32), score))
        self._waiting += len(kept)
        if self._waiting > len(scores) * max(k, 64):
            self._merge()

    def ranking(self) -> TopK:
        """The best of all that was seen."""
        self._merge()
        return self._ranking

    def _wrong_by(self, vectors: np.ndarray) -> np.ndarray:
        """What a float32 score of each query can differ from the exact one by, however the products are added up.

        D products and D - 1 sums, each rounded by 2^-24 at most: less than 1.01 D 2^-24 |q| |p| for D up to 2^17
        [Higham, Accuracy and Stability of Numerical Algorithms, 3.1]; and 2^-24 |q| |p| where the result is rounded.
        """
        width = vectors.shape[1]
        longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max())) * (1 + 1e-3)
        return 1.01 * (width + 1) * 2.0**-24 * longest * self._norms

    def _score(self, query: np.ndarray, vectors: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The float64 score of pairs of a query and a vector, rounded to float32."""
        out = np.empty(len(query), np.float32)
        for start in range(0, len(query), _PAIRS):
            rows = slice(start, start + _PAIRS)
            out[rows] = np.einsum("nd,nd->n", self._exact[query[rows]], vectors[column[rows]].astype(np.float64))
        return np.where(out == 0, np.float32(0), out)  # -0.0 and 0.0 are a tie

    def _merge(self) -> None:
        """Puts the candidates among the best: by query, then score, then position, in which order they came."""
        scores, indices = self._ranking
        k = scores.shape[1]
        if not self._candidates:
            return
        query, position, score = (np.concatenate(parts) for parts in zip(*self._candidates, strict=True))
        query = np.concatenate([np.repeat(np.arange(len(scores), dtype=np.int32), k), query])
        position = np.concatenate([indices.reshape(-1), position])
        score = np.concatenate([scores.reshape(-1), score])
        order = np.lexsort((-score, query))  # stable
        query, position, score = query[order], position[order], score[order]
        begins = np.searchsorted(query, np.arange(len(scores)))
        best = begins[:, None] + np.arange(k)
        self._ranking = TopK(score[best], position[best])
        self._candidates, self._waiting = [], 0


def _no_more_than(bounds: np.ndarray) -> np.ndarray:
    """Float32 numbers at or below `bounds`, and above -inf, which is the score of what cannot be found."""
    with np.errstate(over="ignore"):
        return np.maximum(np.nextafter(bounds.astype(np.float32), np.float32(-np.inf)), _LOWEST)
