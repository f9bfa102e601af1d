"""Product vectors that can be searched: `ProductEmbeddings` in memory, `DiskEmbeddings` on disk."""

import functools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from make_jax.retrieval.device_vectors import DeviceVectors
from make_jax.retrieval.top_k import (
    CandidateFilter,
    Progress,
    TopK,
    concat_top_k,
    inner_products,
    mask_scores,
    no_progress,
    query_chunk_size,
    source_inner_products,
    top_k,
    top_k_of_scores,
)
from make_jax.retrieval.vectors.source import VectorSource


@runtime_checkable
class VectorIndex(Protocol):
    """Product vectors whose inner product with a query's vector is the score."""

    @property
    def weights(self) -> Float32[np.ndarray, "N 2"]:
        """w_title and w_image of each vector; their sum is 1, or 0 for an absent product."""
        ...

    @property
    def absent(self) -> Bool[np.ndarray, "N"]:
        """The products without any input to embed: zero vector and zero weights, never found by a search."""
        ...

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        ...

    @property
    def vector_bytes(self) -> int:
        """Bytes of a stored vector."""
        ...

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int, allowed: CandidateFilter | None = None) -> TopK:
        """The top k products of each query among those `allowed`, ties by ascending position."""
        ...

    def scores(self, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every product; the caller chunks the queries, see `query_chunk_size`."""
        ...


@dataclass(frozen=True, eq=False)
class ProductEmbeddings:
    """Product vectors in memory, and how each was fused. A `VectorIndex`.

    Searches keep the vectors on the devices (`DeviceVectors`), so both arrays are read-only: assigning to their rows
    raises ValueError. Other vectors need another object.
    """

    vectors: Float32[np.ndarray, "N D"]
    weights: Float32[np.ndarray, "N 2"]  # w_title, w_image; their sum is 1

    def __post_init__(self) -> None:
        for name in ("vectors", "weights"):
            read_only = np.asarray(getattr(self, name)).view()
            read_only.flags.writeable = False
            object.__setattr__(self, name, read_only)

    @functools.cached_property
    def _on_devices(self) -> DeviceVectors:
        """The vectors for searches."""
        return DeviceVectors(self.vectors, self.absent)

    def __reduce__(self) -> tuple[type, tuple[np.ndarray, np.ndarray]]:
        return ProductEmbeddings, (self.vectors, self.weights)  # not the copies on devices

    @property
    def absent(self) -> Bool[np.ndarray, "N"]:
        """The products without any input to embed."""
        return np.logical_not(self.weights.any(axis=1))

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return self.vectors.shape[1]

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return self.width * self.vectors.itemsize

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int, allowed: CandidateFilter | None = None) -> TopK:
        """The top k products of each query among those `allowed`, ties by ascending position."""
        if allowed is not None:
            return _filtered_top_k(queries, self, k, allowed)
        return top_k(queries, self._on_devices, k)

    def scores(self, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every product; the caller chunks the queries."""
        return inner_products(queries, self._on_devices)


class DiskEmbeddings:
    """Product vectors that stay on disk, with weights in memory, 8 bytes a product. A `VectorIndex`."""

    def __init__(
        self, vectors: VectorSource, weights: Float32[np.ndarray, "N 2"], progress: Progress = no_progress
    ) -> None:
        """`progress` is called during searches."""
        self.vectors = vectors
        self.weights: Float32[np.ndarray, "N 2"] = weights
        self._progress = progress

    @property
    def absent(self) -> Bool[np.ndarray, "N"]:
        """The products without any input to embed."""
        return np.logical_not(self.weights.any(axis=1))

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return self.vectors.width

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector on disk."""
        return self.vectors.vector_bytes

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int, allowed: CandidateFilter | None = None) -> TopK:
        """The top k products of each query among those `allowed`, ties by ascending position."""
        if allowed is not None:
            return _filtered_top_k(queries, self, k, allowed)
        return top_k(queries, self.vectors, k, progress=self._progress)

    def scores(self, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every product; the caller chunks the queries."""
        return source_inner_products(queries, self.vectors)


def _filtered_top_k(queries: Float32[np.ndarray, "Q D"], index: VectorIndex, k: int, allowed: CandidateFilter) -> TopK:
    """The top k where queries differ in the products they may find. Memory: at most 256 queries by all products."""
    parts = []
    absent = index.absent
    chunk_size = query_chunk_size(len(absent))
    for start in range(0, len(queries), chunk_size):
        rows = slice(start, min(start + chunk_size, len(queries)))
        scores = np.where(absent, np.float32(-np.inf), index.scores(queries[rows]))
        parts.append(top_k_of_scores(mask_scores(scores, allowed(rows)), k))
    return concat_top_k(parts, min(k, len(absent)))
