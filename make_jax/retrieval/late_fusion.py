"""Late fusion: a product's vector is a weighted mean of its title's and its image's, by encoders that share a space.

What CLIP, SigLIP and their kin offer for products. One weight serves all products; evaluation chooses it on validation
queries. A product that has one of the two only is that one's vector.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from make_jax.retrieval.embed import Embeddings, Modality

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

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> Embeddings:
        """Product vectors of unit length; "" is no title, None no image."""
        titled = [i for i, title in enumerate(titles) if title.strip()]
        pictured = [i for i, image in enumerate(images) if image is not None]
        by_title = self.towers.encode_titles([titles[i] for i in titled]) if titled else None
        by_image = self.towers.encode_images([data for data in images if data is not None]) if pictured else None
        title, image = _spread(by_title, titled, len(titles), 0), _spread(by_image, pictured, len(titles), 1)
        if title is None or image is None:
            return title or image or Embeddings(np.zeros((0, 1), np.float32), np.zeros((0, 2), np.float32))
        return fuse(title, image, self.title_weight)


def fuse(title: Embeddings, image: Embeddings, title_weight: float) -> Embeddings:
    """Vectors of both from those of each alone, in unit length; what only one of them has stays as it is."""
    has = np.stack([~title.absent, ~image.absent], axis=1)
    both = np.array([title_weight, 1 - title_weight], np.float32)
    weights = np.where(has.all(axis=1, keepdims=True), both, has.astype(np.float32))
    vectors = weights[:, :1] * title.vectors + weights[:, 1:] * image.vectors
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embeddings(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0), weights)


def _spread(vectors: np.ndarray | None, places: list[int], length: int, column: int) -> Embeddings | None:
    """Vectors of one tower at `places` of `length` rows; None when there is none."""
    if vectors is None:
        return None
    out = Embeddings(np.zeros((length, vectors.shape[1]), np.float32), np.zeros((length, 2), np.float32))
    out.vectors[places], out.weights[places, column] = vectors, 1
    return out
