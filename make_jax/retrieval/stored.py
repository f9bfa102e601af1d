"""Products embedded into a folder of vectors, shard by shard, and searched there.

A shard is made by one process from the products of that shard alone, so which process makes it, when, and what was
interrupted before changes none of its bytes (on devices of one kind, with one `train.eval_batch_size`).
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.retrieval.embed import (
    EmbeddingModel,
    Modality,
    PrecomputedVectors,
    Progress,
    embed_products,
    no_progress,
    no_such_ids,
    nothing_to_read,
)
from make_jax.retrieval.search import TopK
from make_jax.retrieval.streaming import score_stored, search_stored
from make_jax.retrieval.vectors import PER_SHARD, Header, VectorFolder, Vectors, claimed, missing, prepare, write_shard

_WAIT = 0.5  # seconds between looks at what other processes have made


class DiskEmbeddings:
    """Product vectors that stay on disk; weights are in memory, 8 bytes a product. `progress` is told of searches."""

    def __init__(self, vectors: Vectors, weights: Float32[np.ndarray, "N 2"], progress: Progress = no_progress) -> None:
        self.vectors = vectors
        self.weights: Float32[np.ndarray, "N 2"] = weights
        self._progress = progress

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.vectors.width

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector on disk."""
        return self.vectors.vector_bytes

    @property
    def absent(self) -> Bool[np.ndarray, "N"]:
        """The products that had nothing to embed: zero vector and zero weights, never found by a search."""
        return np.logical_not(self.weights.any(axis=1))

    def search(self, queries: Float32[np.ndarray, "Q D"], k: int) -> TopK:
        """The k best products of each query, ties by ascending position: see `search_stored`."""
        return search_stored(queries, self.vectors, k, self._progress)

    def scores(self, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q N"]:
        """The score of every query with every product, of which the caller chooses few enough queries."""
        return score_stored(queries, self.vectors)


def embed_to_disk(
    encoder: EmbeddingModel,
    catalog: Catalog,
    products: Sequence[Product],
    folder: Path,
    part: str,
    modality: Modality = "both",
    progress: Progress = no_progress,
    *,
    per_shard: int = PER_SHARD,
) -> DiskEmbeddings:
    """The vectors of `products` in `folder`, of which it makes those that are missing; see `embed_products`.

    Any number of processes may make them together: each takes shards that nobody else is making, and all return when
    all are there. Memory: the vectors of a shard, and what the encoder takes.

    Args:
        encoder: has a `digest`, a string that changes when the vectors it gives do.
        catalog: where `products` come from.
        products: in the order in which their vectors are to stand.
        folder: does not exist, or holds vectors of the same model, catalog and part.
        part: says which products of the catalog these are; the modality is added.
        modality: what is read of a product.
        progress: told of rows that are made, by whomever, and of later searches.
        per_shard: vectors of a shard.

    Raises:
        InputError: the folder holds something else or is damaged, or no product has what the model reads.
    """
    digest = getattr(encoder, "digest", None)
    if not isinstance(digest, str):
        raise InputError(
            f"{folder}: {type(encoder).__name__} has no `digest`; vectors to keep need one; leave --embeddings away"
        )
    if not products:
        raise nothing_to_read(catalog, 0, modality)
    example = (
        encoder.product_vectors([]) if isinstance(encoder, PrecomputedVectors) else encoder.encode_queries(["width"])
    )
    width = example.shape[1]
    header = Header(digest, catalog.digest, f"{part} by {modality}", len(products), width, per_shard)
    lacking = prepare(folder, header)
    while lacking:
        made = 0
        for shard in lacking:
            with claimed(folder, shard) as mine:
                if mine and not header.path(folder, shard).exists():
                    made += 1
                    _embed_shard(encoder, catalog, products, folder, header, shard, modality, progress)
        lacking = missing(folder, header)
        if lacking and not made:
            time.sleep(_WAIT)  # others are making the last
    vectors = VectorFolder(folder)
    weights = vectors.weights()
    if weights is None:
        raise InputError(f"{folder}: no columns title_weight and image_weight, expected both")
    stored = DiskEmbeddings(vectors, weights, progress)
    if stored.absent.all():
        ready = isinstance(encoder, PrecomputedVectors)
        raise no_such_ids(catalog, len(products)) if ready else nothing_to_read(catalog, len(products), modality)
    return stored


def _embed_shard(
    encoder: EmbeddingModel,
    catalog: Catalog,
    products: Sequence[Product],
    folder: Path,
    header: Header,
    shard: int,
    modality: Modality,
    progress: Progress,
) -> None:
    """Embeds and writes the products of one shard."""
    before = header.count - sum(len(header.rows(lacking)) for lacking in missing(folder, header))

    def told(what: str, done: int, _: int) -> None:
        progress(what, before + done, header.count)

    rows = header.rows(shard)
    some = products[rows.start : rows.stop]
    made = embed_products(encoder, catalog, some, modality, told, width=header.width)
    write_shard(folder, header, shard, [product.id for product in some], made.vectors, made.weights)
