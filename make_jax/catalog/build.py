"""Builds a catalog into training data: products in ArrayRecord shards, titles and clicks in Parquet files.

    <cache>/<name>-<digest>/products/         TFDS dataset: shards, features.json, dataset_info.json
                            titles.parquet    split, title and attributes of every product, readable without the images
                            clicks.parquet    query, lang, product (position in the training split)
                            manifest.json     counts, and the size of every file; written last, verified when opened

The folder is written under a temporary name and renamed when complete. Its name has the digest of the content; it is
never modified.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from make_jax.catalog import cache as cached
from make_jax.catalog.attributes import AttributeValue
from make_jax.catalog.check import check_images
from make_jax.catalog.reader import Catalog
from make_jax.catalog.reporting import Problems, track
from make_jax.catalog.schema import SPLITS, Product, Split
from make_jax.errors import InputError
from make_jax.files import folder_atomically

if TYPE_CHECKING:
    from make_jax.catalog.shards import ProductRecord, ProductSource

FORMAT = 4  # of the built folder; folders of another format are rebuilt
MANIFEST = "manifest.json"
_UNWRITABLE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@dataclass(frozen=True)
class Clicks:
    """Clicks as columns, in file order."""

    queries: list[str]
    lang: list[str]  # "" if unknown
    products: Int32[np.ndarray, " clicks"]  # position in the training split


class BuiltCatalog:
    """A built catalog, open for reading. Pickles as its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _verified_manifest(folder)
        cached.lock_for_reading(self, folder / MANIFEST)

    def products(self, split: Split) -> "ProductSource":
        """The products of a split, indexed by position in catalog order. Raises InputError if the split is empty."""
        from make_jax.catalog.shards import ProductSource

        if not self.manifest["products"][split]:
            raise InputError(
                f'{self.manifest["source"]}: the split "{split}" is empty, expected products with "split": "{split}"'
            )
        return ProductSource(self.folder / "products", split)

    def titles(self, split: Split) -> list[str]:
        """The titles of a split in the order of `products`, read without the images."""
        columns = _read_table(self.folder / "titles.parquet")
        return [title for title, of in zip(columns["title"], columns["split"], strict=True) if of == split]

    def attributes(self, split: Split) -> list[dict[str, AttributeValue]]:
        """The attributes of a split in the order of `products`."""
        columns = _read_table(self.folder / "titles.parquet")
        rows = zip(columns["attributes"], columns["split"], strict=True)
        return [_attributes(text) for text, of in rows if of == split]

    def clicks(self) -> Clicks:
        """All clicks of the catalog."""
        columns = _read_table(self.folder / "clicks.parquet")
        return Clicks(columns["query"], columns["lang"], np.asarray(columns["product"], np.int32))

    def __reduce__(self) -> tuple[Any, ...]:
        return BuiltCatalog, (self.folder,)

    def __repr__(self) -> str:
        return f"BuiltCatalog({str(self.folder)!r})"


def build(catalog: str | Path | Catalog = "", cache: str = "") -> BuiltCatalog:
    """Builds a catalog (a path, "" for the packaged one, or a loaded catalog) or opens its existing build.

    A new build decodes every image once, to verify it, and writes the shards with a progress bar. Partial builds and
    builds of earlier content of the same path are removed unless a process reads them. One process builds at a time;
    others wait and use its result.

    Raises InputError for an invalid catalog or one without splits, an unreadable image, or a cache that cannot be
    written (full disk).
    """
    if not isinstance(catalog, Catalog):
        catalog = Catalog.load(catalog)
    if all(product.split is None for product in catalog.products):
        raise InputError(f'{catalog.path}: no product has a split, expected "split": "train", "val" or "test" in each')
    root = cached.cache_root(cache)
    name = catalog.info.name
    digest = _digest(catalog)
    folder = root / cached.folder_name(name, digest)
    try:
        with cached.build_lock(root, name):
            cached.remove_partial(root, name)
            try:
                built = BuiltCatalog(folder)
            except InputError:  # missing, damaged, or of another FORMAT
                if folder.exists():
                    cached.remove_built(folder, MANIFEST)
                _write(catalog, folder, digest)
                built = BuiltCatalog(folder)
            _remove_stale(root, name, catalog.path, folder)
            return built
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise _unwritable(root, error.strerror) from None
        raise


def _digest(catalog: Catalog) -> str:
    """The digest of what is built: of the catalog's files, and of how its clicks were derived from them."""
    if not catalog.derivation:
        return catalog.digest
    return hashlib.sha256(f"{catalog.digest} {catalog.derivation}".encode()).hexdigest()


def _write(catalog: Catalog, folder: Path, digest: str) -> None:
    problems = Problems(catalog.path)
    check_images(catalog, catalog.products, [f"product {product.id!r}" for product in catalog.products], problems)
    problems.raise_if_any()
    with folder_atomically(folder) as partial:
        _write_products(catalog, partial)
        _write_tables(catalog, partial)
        files = {file.relative_to(partial).as_posix(): file.stat().st_size for file in _files(partial)}
        manifest = {
            "format": FORMAT,
            "name": catalog.info.name,
            "source": str(catalog.path.resolve()),
            "digest": digest,
            "products": {split: len(catalog.split_products(split)) for split in SPLITS},
            "clicks": len(catalog.clicks),
            "files": files,
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_products(catalog: Catalog, partial: Path) -> None:
    from make_jax.catalog import shards

    size = sum(catalog.source.sizes[product.image] if product.image else 0 for product in catalog.products)
    size += sum(len(product.title.encode("utf-8")) + 100 for product in catalog.products)
    per_shard = max(1, shards.SHARD_BYTES * len(catalog.products) // size)
    splits = {split: _records(catalog, products) for split in SPLITS if (products := catalog.split_products(split))}
    try:
        shards.write(partial / "products", splits, per_shard)
    except RuntimeError as error:  # how ArrayRecord's writer reports a full disk
        for code in _UNWRITABLE:
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from None
        raise


def _records(catalog: Catalog, products: list[Product]) -> Iterator["ProductRecord"]:
    for product in track(products, len(products), f"writing {products[0].split}"):
        yield {
            "id": product.id,
            "title": product.title,
            "image": catalog.image_bytes(product) or b"",
        }


def _write_tables(catalog: Catalog, partial: Path) -> None:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    positions = {product.id: position for position, product in enumerate(catalog.split_products("train"))}
    titles = {
        "split": [product.split for product in catalog.products],
        "title": [product.title for product in catalog.products],
        "attributes": [json.dumps(product.attributes, ensure_ascii=False) for product in catalog.products],
    }
    clicks = {
        "query": pyarrow.array([click.query for click in catalog.clicks], pyarrow.string()),
        "lang": pyarrow.array([click.lang for click in catalog.clicks], pyarrow.string()),
        "product": pyarrow.array([positions[click.product] for click in catalog.clicks], pyarrow.int32()),
    }
    parquet.write_table(pyarrow.table(titles), partial / "titles.parquet")
    parquet.write_table(pyarrow.table(clicks), partial / "clicks.parquet")


def _read_table(path: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pydict()


def _attributes(text: str) -> dict[str, AttributeValue]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}


def _files(folder: Path) -> Iterable[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _verified_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete build. Raises InputError if the folder is missing, of another format or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"{folder}: not a built catalog; run python -m make_jax.catalog build") from None
    if manifest["format"] != FORMAT:
        raise InputError(f"{folder}: built in format {manifest['format']}, expected {FORMAT}; build it again")
    for name, size in manifest["files"].items():
        path = folder / name
        actual = path.stat().st_size if path.exists() else None
        if actual != size:
            raise InputError(f"{path}: {actual} bytes, expected {size}; remove {folder} and build it again")
    return manifest


def _remove_stale(root: Path, name: str, source: Path, keep: Path) -> None:
    """Removes builds of earlier content of the same catalog path, except those that a process reads."""
    for folder in cached.built_folders(root, name):
        if folder == keep:
            continue
        try:
            stale = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["source"] == str(source.resolve())
        except (OSError, ValueError, KeyError):
            stale = True  # unreadable
        if stale:
            cached.remove_built(folder, MANIFEST)


def _unwritable(root: Path, reason: str | None) -> InputError:
    return InputError(f"{root}: cannot write the built catalog ({reason}); free some space or set data.cache elsewhere")
