"""Vectors of a catalog's products, by any encoder."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Query
from make_jax.errors import InputError
from make_jax.retrieval.search import TopK, inner_products, search

Modality = Literal["both", "title", "image"]
Progress = Callable[[str, int, int], None]  # (what is done, done, of how many)
_AT_ONCE = 1024  # products whose images are in memory together; queries encoded together


class ProductEmbeddings(NamedTuple):
    """Product vectors, whose inner product with a query's vector is the score, and how each was fused."""

    vectors: Float32[np.ndarray, "N D"]
    weights: Float32[np.ndarray, "N 2"]  # w_title, w_image; their sum is 1

    @property
    def absent(self) -> Bool[np.ndarray, "N"]:
        """The products that had nothing to embed: zero vector and zero weights, never found by a search."""
        return np.logical_not(self.weights.any(axis=1))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.vectors.shape[1]

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return self.width * self.vectors.itemsize

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int) -> TopK:
        """The k best products of each query, ties by ascending position; absent ones are never found."""
        return search(queries, self.vectors, k, absent=self.absent)

    def scores(self, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every product; the caller chunks the queries."""
        return inner_products(queries, self.vectors)


@runtime_checkable
class Encoder(Protocol):
    """What evaluation and search ask of a model. docs/models.md shows how one is added."""

    @property
    def modalities(self) -> Modality:
        """Which encoders the model has on the product side."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """Query vectors; of unit length where the model's measure is the cosine."""
        ...

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """Product vectors; "" is no title, None no image, and none of the products lacks both."""
        ...


@runtime_checkable
class PrecomputedVectors(Protocol):
    """A model whose vectors were made elsewhere, and are found by the ids of a catalog."""

    @property
    def modalities(self) -> Modality:
        """What the product vectors were made from."""
        ...

    def query_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each query. Raises InputError for a query that has none."""
        ...

    def product_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each product, zeros for one that has none."""
        ...


EmbeddingModel = Encoder | PrecomputedVectors


def no_progress(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def embed_products(
    model: EmbeddingModel,
    catalog: Catalog,
    products: Sequence[Product],
    modality: Modality = "both",
    progress: Progress = no_progress,
    width: int | None = None,
) -> ProductEmbeddings:
    """The vectors of `products` from their titles and images, or from one of the two alone, in chunks.

    With `modality="title"` no image is read and the encoder gets None for each; with "image" it gets "" for each
    title. A product that lacks what is asked is `absent`. Titles that the catalog hides (`hide_title`) are lacking.
    Raises InputError when precomputed vectors are of another modality, and when every product lacks `modality` unless
    `width`, the numbers of a vector, is given.
    """
    if isinstance(model, PrecomputedVectors):
        return _stored(model, catalog, products, modality, may_lack=width is not None)
    vectors: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for start in range(0, len(products), _AT_ONCE):
        some = products[start : start + _AT_ONCE]
        titles, images = read_products(catalog, some, modality)
        present = [i for i in range(len(some)) if titles[i].strip() or images[i] is not None]
        if present:
            made = model.encode_products([titles[i] for i in present], [images[i] for i in present])
            check_finite(made.vectors, "product")
            width = made.vectors.shape[1]
            vectors.append(_spread(made.vectors, present, len(some)))
            weights.append(_spread(made.weights, present, len(some)))
        else:
            vectors.append(np.zeros((len(some), 0), np.float32))
            weights.append(np.zeros((len(some), 2), np.float32))
        progress(f"products ({modality})", start + len(some), len(products))
    if width is None:
        raise nothing_to_read(catalog, len(products), modality)
    filled = [rows if rows.shape[1] else np.zeros((len(rows), width), np.float32) for rows in vectors]
    return ProductEmbeddings(np.concatenate(filled), np.concatenate(weights))


def nothing_to_read(catalog: Catalog, count: int, modality: Modality) -> InputError:
    """The error of products none of which can be embedded."""
    return InputError(
        f"{catalog.path}: none of the {count} products has what the model reads ({modality}); "
        "titles are hidden where catalog.json says hide_title"
    )


def no_such_ids(catalog: Catalog, count: int) -> InputError:
    """The error of products none of which has a vector that was made elsewhere."""
    return InputError(f"{catalog.path}: the stored vectors have none of its {count} products; compare the ids")


def read_products(
    catalog: Catalog, products: Sequence[Product], modality: Modality
) -> tuple[list[str], list[bytes | None]]:
    """What an encoder is shown of products: titles, "" for none or where the catalog hides them, and images' bytes."""
    take_titles = modality != "image" and not catalog.info.hide_title
    titles = [product.title if take_titles else "" for product in products]
    return titles, [catalog.image_bytes(product) if modality != "title" else None for product in products]


def embed_queries(
    model: EmbeddingModel, queries: Sequence[Query], progress: Progress = no_progress
) -> Float32[np.ndarray, "n D"]:
    """The vectors of judged queries, in chunks; at least one query."""
    if isinstance(model, PrecomputedVectors):
        vectors = model.query_vectors([query.id for query in queries])
    else:
        rows = []
        for start in range(0, len(queries), _AT_ONCE):
            rows.append(model.encode_queries([query.text for query in queries[start : start + _AT_ONCE]]))
            progress("queries", min(start + _AT_ONCE, len(queries)), len(queries))
        vectors = np.concatenate(rows)
    check_finite(vectors, "query")
    return vectors


def check_finite(vectors: Float32[np.ndarray, "n D"], what: str) -> None:
    """Raises InputError when a model gives NaN or infinity: no ranking of those means anything."""
    if not np.isfinite(vectors).all():
        raise InputError(f"the model gives {what} vectors that are not finite: its training diverged, use another step")


def _stored(
    model: PrecomputedVectors, catalog: Catalog, products: Sequence[Product], modality: Modality, may_lack: bool
) -> ProductEmbeddings:
    """The stored vectors of products. The share of title and image in one of both is not known: a half each."""
    if model.modalities != modality:
        hidden = "; the catalog hides titles, because they are labels" if catalog.info.hide_title else ""
        raise InputError(
            f"{catalog.path}: the stored vectors are of {model.modalities}, and {modality} is asked for{hidden}"
        )
    vectors = model.product_vectors([product.id for product in products])
    check_finite(vectors, "product")
    there: Bool[np.ndarray, "N"] = np.asarray(vectors.any(axis=1))
    if not (may_lack or there.any()):
        raise no_such_ids(catalog, len(products))
    share = {"both": (0.5, 0.5), "title": (1.0, 0.0), "image": (0.0, 1.0)}[modality]
    return ProductEmbeddings(vectors, there[:, None] * np.array([share], np.float32))


def _spread(rows: np.ndarray, places: list[int], length: int) -> np.ndarray:
    """`rows` at `places` of a zero array of `length` rows."""
    out = np.zeros((length, *rows.shape[1:]), np.float32)
    out[places] = rows
    return out
