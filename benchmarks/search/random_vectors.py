"""Folders of random unit vectors and the queries of `faiss_comparison.py`."""

from pathlib import Path

import numpy as np

from make_jax.retrieval.vectors.shards import (
    VECTORS_PER_SHARD,
    Header,
    VectorFolder,
    claim_shard,
    prepare_folder,
    write_shard,
)

WIDTH = 256


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    """Uniformly random directions, so that no data layout favors a search."""
    rows = rng.standard_normal((count, WIDTH), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def make_queries(seed: int, count: int) -> np.ndarray:
    """Query vectors, the same for the same seed."""
    return unit_rows(np.random.default_rng([seed, 1]), count)


def write(work: Path, seed: int, count: int) -> VectorFolder:
    """A folder of `count` vectors below `work`; missing shards are generated, a pure function of seed and count."""
    folder = work / f"{count}-vectors-{seed}"
    header = Header(f"random unit vectors, seed {seed}", "", "benchmark", count, WIDTH, VECTORS_PER_SHARD)
    for shard in prepare_folder(folder, header):
        with claim_shard(folder, shard) as claimed:
            if claimed:
                rows = header.rows(shard)
                vectors = unit_rows(np.random.default_rng([seed, 0, shard]), len(rows))
                write_shard(folder, header, shard, [f"p{i}" for i in rows], vectors, np.full((len(rows), 2), 0.5, "f4"))
    return VectorFolder(folder)
