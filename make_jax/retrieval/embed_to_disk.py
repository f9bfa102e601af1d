"""Embeds products into a folder of vectors, shard by shard.

One process writes a shard, from the products of that shard alone, so its bytes do not depend on which process writes
it, when, and what was interrupted before (on devices of one kind, with one `train.eval_batch_size`). Processes that are
started by hand or by a scheduler take unlocked shards; on a Ray cluster the driver assigns them (`ray_devices.py`).
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.retrieval.embed import EmbeddingModel, Modality, PrecomputedVectors, embed_products, no_input_error
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import DiskEmbeddings
from make_jax.retrieval.vectors.shards import (
    VECTORS_PER_SHARD,
    Header,
    VectorFolder,
    VectorType,
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
    devices: RayDevices | None = None,
    dtype: VectorType = "float16",
    may_lack_all: bool = False,
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
        devices: of a Ray cluster, which embed the missing shards; None: this process does.
        dtype: of the stored numbers; float32 keeps those of the encoder.
        may_lack_all: whether every product may be absent.

    Raises:
        InputError: the folder holds something else or is damaged, every product is absent (unless `may_lack_all`), or a
            node of the cluster cannot embed.
    """
    digest = getattr(encoder, "digest", None)
    if not isinstance(digest, str):
        raise InputError(
            f"{folder}: {type(encoder).__name__} has no `digest`, which vectors on disk need; add one or leave out "
            "--embeddings"
        )
    if not products:
        raise no_input_error(encoder, catalog, 0, modality)
    part = f"{part} by {modality}"
    header = Header(digest, catalog.digest, part, len(products), _vector_width(encoder), per_shard, dtype)
    missing = prepare_folder(folder, header)
    if missing and devices is not None:
        shards = devices.embed(catalog, products, folder, header, modality, missing)
        _report_shards(shards, header, missing, modality, progress)
        missing = missing_shards(folder, header)
    writer = ShardWriter(encoder, catalog, products, folder, header, modality, progress)
    while missing:
        written = sum(writer.write_if_unclaimed(shard) for shard in missing)
        missing = missing_shards(folder, header)
        if missing and not written:
            time.sleep(_POLL_SECONDS)  # other processes embed the last ones
    vectors = VectorFolder(folder)
    weights = vectors.weights()
    if weights is None:
        raise InputError(f"{folder}: no columns title_weight and image_weight, expected both")
    index = DiskEmbeddings(vectors, weights, progress)
    if index.absent.all() and not may_lack_all:
        raise no_input_error(encoder, catalog, len(products), modality)
    return index


def _report_shards(
    shards: Iterable[int], header: Header, missing: Sequence[int], modality: Modality, progress: Progress
) -> None:
    """Calls `progress` for each shard that a cluster has embedded of the missing ones."""
    done = header.count - sum(len(header.rows(shard)) for shard in missing)
    for shard in shards:
        done += len(header.rows(shard))
        progress(f"products ({modality})", done, header.count)


def _vector_width(encoder: EmbeddingModel) -> int:
    if isinstance(encoder, PrecomputedVectors):
        return encoder.product_vectors([]).shape[1]
    return encoder.encode_queries(["width"]).shape[1]


@dataclass(frozen=True)
class ShardWriter:
    """Embeds and writes shards of a prepared folder of vectors."""

    encoder: EmbeddingModel
    catalog: Catalog
    products: Sequence[Product]  # of all shards
    folder: Path
    header: Header
    modality: Modality
    progress: Progress = no_progress

    def write_if_unclaimed(self, shard: int) -> bool:
        """Writes a missing shard unless another process does so now; returns whether this process wrote it."""
        with claim_shard(self.folder, shard) as claimed:
            if not claimed or self.header.path(self.folder, shard).exists():
                return False
            self._write(shard)
        return True

    def write_unless_written(self, shard: int) -> None:
        """Writes a missing shard; waits for a process that does so now, such as one whose driver was killed."""
        while not self.write_if_unclaimed(shard) and not self.header.path(self.folder, shard).exists():
            time.sleep(_POLL_SECONDS)

    def _write(self, shard: int) -> None:
        header = self.header
        before = header.count - sum(len(header.rows(missing)) for missing in missing_shards(self.folder, header))

        def shard_progress(what: str, done: int, _: int) -> None:
            self.progress(what, before + done, header.count)

        rows = header.rows(shard)
        chunk = self.products[rows.start : rows.stop]
        embedded = embed_products(self.encoder, self.catalog, chunk, self.modality, shard_progress, width=header.width)
        ids = [product.id for product in chunk]
        write_shard(self.folder, header, shard, ids, embedded.vectors, embedded.weights)
