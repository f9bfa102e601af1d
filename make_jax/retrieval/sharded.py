"""Exact search by the devices of a mesh: each scores its rows of every block and keeps its own best of all it saw.

Nothing is exchanged until the last block. Then each device receives the candidates of its share of the queries from all
others and orders them by score and position, so ties go by ascending position whichever device had them.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32, Int

from make_jax.retrieval.embed import Progress, no_progress
from make_jax.retrieval.search import TopK, merge
from make_jax.retrieval.vectors import GROUP, Vectors
from make_jax.runs.mesh import BATCH_AXES, replicate, shard_rows, to_host

_QUERIES = 1024  # scored together

Best = tuple[Float[Array, "a k"], Int[Array, "a k"]]  # scores and positions of some queries


def search_sharded(
    queries: Float32[np.ndarray, "Q D"],
    source: Vectors,
    k: int,
    mesh: Mesh,
    *,
    rows: int = GROUP,
    progress: Progress = no_progress,
) -> TopK:
    """The k best vectors of each query by inner product in float32, ties by ascending position; zeros are never found.

    The devices of `mesh` are this process's. Memory of each: 1,024 x `rows` scores at a time, a few blocks of `rows`
    vectors, and Q k candidates with their scores.
    """
    k, many = min(k, source.count), mesh.size
    size = -(-min(len(queries), _QUERIES) // many) * many  # of a group; each device orders as many at the end
    if not len(queries):
        return TopK(np.zeros((0, k), np.float32), np.zeros((0, k), np.int32))
    groups = [
        replicate(_filled(queries[i : i + size], size), mesh) for i in range(0, len(queries), size)
    ]  # the last is filled up, so that one program serves all
    see, order = _programs(mesh, k)
    nothing = {
        "scores": np.full((many * size, k), -np.inf, np.float32),
        "positions": np.full((many * size, k), -1, np.int32),
    }
    best = [tuple(shard_rows(nothing, mesh).values()) for _ in groups]
    for block in source.blocks(many * rows):
        placed = shard_rows(
            {
                "vectors": _filled(block.vectors, many * rows),
                "first": block.first + rows * np.arange(many, dtype=np.int32),
            },
            mesh,
        )
        best = [see(*held, group, **placed) for held, group in zip(best, groups, strict=True)]
        progress("vectors searched", block.first + len(block.vectors), source.count)
    found = [to_host(order(*held), mesh) for held in best]
    scores, indices = (np.concatenate(parts)[: len(queries)] for parts in zip(*found, strict=True))
    return TopK(scores, indices)


@lru_cache(maxsize=8)  # a program of its own otherwise for each call
def _programs(mesh: Mesh, k: int) -> tuple[Callable[..., Best], Callable[..., Best]]:
    """What sees one block, and what orders the best of all devices at the end."""
    split = PartitionSpec(BATCH_AXES)

    def see(
        scores: Float[Array, "q k"],
        positions: Int[Array, "q k"],
        queries: Float[Array, "q D"],
        vectors: Float[Array, "n D"],
        first: Int[Array, "1"],
    ) -> Best:
        absent = ~(vectors != 0).any(axis=1)
        return merge((scores, positions), queries, vectors.astype(jnp.float32), absent, first[0])

    def order(scores: Float[Array, "q k"], positions: Int[Array, "q k"]) -> Best:
        scores, positions = _of_my_queries(scores), _of_my_queries(positions)
        # Both zeros are one number, and -inf that nothing was found. Zeros are 0.0 alone since `merge`.
        worst_first, positions = jax.lax.sort((-scores, positions), num_keys=2)
        return -worst_first[:, :k], positions[:, :k]

    def _of_my_queries(held: Array) -> Array:
        """[q, k] of one device -> [q/N, N k]: what all devices hold of this device's share of the queries."""
        parts = held.reshape(mesh.size, -1, k)
        mine = jax.lax.all_to_all(parts, BATCH_AXES, split_axis=0, concat_axis=0, tiled=True)
        return jnp.moveaxis(mine, 0, 1).reshape(-1, mesh.size * k)

    whole = PartitionSpec()
    seeing = jax.shard_map(
        see, mesh=mesh, in_specs=(split, split, whole, split, split), out_specs=(split, split), check_vma=True
    )
    ordering = jax.shard_map(order, mesh=mesh, in_specs=(split, split), out_specs=(split, split), check_vma=True)
    see_block = jax.jit(
        lambda scores, positions, queries, vectors, first: seeing(scores, positions, queries, vectors, first),
        donate_argnums=(0, 1),
    )
    return see_block, jax.jit(ordering)


def _filled(rows: np.ndarray, length: int) -> np.ndarray:
    """`rows` with rows of zeros behind them, `length` in all: queries that ask nothing, vectors that nobody finds."""
    return rows if len(rows) == length else np.pad(rows, ((0, length - len(rows)), (0, 0)))
