"""Late fusion: a product's vector is the weighted mean of its title's and its image's vectors in a shared space.

This is how CLIP and SigLIP models embed products. One weight serves all products; evaluation tunes it on validation
queries. A product with one of the two has that one's vector.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from make_jax.errors import check_lists
from make_jax.retrieval.embed import Modality
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import DiskEmbeddings, ProductEmbeddings, VectorIndex
from make_jax.retrieval.vectors.source import BLOCK_SIZE, Block, VectorSource

DEFAULT_WEIGHT = 0.5  # of the title, without validation queries to tune it
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@runtime_checkable
class Towers(Protocol):
    """Encoders of queries, titles and images into unit vectors of one space; in CLIP queries and titles share one."""

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector per query."""
        ...

    def encode_titles(self, titles: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector per title."""
        ...

    def encode_images(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n D"]:
        """One vector per image, given as the bytes of a JPEG, PNG or WebP file."""
        ...


class LateFusion:
    """Two towers as an Encoder."""

    modalities: Modality = "both"

    def __init__(self, towers: Towers, title_weight: float = DEFAULT_WEIGHT) -> None:
        self.towers = towers
        self.title_weight = title_weight

    @property
    def digest(self) -> str | None:
        """The digest of the towers, if any: vectors of titles and of images do not depend on the weight."""
        return getattr(self.towers, "digest", None)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """Query vectors of unit length."""
        check_lists(texts=texts)
        return self.towers.encode_queries(texts)

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """Product vectors of unit length; "" is a missing title, None a missing image."""
        check_lists(titles=titles, images=images)
        with_title = [i for i, title in enumerate(titles) if title.strip()]
        with_image = [i for i, image in enumerate(images) if image is not None]
        by_title = self.towers.encode_titles([titles[i] for i in with_title]) if with_title else None
        by_image = self.towers.encode_images([data for data in images if data is not None]) if with_image else None
        title, image = _scatter(by_title, with_title, len(titles), 0), _scatter(by_image, with_image, len(titles), 1)
        if title is None or image is None:
            return title or image or ProductEmbeddings(np.zeros((0, 1), np.float32), np.zeros((0, 2), np.float32))
        return fuse(title, image, self.title_weight)


def fuse(title: ProductEmbeddings, image: ProductEmbeddings, title_weight: float) -> ProductEmbeddings:
    """Unit vectors of both from those of each; a product with one of them keeps that vector."""
    weights = _fusion_weights(title, image, title_weight)
    return ProductEmbeddings(_weighted(title.vectors, image.vectors, weights), weights)


def fuse_on_disk(
    title: DiskEmbeddings, image: DiskEmbeddings, title_weight: float, progress: Progress = no_progress
) -> DiskEmbeddings:
    """As `fuse` for vectors on disk: each block is fused when it is read."""
    weights = _fusion_weights(title, image, title_weight)
    return DiskEmbeddings(_FusedVectors(title.vectors, image.vectors, weights), weights, progress)


class _FusedVectors:
    """The fused vectors of two sources. A `VectorSource`."""

    def __init__(self, title: VectorSource, image: VectorSource, weights: Float32[np.ndarray, "N 2"]) -> None:
        self._title, self._image, self._weights = title, image, weights
        self.count, self.width = title.count, title.width
        self.vector_bytes = title.vector_bytes + image.vector_bytes

    def blocks(self, size: int = BLOCK_SIZE, dtype: type[np.floating[Any]] | None = None) -> Iterator[Block]:
        """All vectors in order, in float32 unless `dtype` is another. Memory: a block of each and of their sum."""
        pairs = zip(self._title.blocks(size, np.float32), self._image.blocks(size, np.float32), strict=True)
        for (first, title), (also_first, image) in pairs:
            assert (first, title.shape) == (also_first, image.shape)  # both have the same shards
            vectors = _weighted(title, image, self._weights[first : first + len(title)])
            yield Block(first, vectors.astype(dtype or np.float32, copy=False))


def _fusion_weights(title: VectorIndex, image: VectorIndex, title_weight: float) -> Float32[np.ndarray, "N 2"]:
    """w_title and w_image of each product."""
    has = np.stack([~title.absent, ~image.absent], axis=1)
    both = np.array([title_weight, 1 - title_weight], np.float32)
    return np.where(has.all(axis=1, keepdims=True), both, has.astype(np.float32))


def _weighted(
    title: Float32[np.ndarray, "n D"], image: Float32[np.ndarray, "n D"], weights: Float32[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n D"]:
    """The normalized weighted sum; zeros stay zeros."""
    vectors = weights[:, :1] * title + weights[:, 1:] * image
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _scatter(vectors: np.ndarray | None, positions: list[int], length: int, column: int) -> ProductEmbeddings | None:
    """Vectors of one tower at `positions` of `length` rows; None when there are none."""
    if vectors is None:
        return None
    all_vectors, weights = np.zeros((length, vectors.shape[1]), np.float32), np.zeros((length, 2), np.float32)
    all_vectors[positions], weights[positions, column] = vectors, 1
    return ProductEmbeddings(all_vectors, weights)
