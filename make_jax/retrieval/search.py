"""Exact search: every product is scored, on device, in chunks. The order is a rule, never chance."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

_QUERIES_AT_ONCE = 256  # at most, where every score of some queries with all products is held at once ...
_SCORES_AT_ONCE = 1 << 27  # ... and no more scores than this, 512 MiB


class TopK(NamedTuple):
    """What each query found, best first. Where nothing more was found: score -inf, index -1."""

    scores: Float32[np.ndarray, "Q k"]
    indices: Int32[np.ndarray, "Q k"]  # positions of products


@runtime_checkable
class VectorIndex(Protocol):
    """Product vectors, in memory (`embed.ProductEmbeddings`) or on disk (`stored.DiskEmbeddings`)."""

    @property
    def weights(self) -> Float32[np.ndarray, "N 2"]:
        """Share of title and image in each vector; their sum is 1, or 0 for an absent product."""
        ...

    @property
    def absent(self) -> Bool[np.ndarray, "N"]:
        """The products that had nothing to embed."""
        ...

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        ...

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector as it is kept."""
        ...

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int) -> TopK:
        """The k best products of each query, ties by ascending position; absent ones are never found."""
        ...

    def scores(self, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every product; the caller chunks the queries, see `query_chunk_size`."""
        ...


def query_chunk_size(products: int) -> int:
    """Of how many queries every score with so many products is held at once."""
    return max(1, min(_QUERIES_AT_ONCE, _SCORES_AT_ONCE // max(products, 1)))


def search(
    queries: Float32[np.ndarray, "Q D"],
    products: Float32[np.ndarray, "N D"],
    k: int,
    *,
    absent: Bool[np.ndarray, "N"] | None = None,
    query_chunk: int = 1024,
    product_chunk: int = 8192,
) -> TopK:
    """The k best products of each query by inner product (f32, highest matmul precision), ties by ascending index.

    `absent` products are never found, and there are at most N results, so rows may end in index -1. Device memory:
    query_chunk * product_chunk scores at a time, whatever Q and N are.
    """
    k = min(k, len(products))
    scores = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), -1, np.int32)
    if k == 0 or len(queries) == 0:
        return TopK(scores, indices)
    hidden = np.zeros(len(products), bool) if absent is None else absent
    query_chunk, product_chunk = min(query_chunk, len(queries)), min(product_chunk, len(products))
    chunks = [  # the last is padded, so that one program serves all
        (jnp.asarray(_padded(products[i : i + product_chunk], product_chunk, 0.0)), i, hidden[i : i + product_chunk])
        for i in range(0, len(products), product_chunk)
    ]
    for start in range(0, len(queries), query_chunk):
        rows = queries[start : start + query_chunk]
        some = jnp.asarray(_padded(rows, query_chunk, 0.0))
        best: tuple[Array, Array] = (jnp.full((query_chunk, k), -jnp.inf), jnp.full((query_chunk, k), -1, jnp.int32))
        for vectors, first, gone in chunks:
            best = merge(best, some, vectors, _padded(gone, product_chunk, True), np.int32(first))
        scores[start : start + len(rows)] = np.asarray(best[0])[: len(rows)]
        indices[start : start + len(rows)] = np.asarray(best[1])[: len(rows)]
    return TopK(scores, indices)


def top_k_of_scores(scores: Float[np.ndarray, "Q N"], k: int) -> TopK:
    """The k best columns of each row, ties by ascending index; a score of -inf is not found (index -1)."""
    found, indices = _top(jnp.asarray(scores, jnp.float32), k=min(k, scores.shape[1]))
    return TopK(np.asarray(found), np.asarray(indices))


CandidateFilter = Callable[[slice], Bool[np.ndarray, "q N"] | None]  # which products some queries may find; None: all


def no_filter(rows: slice) -> None:
    """A `CandidateFilter` that hides nothing."""


def mask_scores(
    scores: Float32[np.ndarray, "q N"], allowed: Bool[np.ndarray, "q N"] | None
) -> Float32[np.ndarray, "q N"]:
    """The scores, with -inf where a query may not find the product."""
    return scores if allowed is None else np.where(allowed, scores, np.float32(-np.inf))


def filtered_top_k(
    queries: Float32[np.ndarray, "Q D"], products: VectorIndex, k: int, allowed: CandidateFilter
) -> TopK:
    """As `search`, where each query has products of its own to find. Memory: at most 256 queries by all products."""
    parts = []
    absent = products.absent
    at_once = query_chunk_size(len(absent))
    for start in range(0, len(queries), at_once):
        rows = slice(start, min(start + at_once, len(queries)))
        scores = np.where(absent, np.float32(-np.inf), products.scores(queries[rows]))
        parts.append(top_k_of_scores(mask_scores(scores, allowed(rows)), k))
    return concat_top_k(parts, min(k, len(absent)))


def concat_top_k(parts: Sequence[TopK], k: int) -> TopK:
    """Rankings of chunks of queries, one after the other; `k` columns when there is no chunk."""
    if not parts:
        return TopK(np.zeros((0, k), np.float32), np.zeros((0, k), np.int32))
    return TopK(np.concatenate([p.scores for p in parts]), np.concatenate([p.indices for p in parts]))


def inner_products(
    queries: Float32[np.ndarray, "q D"], products: Float32[np.ndarray, "N D"]
) -> Float32[np.ndarray, "q N"]:
    """The score of every query with every product, as `search` computes it; the caller chunks the queries."""
    return np.asarray(_scores(jnp.asarray(queries), jnp.asarray(products)))


def _padded(rows: np.ndarray, length: int, value: float | bool) -> np.ndarray:
    """`rows` with rows of `value` behind them, `length` in all."""
    widths = [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1)
    return np.pad(rows, widths, constant_values=value)


@jax.jit
def _scores(queries: Float[Array, "q D"], products: Float[Array, "n D"]) -> Float[Array, "q n"]:
    return jnp.matmul(queries, products.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="k")
def _top(scores: Float[Array, "q n"], *, k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """top_k puts -0.0 behind 0.0, which are equal numbers and so a tie: both become 0.0."""
    found, indices = jax.lax.top_k(jnp.where(scores == 0, 0.0, scores), k)
    return found, jnp.where(found == -jnp.inf, -1, indices)


@jax.jit
def merge(
    best: tuple[Float[Array, "q k"], Int[Array, "q k"]],
    queries: Float[Array, "q D"],
    products: Float[Array, "n D"],
    absent: Bool[Array, "n"],
    first: Int[Array, ""],
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The best of `best` and of a chunk of products that starts at position `first`.

    top_k is stable and what came before stands in front, so a tie keeps the lower product position.
    """
    k = best[0].shape[1]
    scores = jnp.where(absent[None], -jnp.inf, _scores(queries, products))
    found, positions = _top(scores, k=min(k, scores.shape[1]))
    merged, order = _top(jnp.concatenate([best[0], found], axis=1), k=k)
    indices = jnp.concatenate([best[1], positions + first], axis=1)
    return merged, jnp.where(order < 0, -1, jnp.take_along_axis(indices, order, axis=1))
