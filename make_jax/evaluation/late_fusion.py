"""Late fusion: a product's vector is a weighted mean of its title's and its image's, by encoders that share a space.

What CLIP, SigLIP and their kin offer for products. One weight serves all products; evaluation chooses it on validation
queries. A product that has one of the two only is that one's vector.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from make_jax.retrieval.embed import Modality
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import DiskEmbeddings, ProductEmbeddings, VectorIndex
from make_jax.retrieval.vectors.source import BLOCK_SIZE, Block, VectorSource

DEFAULT_WEIGHT = 0.5  # of the title, where there is no validation query to choose it by
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@runtime_checkable
class Towers(Protocol):
    """Encoders of queries, titles and images whose vectors of unit length compare by cosine.

    In CLIP and its kin queries and titles have the same one.
    """

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector a query."""
        ...

    def encode_titles(self, titles: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """One vector a title."""
        ...

    def encode_images(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n D"]:
        """One vector an image, given as the bytes of a JPEG, PNG or WebP file."""
        ...


class LateFusion:
    """Two towers as an Encoder."""

    modalities: Modality = "both"

    def __init__(self, towers: Towers, title_weight: float = DEFAULT_WEIGHT) -> None:
        self.towers = towers
        self.title_weight = title_weight

    @property
    def digest(self) -> str | None:
        """That of the towers, where they have one: vectors of titles and of images do not depend on the weight."""
        return getattr(self.towers, "digest", None)

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """Query vectors of unit length."""
        return self.towers.encode_queries(texts)

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """Product vectors of unit length; "" is no title, None no image."""
        titled = [i for i, title in enumerate(titles) if title.strip()]
        pictured = [i for i, image in enumerate(images) if image is not None]
        by_title = self.towers.encode_titles([titles[i] for i in titled]) if titled else None
        by_image = self.towers.encode_images([data for data in images if data is not None]) if pictured else None
        title, image = _spread(by_title, titled, len(titles), 0), _spread(by_image, pictured, len(titles), 1)
        if title is None or image is None:
            return title or image or ProductEmbeddings(np.zeros((0, 1), np.float32), np.zeros((0, 2), np.float32))
        return fuse(title, image, self.title_weight)


def fuse(title: ProductEmbeddings, image: ProductEmbeddings, title_weight: float) -> ProductEmbeddings:
    """Vectors of both from those of each alone, in unit length; what only one of them has stays as it is."""
    weights = _shares(title, image, title_weight)
    return ProductEmbeddings(_weighted(title.vectors, image.vectors, weights), weights)


def fuse_on_disk(
    title: DiskEmbeddings, image: DiskEmbeddings, title_weight: float, progress: Progress = no_progress
) -> DiskEmbeddings:
    """What `fuse` gives, of vectors on disk: each block is joined when it is read."""
    weights = _shares(title, image, title_weight)
    return DiskEmbeddings(_FusedVectors(title.vectors, image.vectors, weights), weights, progress)


class _FusedVectors:
    """Vectors on disk of titles and of images, as one."""

    def __init__(self, title: VectorSource, image: VectorSource, weights: Float32[np.ndarray, "N 2"]) -> None:
        self._title, self._image, self._weights = title, image, weights
        self.count, self.width = title.count, title.width
        self.vector_bytes = title.vector_bytes + image.vector_bytes

    def blocks(self, most: int = BLOCK_SIZE, dtype: type[np.floating[Any]] | None = None) -> Iterator[Block]:
        """All in order, in float32 unless `dtype` is another; memory is that of a block of each and of their sum."""
        pairs = zip(self._title.blocks(most, np.float32), self._image.blocks(most, np.float32), strict=True)
        for (first, title), (also_first, image) in pairs:
            assert (first, title.shape) == (also_first, image.shape)  # shards are cut alike
            vectors = _weighted(title, image, self._weights[first : first + len(title)])
            yield Block(first, vectors.astype(dtype or np.float32, copy=False))


def _shares(title: VectorIndex, image: VectorIndex, title_weight: float) -> Float32[np.ndarray, "N 2"]:
    """What title and image count for in each product."""
    has = np.stack([~title.absent, ~image.absent], axis=1)
    both = np.array([title_weight, 1 - title_weight], np.float32)
    return np.where(has.all(axis=1, keepdims=True), both, has.astype(np.float32))


def _weighted(
    title: Float32[np.ndarray, "n D"], image: Float32[np.ndarray, "n D"], weights: Float32[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n D"]:
    """The weighted sum in unit length; zeros stay zeros."""
    vectors = weights[:, :1] * title + weights[:, 1:] * image
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _spread(vectors: np.ndarray | None, places: list[int], length: int, column: int) -> ProductEmbeddings | None:
    """Vectors of one tower at `places` of `length` rows; None when there is none."""
    if vectors is None:
        return None
    out = ProductEmbeddings(np.zeros((length, vectors.shape[1]), np.float32), np.zeros((length, 2), np.float32))
    out.vectors[places], out.weights[places, column] = vectors, 1
    return out
