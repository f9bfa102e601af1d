"""Writes the products of a catalog as shards, each with its images decoded once, in several processes."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from make_jax.catalog import images
from make_jax.catalog.executors import Executor, InProcess
from make_jax.catalog.reader import Catalog
from make_jax.catalog.reporting import Problems, progress_bar
from make_jax.catalog.schema import SPLITS, Product, Split
from make_jax.catalog.source import Source
from make_jax.catalog.stored_columns import open_columns
from make_jax.errors import InputError

if TYPE_CHECKING:
    from make_jax.catalog.shards import ProductRecord

_CHUNK = 256  # products whose images are read together


class _Shard(NamedTuple):
    """The rows of one shard in the products of its split."""

    split: Split
    number: int
    start: int
    stop: int


class _Fault(NamedTuple):
    """An image that cannot be read."""

    row: int  # of the product in the catalog
    id: str
    reason: str


class _FaultsFoundError(Exception):
    """Images of a shard cannot be read."""

    def __init__(self, faults: list[_Fault]) -> None:
        super().__init__(faults)
        self.faults = faults


def write_products(catalog: Catalog, folder: Path, executor: Executor) -> dict[Split, list[int]]:
    """Writes the shards of all splits, except those in `folder` already, and returns their lengths.

    The catalog's columns are mapped from files (`write_columns`). Shards are cut by size, so their bytes do not depend
    on the workers of `executor`. Raises InputError that lists the images which cannot be read.
    """
    from make_jax.catalog import shards

    folder.mkdir(exist_ok=True)
    planned = _plan(catalog)
    missing = [shard for shard in planned if not shards.has_shard(folder, shard.split, shard.number)]
    faults: list[_Fault] = []
    # Up to a shard a split, threads are enough, and a script needs no `if __name__ == "__main__"` for processes.
    local = len(planned) <= len(SPLITS) or isinstance(executor, InProcess)
    with progress_bar("products", sum(shard.stop - shard.start for shard in missing)) as advance:
        if local:
            results = InProcess().map(_write, [(catalog, shard, folder, os.cpu_count() or 1) for shard in missing])
        else:
            assert catalog.columns is not None
            source = executor.share(catalog.source)
            jobs = [(source, catalog.columns, shard, folder) for shard in missing]
            results = executor.map(_write_in_worker, jobs)
        for shard, found in zip(missing, results, strict=True):
            faults += found
            advance(shard.stop - shard.start)
    problems = Problems(catalog.path)
    for fault in sorted(faults):
        problems.add(f"product {fault.id!r}", f"image: {fault.reason}")
    problems.raise_if_any()
    lengths: dict[Split, list[int]] = {}
    for shard in planned:
        lengths.setdefault(shard.split, []).append(shard.stop - shard.start)
    shards.write_info(folder, lengths)
    return lengths


def _plan(catalog: Catalog) -> list[_Shard]:
    """The shards of all splits, of about SHARD_BYTES, and of at most SHARD_PRODUCTS."""
    from make_jax.catalog import shards

    sizes = catalog.source.sizes
    size = sum(sizes[image] for image in catalog.products.column("image").drop_null().to_pylist())
    size += _text_bytes(catalog) + 100 * len(catalog.products)
    per_shard = max(1, min(shards.SHARD_BYTES * len(catalog.products) // size, shards.SHARD_PRODUCTS))
    return [
        _Shard(split, number, start, min(start + per_shard, count))
        for split in SPLITS
        for count in [len(catalog.split_products(split))]
        for number, start in enumerate(range(0, count, per_shard))
    ]


def _text_bytes(catalog: Catalog) -> int:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    total: int = pc.sum(pc.binary_length(catalog.products.column("title"))).as_py() or 0
    return total


_opened: dict[tuple[str, Path], Catalog] = {}  # the catalog, in a worker process


def _write_in_worker(source: Source, columns: Path, shard: _Shard, folder: Path) -> list[_Fault]:
    key = source.stamp, columns
    if key not in _opened:
        catalog = open_columns(source, columns)
        assert catalog is not None
        _opened.clear()
        _opened[key] = catalog
    return _write(_opened[key], shard, folder, threads=1)


def _write(catalog: Catalog, shard: _Shard, folder: Path, threads: int) -> list[_Fault]:
    """Writes one shard, unless an image cannot be read; returns the images that cannot."""
    from make_jax.catalog import shards

    with ThreadPoolExecutor(threads) as pool:
        try:
            shards.write_shard(folder, shard.split, shard.number, _records(catalog, shard, pool))
        except _FaultsFoundError as error:
            return error.faults
    return []


def _records(catalog: Catalog, shard: _Shard, pool: ThreadPoolExecutor) -> Iterator["ProductRecord"]:
    """The records of a shard; raises _FaultsFoundError after the last one."""
    faults: list[_Fault] = []
    products = catalog.split_products(shard.split)[shard.start : shard.stop]

    def checked_image(product: Product) -> tuple[bytes, str]:
        """The image, and why it cannot be read ("" if it can)."""
        assert product.image is not None
        try:
            image = catalog.image_bytes(product) or b""
            images.decode(image, product.image)
            return image, ""
        except InputError as error:
            return b"", str(error)

    for start in range(0, len(products), _CHUNK):
        chunk = list(products[start : start + _CHUNK])
        checked = pool.map(checked_image, [product for product in chunk if product.image is not None])
        for position, product in enumerate(chunk, start):
            image, reason = (b"", "") if product.image is None else next(checked)
            if reason:
                faults.append(_Fault(int(products.rows[position]), product.id, reason))  # type: ignore[index]
            yield {"id": product.id, "title": product.title, "image": image}
    if faults:
        raise _FaultsFoundError(faults)
