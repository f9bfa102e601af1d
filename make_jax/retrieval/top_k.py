"""Exact top-k search by inner product: `top_k(queries, source, k)`.

Every query is scored with every vector, block by block, and ties go by ascending position. Two kernels share these
rules:

* Devices (vectors in memory, vectors on disk with an accelerator, or an explicit mesh): each device scores its rows of
  every block in float32 and keeps its own top k. After the last block the devices exchange candidates once, split by
  query, and sort them by score and position.
* Host (vectors on disk, on CPU): blocks are multiplied in float32. Candidates are the vectors whose score reaches the
  k-th best so far minus the float32 error bound; they are scored again in float64 and rounded to float32. The result is
  that of brute force in float64, whatever the block and shard sizes and the summation order of the BLAS library.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from make_jax.retrieval.device_vectors import DeviceVectors, PlacedBlock, pad_rows, source_blocks
from make_jax.retrieval.vectors.source import BLOCK_SIZE, VectorSource
from make_jax.runs.mesh import BATCH_AXES, make_mesh, replicate, shard_rows, to_host

Progress = Callable[[str, int, int], None]  # (what is processed, done, total)
CandidateFilter = Callable[[slice], Bool[np.ndarray, "q N"] | None]  # products that queries may find; None: all

_QUERIES_PER_GROUP = 1024  # scored together: with BLOCK_SIZE vectors they make 32 MiB of scores
_MAX_QUERIES = 256  # of a complete score matrix [q, N] ...
_MAX_SCORES = 1 << 27  # ... of at most 512 MiB
_RESCORED_PAIRS = 1 << 11  # float64 pairs scored together: 4 MiB of each side at width 256, which caches hold
_LOWEST = np.finfo(np.float32).min


class TopK(NamedTuple):
    """The best products of each query, best first; beyond the last result: score -inf, index -1."""

    scores: Float32[np.ndarray, "Q k"]
    indices: Int32[np.ndarray, "Q k"]  # positions of products


def no_progress(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def no_filter(rows: slice) -> None:
    """A `CandidateFilter` that allows all products."""


def top_k(
    queries: Float32[np.ndarray, "Q D"],
    source: Float32[np.ndarray, "N D"] | DeviceVectors | VectorSource,
    k: int,
    *,
    absent: Bool[np.ndarray, "N"] | None = None,
    mesh: Mesh | None = None,
    block_size: int = BLOCK_SIZE,
    progress: Progress = no_progress,
) -> TopK:
    """The top k vectors of each query by inner product, ties by ascending position.

    Returns min(k, N) columns. Memory beyond the source, for any Q and N: a few blocks, one block of scores with 1,024
    queries, and 2 Q max(k, 64) candidates on the host or Q k on each device.

    Args:
        queries: query vectors.
        source: an array, vectors that stay on the devices between searches, or vectors that are read block by block
            (in one pass) and whose zero vectors are absent.
        k: results of a query.
        absent: rows of an array that are never found; None: none.
        mesh: devices of this process that search. None: the local accelerators; on CPU one device for an array, and
            the float64 host kernel for a `VectorSource`.
        block_size: vectors per block and device.
        progress: called after each block of a `VectorSource`.
    """
    if isinstance(source, np.ndarray):
        source = DeviceVectors(source, np.zeros(len(source), bool) if absent is None else absent)
    if isinstance(source, DeviceVectors):
        return _device_top_k(queries, source, k, mesh or _local_mesh(), block_size, no_progress)
    if mesh is None and jax.default_backend() == "cpu":
        return _host_top_k(queries, source, k, block_size, progress)
    return _device_top_k(queries, source, k, mesh or _local_mesh(), block_size, progress)


def _local_mesh() -> Mesh:
    """The accelerators of this process, or one CPU device."""
    devices = jax.local_devices()
    return make_mesh(devices=devices[:1] if jax.default_backend() == "cpu" else devices)


# --- complete score matrices ---


def query_chunk_size(products: int) -> int:
    """How many queries to score at once where the complete score matrix is held."""
    return max(1, min(_MAX_QUERIES, _MAX_SCORES // max(products, 1)))


def inner_products(
    queries: Float32[np.ndarray, "q D"], products: Float32[np.ndarray, "N D"] | DeviceVectors
) -> Float32[np.ndarray, "q N"]:
    """The score of every query with every product, as `top_k` computes it; the caller chunks the queries."""
    on_device = products.as_array() if isinstance(products, DeviceVectors) else jnp.asarray(products)
    return np.asarray(_scores(jnp.asarray(queries), on_device))


def source_inner_products(queries: Float32[np.ndarray, "q D"], source: VectorSource) -> Float32[np.ndarray, "q N"]:
    """As `inner_products`, block by block: memory is that of the result, so the caller chunks the queries."""
    out = np.empty((len(queries), source.count), np.float32)
    for first, vectors in source.blocks(dtype=np.float32):
        out[:, first : first + len(vectors)] = queries @ vectors.T
    return out


def mask_scores(
    scores: Float32[np.ndarray, "q N"], allowed: Bool[np.ndarray, "q N"] | None
) -> Float32[np.ndarray, "q N"]:
    """The scores, with -inf where a query may not find the product; None allows all."""
    return scores if allowed is None else np.where(allowed, scores, np.float32(-np.inf))


def top_k_of_scores(scores: Float[np.ndarray, "Q N"], k: int) -> TopK:
    """The top k columns of each row, ties by ascending index; -inf is never found."""
    values, indices = _top(jnp.asarray(scores, jnp.float32), k=min(k, scores.shape[1]))
    return TopK(np.asarray(values), np.asarray(indices))


def concat_top_k(parts: Sequence[TopK], k: int) -> TopK:
    """The results of consecutive query chunks; `k` columns where there is no chunk."""
    if not parts:
        return _empty(0, k)
    return TopK(np.concatenate([p.scores for p in parts]), np.concatenate([p.indices for p in parts]))


def _empty(queries: int, k: int) -> TopK:
    return TopK(np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int32))


@jax.jit
def _scores(queries: Float[Array, "q D"], products: Float[Array, "n D"]) -> Float[Array, "q n"]:
    return jnp.matmul(queries, products.T, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="k")
def _top(scores: Float[Array, "q n"], *, k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """lax.top_k orders -0.0 behind 0.0, which are equal numbers and so a tie: both become 0.0."""
    values, indices = jax.lax.top_k(jnp.where(scores == 0, 0.0, scores), k)
    return values, jnp.where(values == -jnp.inf, -1, indices)


# --- device kernel ---

Candidates = tuple[Float[Array, "r k"], Int[Array, "r k"]]  # scores and positions of r queries


def _device_top_k(
    queries: Float32[np.ndarray, "Q D"],
    source: DeviceVectors | VectorSource,
    k: int,
    mesh: Mesh,
    block_size: int,
    progress: Progress,
) -> TopK:
    """The float32 kernel; zero vectors of a `VectorSource` are absent."""
    k, devices = min(k, source.count), mesh.size
    if k == 0 or len(queries) == 0:
        return _empty(len(queries), k)
    rows = min(block_size, -(-source.count // devices))  # of a device in a block
    group_size = -(-min(len(queries), _QUERIES_PER_GROUP) // devices) * devices
    groups = [  # the last group and block are padded, so that one program serves all
        replicate(pad_rows(queries[i : i + group_size], group_size), mesh) for i in range(0, len(queries), group_size)
    ]
    add_block, merge_devices = _device_programs(mesh, k)
    start = _empty(devices * group_size, k)._asdict()
    best = [tuple(shard_rows(start, mesh).values()) for _ in groups]
    in_memory = isinstance(source, DeviceVectors)
    for block in _placed_blocks(source, mesh, devices * rows):
        best = [
            add_block(*candidates, group, **block.arrays, zeros_are_absent=not in_memory)
            for candidates, group in zip(best, groups, strict=True)
        ]
        progress("vectors searched", block.end, source.count)
    merged = [to_host(merge_devices(*candidates), mesh) for candidates in best]
    scores, indices = (np.concatenate(parts)[: len(queries)] for parts in zip(*merged, strict=True))
    return TopK(scores, indices)


def _placed_blocks(source: DeviceVectors | VectorSource, mesh: Mesh, size: int) -> Iterator[PlacedBlock]:
    return source.blocks(mesh, size) if isinstance(source, DeviceVectors) else source_blocks(source, mesh, size)


@lru_cache(maxsize=8)  # otherwise each call compiles its own program
def _device_programs(mesh: Mesh, k: int) -> tuple[Callable[..., Candidates], Callable[..., Candidates]]:
    """The program that scores one block, without communication, and the one that merges all devices' candidates."""
    split, replicated = PartitionSpec(BATCH_AXES), PartitionSpec()

    def merge_devices(scores: Float[Array, "q k"], positions: Int[Array, "q k"]) -> Candidates:
        scores, positions = exchange(scores), exchange(positions)
        # Both zeros are one number (`_top` leaves 0.0 only), and -inf marks an empty place.
        negated, positions = jax.lax.sort((-scores, positions), num_keys=2)
        return -negated[:, :k], positions[:, :k]

    def exchange(local: Array) -> Array:
        """[q, k] of one device -> [q/N, N k]: the candidates of all devices for this device's share of the queries."""
        parts = local.reshape(mesh.size, -1, k)
        received = jax.lax.all_to_all(parts, BATCH_AXES, split_axis=0, concat_axis=0, tiled=True)
        return jnp.moveaxis(received, 0, 1).reshape(-1, mesh.size * k)

    @partial(jax.jit, static_argnames="zeros_are_absent", donate_argnums=(0, 1))
    def add_block(
        scores: Array,
        positions: Array,
        queries: Array,
        *,
        vectors: Array,
        absent: Array,
        first: Array,
        zeros_are_absent: bool,
    ) -> Candidates:
        def local(
            scores: Array, positions: Array, queries: Array, vectors: Array, absent: Array, first: Array
        ) -> Candidates:
            if zeros_are_absent:
                absent = absent | ~(vectors != 0).any(axis=1)
            return merge_block((scores, positions), queries, vectors.astype(jnp.float32), absent, first[0])

        specs = (split, split, replicated, split, split, split)
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(split, split), check_vma=True)
        merged: Candidates = mapped(scores, positions, queries, vectors, absent, first)
        return merged

    merging = jax.shard_map(merge_devices, mesh=mesh, in_specs=(split, split), out_specs=(split, split), check_vma=True)
    return add_block, jax.jit(merging)


@jax.jit
def merge_block(
    best: tuple[Float[Array, "q k"], Int[Array, "q k"]],
    queries: Float[Array, "q D"],
    products: Float[Array, "n D"],
    absent: Bool[Array, "n"],
    first: Int[Array, ""],
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The top k of `best` and of a block of products that starts at position `first`.

    lax.top_k is stable and `best` comes first, so a tie keeps the lower product position. Memory: the scores of one
    block.
    """
    k = best[0].shape[1]
    scores = jnp.where(absent[None], -jnp.inf, _scores(queries, products))
    block_best, positions = _top(scores, k=min(k, scores.shape[1]))
    merged, order = _top(jnp.concatenate([best[0], block_best], axis=1), k=k)
    indices = jnp.concatenate([best[1], positions + first], axis=1)
    return merged, jnp.where(order < 0, -1, jnp.take_along_axis(indices, order, axis=1))


# --- host kernel ---


def _host_top_k(
    queries: Float32[np.ndarray, "Q D"], source: VectorSource, k: int, block_size: int, progress: Progress
) -> TopK:
    """The kernel that equals brute force in float64, rounded to float32."""
    k = min(k, source.count)
    if len(queries) == 0:
        return _empty(0, k)
    starts = range(0, len(queries), _QUERIES_PER_GROUP)
    groups = [_HostCandidates(queries[start : start + _QUERIES_PER_GROUP], k) for start in starts]
    scores = np.empty((min(len(queries), _QUERIES_PER_GROUP), block_size), np.float32)
    for first, vectors in source.blocks(block_size, np.float32):
        for group in groups:
            group.add_block(first, vectors, scores[: len(group.queries), : len(vectors)])
        progress("vectors searched", first + len(vectors), source.count)
    return concat_top_k([group.result() for group in groups], k)


class _HostCandidates:
    """The top k of a group of queries so far, and candidates that may displace them."""

    def __init__(self, queries: Float32[np.ndarray, "q D"], k: int) -> None:
        self.queries = queries
        self._queries64 = queries.astype(np.float64)
        self._norms = np.linalg.norm(self._queries64, axis=1)
        self._best = _empty(len(queries), k)
        self._candidates: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # query, position, score
        self._pending = 0

    def add_block(self, first: int, vectors: Float32[np.ndarray, "n D"], scores: Float32[np.ndarray, "q n"]) -> None:
        """Adds vectors from position `first` on; `scores` is a work buffer."""
        np.matmul(self.queries, vectors.T, out=scores)
        absent = np.logical_not(vectors.any(axis=1))
        if absent.any():
            scores[:, absent] = -np.inf
        error = self._error_bound(vectors)
        threshold = self._best.scores[:, -1] - error
        kept = np.flatnonzero(scores >= _round_down(threshold)[:, None])
        k = self._best.scores.shape[1]
        if len(kept) > len(scores) * k and k <= scores.shape[1]:  # the first block, or a catalog in ascending order
            # k of this block are within `error` of their score, so the k-th best of all is no worse than this.
            in_block = -np.partition(-scores, k - 1, axis=1)[:, k - 1] - 2 * error
            kept = np.flatnonzero(scores >= _round_down(np.maximum(threshold, in_block))[:, None])
        query, column = np.divmod(kept, scores.shape[1])
        exact = self._rescore(query, vectors, column)
        self._candidates.append((query.astype(np.int32), (column + first).astype(np.int32), exact))
        self._pending += len(kept)
        if self._pending > len(scores) * max(k, 64):
            self._merge()

    def result(self) -> TopK:
        """The top k of all blocks added."""
        self._merge()
        return self._best

    def _error_bound(self, vectors: np.ndarray) -> np.ndarray:
        """By how much a float32 score of each query may differ from the exact one, in any summation order.

        D products and D - 1 sums, each rounded by 2^-24 at most: less than 1.01 D 2^-24 |q| |p| for D up to 2^17
        [Higham, Accuracy and Stability of Numerical Algorithms, 3.1]; and 2^-24 |q| |p| where the result is rounded.
        """
        width = vectors.shape[1]
        longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max())) * (1 + 1e-3)
        return 1.01 * (width + 1) * 2.0**-24 * longest * self._norms

    def _rescore(self, query: np.ndarray, vectors: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The float64 score of (query, vector) pairs, rounded to float32."""
        out = np.empty(len(query), np.float32)
        for start in range(0, len(query), _RESCORED_PAIRS):
            rows = slice(start, start + _RESCORED_PAIRS)
            out[rows] = np.einsum("nd,nd->n", self._queries64[query[rows]], vectors[column[rows]].astype(np.float64))
        return np.where(out == 0, np.float32(0), out)  # -0.0 and 0.0 are a tie

    def _merge(self) -> None:
        """Merges the candidates into the top k: by query, score, and position, their order of arrival."""
        scores, indices = self._best
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
        self._best = TopK(score[best], position[best])
        self._candidates, self._pending = [], 0


def _round_down(bounds: np.ndarray) -> np.ndarray:
    """Float32 numbers at or below `bounds`, and above -inf, which is the score of absent vectors."""
    with np.errstate(over="ignore"):
        return np.maximum(np.nextafter(bounds.astype(np.float32), np.float32(-np.inf)), _LOWEST)
