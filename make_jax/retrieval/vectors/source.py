"""Vectors that are read block by block: the interface between storage and exact top-k search."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16, Float32

BLOCK_SIZE = 1 << 13  # vectors read and scored together; also the Parquet row group that we write


class Block(NamedTuple):
    """Consecutive vectors."""

    first: int  # position of the first
    vectors: Float16[np.ndarray, "n D"] | Float32[np.ndarray, "n D"]


@runtime_checkable
class VectorSource(Protocol):
    """Vectors that are read in blocks and never held in memory together."""

    @property
    def count(self) -> int:
        """Number of vectors."""
        ...

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        ...

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector on disk."""
        ...

    def blocks(self, size: int = BLOCK_SIZE, dtype: type[np.floating[Any]] | None = None) -> Iterator[Block]:
        """All vectors in order, at most `size` at a time, converted to `dtype` or as stored."""
        ...
