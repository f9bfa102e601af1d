"""Embeds queries and products: the interface of a model, and the vectors of a catalog."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import CatalogInfo, Product, Query
from make_jax.catalog.text import strip_text
from make_jax.errors import InputError
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import ProductEmbeddings

Modality = Literal["both", "title", "image"]
_CHUNK_SIZE = 1024  # products whose images are in memory together; queries encoded together


@runtime_checkable
class Encoder(Protocol):
    """A model that encodes texts and products; docs/models.md has an example of 20 lines.

    An optional attribute `digest`, a string that changes when the vectors do, lets vectors be kept on disk. With an
    optional attribute `training_data` (`runs/training_data.py`) evaluation notes what the model was trained on.
    """

    @property
    def modalities(self) -> Modality:
        """What the product encoder reads."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """Query vectors; of unit length where the score is the cosine."""
        ...

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """Product vectors; "" is a missing title, None a missing image, and no product lacks both."""
        ...


@runtime_checkable
class PrecomputedVectors(Protocol):
    """A model whose vectors another program computed, looked up by the ids of a catalog. `digest` as in `Encoder`."""

    @property
    def modalities(self) -> Modality:
        """What the product vectors were made from."""
        ...

    def query_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each query. Raises InputError for a missing one."""
        ...

    def product_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each product, zeros for a missing one."""
        ...


EmbeddingModel = Encoder | PrecomputedVectors


@runtime_checkable
class ProductImages(Protocol):
    """The images of products: a `Catalog`, or an index of one."""

    @property
    def info(self) -> CatalogInfo:
        """Whether titles are hidden."""
        ...

    def image_bytes(self, product: Product) -> bytes | None:
        """The encoded image of a product, None without one."""
        ...


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
    title. A product without input is `absent`; titles that the catalog hides (`hide_title`) are missing.

    Raises InputError when precomputed vectors are of another modality, and when every product is absent unless `width`,
    the dimensions of a vector, is given.
    """
    if isinstance(model, PrecomputedVectors):
        return _look_up_products(model, catalog, products, modality, may_lack_all=width is not None)
    vectors: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for start in range(0, len(products), _CHUNK_SIZE):
        chunk = products[start : start + _CHUNK_SIZE]
        titles, images = read_products(catalog, chunk, modality)
        present = [i for i in range(len(chunk)) if strip_text(titles[i]) or images[i] is not None]
        if present:
            encoded = model.encode_products([titles[i] for i in present], [images[i] for i in present])
            check_finite(encoded.vectors, "product")
            width = encoded.vectors.shape[1]
            vectors.append(_scatter(encoded.vectors, present, len(chunk)))
            weights.append(_scatter(encoded.weights, present, len(chunk)))
        else:
            vectors.append(np.zeros((len(chunk), 0), np.float32))
            weights.append(np.zeros((len(chunk), 2), np.float32))
        progress(f"products ({modality})", start + len(chunk), len(products))
    if width is None:
        raise no_input_error(model, catalog, len(products), modality)
    filled = [rows if rows.shape[1] else np.zeros((len(rows), width), np.float32) for rows in vectors]
    return ProductEmbeddings(np.concatenate(filled), np.concatenate(weights))


def no_input_error(model: EmbeddingModel, catalog: Catalog, count: int, modality: Modality) -> InputError:
    """The error for products of which every one is absent."""
    if isinstance(model, PrecomputedVectors):
        return InputError(f"{catalog.path}: the precomputed vectors have none of its {count} products; compare the ids")
    return InputError(
        f"{catalog.path}: none of the {count} products has what the model reads ({modality}); "
        "hide_title in catalog.json hides titles"
    )


def read_products(
    catalog: ProductImages, products: Sequence[Product], modality: Modality
) -> tuple[list[str], list[bytes | None]]:
    """The titles ("" where missing or hidden) and image files (None where missing) that an encoder reads."""
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
        for start in range(0, len(queries), _CHUNK_SIZE):
            rows.append(model.encode_queries([query.text for query in queries[start : start + _CHUNK_SIZE]]))
            progress("queries", min(start + _CHUNK_SIZE, len(queries)), len(queries))
        vectors = np.concatenate(rows)
    check_finite(vectors, "query")
    return vectors


def check_finite(vectors: Float32[np.ndarray, "n D"], what: str) -> None:
    """Raises InputError for NaN and infinity, which have no order."""
    if not np.isfinite(vectors).all():
        raise InputError(f"the model gives {what} vectors that are not finite: its training diverged, use another step")


def _look_up_products(
    model: PrecomputedVectors, catalog: Catalog, products: Sequence[Product], modality: Modality, may_lack_all: bool
) -> ProductEmbeddings:
    """The precomputed vectors of products. How one of both modalities was fused is unknown: weights of a half each."""
    if model.modalities != modality:
        hidden = "; the catalog hides titles, because they are labels" if catalog.info.hide_title else ""
        raise InputError(
            f"{catalog.path}: the precomputed vectors are of {model.modalities}, expected vectors of {modality}{hidden}"
        )
    vectors = model.product_vectors([product.id for product in products])
    check_finite(vectors, "product")
    present: Bool[np.ndarray, "N"] = np.asarray(vectors.any(axis=1))
    if not (may_lack_all or present.any()):
        raise no_input_error(model, catalog, len(products), modality)
    weights = {"both": (0.5, 0.5), "title": (1.0, 0.0), "image": (0.0, 1.0)}[modality]
    return ProductEmbeddings(vectors, present[:, None] * np.array([weights], np.float32))


def _scatter(rows: np.ndarray, positions: list[int], length: int) -> np.ndarray:
    """`rows` at `positions` of a zero array of `length` rows."""
    out = np.zeros((length, *rows.shape[1:]), np.float32)
    out[positions] = rows
    return out
