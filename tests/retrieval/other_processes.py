"""Functions that tests run in other processes; a small module, so that those start quickly."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from make_jax.catalog.reader import Catalog
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.retrieval.vectors.shards import claim_shard
from tests.retrieval.fake_encoder import FakeEncoder

_held: list[AbstractContextManager[bool]] = []


class Slow(FakeEncoder):
    """Slow enough that every process gets shards."""

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        time.sleep(0.2)
        return super().encode_products(titles, images)


def ready(_: int) -> None:
    """Returns once this process has imported its modules."""
    time.sleep(0.2)


def embed_slowly(path: Path, folder: Path) -> int:
    """Embeds a catalog and returns how many shards this process wrote."""
    encoder, catalog = Slow(), Catalog.load(path)
    embed_to_disk(encoder, catalog, catalog.products, folder, "all", per_shard=4)
    return len(encoder.seen)


def claims(folder: Path, shards: list[int]) -> list[bool]:
    """Which shards this process can claim, one after another."""
    found = []
    for shard in shards:
        with claim_shard(folder, shard) as mine:
            found.append(mine)
    return found


def hold(folder: Path, shard: int) -> bool:
    """Claims a shard for as long as this process lives."""
    _held.append(claim_shard(folder, shard))
    return _held[-1].__enter__()
