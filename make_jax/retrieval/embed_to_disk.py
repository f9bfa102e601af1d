"""Embeds products into a folder of vectors, shard by shard.

One process writes a shard, from the products of that shard alone, so its bytes do not depend on which process writes
it, when, and what was interrupted before (on devices of one kind, with one `train.eval_batch_size`).
"""

import time
from collections.abc import Sequence
from pathlib import Path

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.retrieval.embed import EmbeddingModel, Modality, PrecomputedVectors, embed_products, no_input_error
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import DiskEmbeddings
from make_jax.retrieval.vectors.shards import (
    VECTORS_PER_SHARD,
    Header,
    VectorFolder,
    claim_shard,
    missing_shards,
    prepare_folder,
    write_shard,
)

_POLL_SECONDS = 0.5  # between looks at the shards of other processes


def embed_to_disk(
    encoder: EmbeddingModel,
    catalog: Catalog,
    products: Sequence[Product],
    folder: Path,
    part: str,
    modality: Modality = "both",
    progress: Progress = no_progress,
    *,
    per_shard: int = VECTORS_PER_SHARD,
) -> DiskEmbeddings:
    """The vectors of `products` in `folder`; missing shards are embedded first, see `embed_products`.

    Any number of processes may fill a folder together: each takes shards that no other process holds, and all return
    when the folder is complete. Memory: the vectors of a shard, and what the encoder needs.

    Args:
        encoder: a model with a `digest`, a string that changes when its vectors do.
        catalog: the catalog of `products`.
        products: in the order of the vectors.
        folder: does not exist, or holds vectors of the same model, catalog and part.
        part: names the products within the catalog; the modality is added.
        modality: what is read of a product.
        progress: called for rows that any process has embedded, and during later searches.
        per_shard: vectors of a shard.

    Raises:
        InputError: the folder holds something else or is damaged, or every product is absent.
    """
    digest = getattr(encoder, "digest", None)
    if not isinstance(digest, str):
        raise InputError(
            f"{folder}: {type(encoder).__name__} has no `digest`, which vectors on disk need; add one or leave out "
            "--embeddings"
        )
    if not products:
        raise no_input_error(encoder, catalog, 0, modality)
    header = Header(digest, catalog.digest, f"{part} by {modality}", len(products), _vector_width(encoder), per_shard)
    missing = prepare_folder(folder, header)
    while missing:
        written = 0
        for shard in missing:
            with claim_shard(folder, shard) as claimed:
                if claimed and not header.path(folder, shard).exists():
                    written += 1
                    _embed_shard(encoder, catalog, products, folder, header, shard, modality, progress)
        missing = missing_shards(folder, header)
        if missing and not written:
            time.sleep(_POLL_SECONDS)  # other processes embed the last ones
    vectors = VectorFolder(folder)
    weights = vectors.weights()
    if weights is None:
        raise InputError(f"{folder}: no columns title_weight and image_weight, expected both")
    index = DiskEmbeddings(vectors, weights, progress)
    if index.absent.all():
        raise no_input_error(encoder, catalog, len(products), modality)
    return index


def _vector_width(encoder: EmbeddingModel) -> int:
    if isinstance(encoder, PrecomputedVectors):
        return encoder.product_vectors([]).shape[1]
    return encoder.encode_queries(["width"]).shape[1]


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
    before = header.count - sum(len(header.rows(missing)) for missing in missing_shards(folder, header))

    def shard_progress(what: str, done: int, _: int) -> None:
        progress(what, before + done, header.count)

    rows = header.rows(shard)
    chunk = products[rows.start : rows.stop]
    embedded = embed_products(encoder, catalog, chunk, modality, shard_progress, width=header.width)
    write_shard(folder, header, shard, [product.id for product in chunk], embedded.vectors, embedded.weights)
