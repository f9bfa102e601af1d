"""Vectors in memory that stay on the devices between searches: `DeviceVectors`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32

from make_jax.retrieval.vectors.source import VectorSource
from make_jax.runs.mesh import shard_rows

_KEPT_SHARE = 0.5  # of the free memory, which one copy of the vectors may take


class PlacedBlock(NamedTuple):
    """Consecutive vectors on the devices of a mesh, padded with absent ones."""

    arrays: dict[str, jax.Array]  # vectors [n, D], absent [n], first [devices]: position of each device's first row
    end: int  # position after the last vector


class DeviceVectors:
    """An array of vectors that is copied to the devices by its first search and kept there for later ones.

    Kept are the blocks of the latest (mesh, block size) and the result of `as_array`, each only if it fits into
    half of the free memory of its devices; otherwise every search copies them again. The arrays must not change: make
    another object for other vectors.
    """

    def __init__(self, vectors: Float32[np.ndarray, "N D"], absent: Bool[np.ndarray, "N"]) -> None:
        """`absent` rows are never found."""
        self._vectors, self._absent = vectors, absent
        self.count, self.width = vectors.shape
        self._blocks: tuple[tuple[Mesh, int], list[PlacedBlock]] | None = None
        self._array: Float[Array, "N D"] | None = None

    def blocks(self, mesh: Mesh, size: int) -> Iterator[PlacedBlock]:
        """All vectors in order, in blocks of `size`, which the devices of `mesh` divide."""
        if self._blocks is not None and self._blocks[0] == (mesh, size):
            yield from self._blocks[1]
            return
        padded_bytes = -(-self.count // size) * size * self.width * self._vectors.itemsize
        kept: list[PlacedBlock] | None = [] if _fits(padded_bytes // mesh.size, mesh.devices.flat[0]) else None
        self._blocks = None
        for first in range(0, self.count, size):
            rows = slice(first, first + size)
            block = place_block(self._vectors[rows], self._absent[rows], first, mesh, size)
            if kept is not None:
                kept.append(block)
            yield block
        if kept is not None:
            self._blocks = (mesh, size), kept

    def as_array(self) -> Float[Array, "N D"]:
        """The vectors as one array on the default device."""
        if self._array is not None:
            return self._array
        fits = _fits(self._vectors.nbytes, jax.local_devices()[0])
        array = jnp.asarray(self._vectors)
        self._array = array if fits else None
        return array


def source_blocks(source: VectorSource, mesh: Mesh, size: int) -> Iterator[PlacedBlock]:
    """The vectors of a source in order, in blocks of `size`; nothing is kept. Zero vectors are not marked as absent."""
    for first, vectors in source.blocks(size):
        yield place_block(vectors, np.zeros(len(vectors), bool), first, mesh, size)


def place_block(vectors: np.ndarray, absent: Bool[np.ndarray, "n"], first: int, mesh: Mesh, size: int) -> PlacedBlock:
    """The vectors from position `first` on, split over the devices and padded to `size`, so that one program serves."""
    device_first = first + size // mesh.size * np.arange(mesh.size, dtype=np.int32)
    block = {"vectors": pad_rows(vectors, size), "absent": pad_rows(absent, size, True), "first": device_first}
    return PlacedBlock(shard_rows(block, mesh), first + len(vectors))


def pad_rows(rows: np.ndarray, length: int, value: float | bool = 0.0) -> np.ndarray:
    """`rows` followed by rows of `value`, `length` in all."""
    if len(rows) == length:
        return rows
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1), constant_values=value)


def _fits(size: int, device: jax.Device) -> bool:
    """Whether `size` bytes are at most `_KEPT_SHARE` of the free memory of a device."""
    return size <= _KEPT_SHARE * free_memory(device)


def free_memory(device: jax.Device) -> int:
    """Free bytes of a device's memory, or of the main memory for a CPU device; 0 where the platform does not tell."""
    if device.platform == "cpu":
        return _free_main_memory()
    statistics = device.memory_stats() or {}
    return statistics.get("bytes_limit", 0) - statistics.get("bytes_in_use", 0)


def _free_main_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """What Linux can give to this process without swapping, within the limit of its container (cgroup v2)."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
        available = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0
    try:
        limit, used = ((group / name).read_text("ascii") for name in ("memory.max", "memory.current"))
        return min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return available
