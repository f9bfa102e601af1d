"""Folders of random unit vectors, as embedding writes them, and the queries of `search_scale.py`."""

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
    """Directions at random: no search can be quicker because of where they lie."""
    rows = rng.standard_normal((count, WIDTH), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def queries(seed: int, count: int) -> np.ndarray:
    """The same for the same seed."""
    return unit_rows(np.random.default_rng([seed, 1]), count)


def write(work: Path, seed: int, count: int) -> VectorFolder:
    """The folder of so many vectors below `work`, made where it is missing; a pure function of seed and count."""
    folder = work / f"{count}-vectors-{seed}"
    header = Header(f"random unit vectors, seed {seed}", "", "benchmark", count, WIDTH, VECTORS_PER_SHARD)
    for shard in prepare_folder(folder, header):
        with claim_shard(folder, shard) as mine:
            if mine:
                rows = header.rows(shard)
                made = unit_rows(np.random.default_rng([seed, 0, shard]), len(rows))
                write_shard(folder, header, shard, [f"p{i}" for i in rows], made, np.full((len(rows), 2), 0.5, "f4"))
    return VectorFolder(folder)
