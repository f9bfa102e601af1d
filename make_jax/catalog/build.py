"""Builds a catalog into training data: products in ArrayRecord shards, and all lines as memory-mapped columns.

    <cache>/<name>-<digest>/products/         TFDS dataset: shards, features.json, dataset_info.json
                            columns/          products, queries and clicks as Arrow files, see stored_columns.py
                            clicks-<key>/     derived clicks (derived_queries.py)
                            texts-<key>/      token ids and keywords of the training texts, see inputs/training_texts.py
                            manifest.json     counts, and the size of every file; written last, verified when opened

The folder is written under a temporary name and renamed when complete. Its name has the digest of the content.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from make_jax.catalog import cache as cached
from make_jax.catalog import jsonl
from make_jax.catalog.executors import Executor, open_executor
from make_jax.catalog.product_shards import write_products
from make_jax.catalog.reader import Catalog, packaged_path
from make_jax.catalog.reporting import Problems
from make_jax.catalog.schema import SPLITS, Product, Split
from make_jax.catalog.source import Source, open_source
from make_jax.catalog.stored_columns import (
    COLUMNS,
    INFO,
    add_stamp,
    find_columns,
    open_clicks,
    open_records,
    write_clicks,
    write_columns,
)
from make_jax.errors import InputError
from make_jax.files import PARTIAL, folder_atomically, publish_folder, write_atomically

if TYPE_CHECKING:
    from make_jax.catalog.columns import Records
    from make_jax.catalog.shards import ProductSource

FORMAT = 7  # of the built folder; folders of another format are rebuilt
MANIFEST = "manifest.json"


class BuiltCatalog:
    """A built catalog, open for reading. Pickles as its path."""

    def __init__(self, folder: Path, derivation: str = "") -> None:
        """`derivation` selects clicks that `build` has derived; "" are those of the file."""
        self.folder = folder
        self.derivation = derivation
        self.manifest = _verified_manifest(folder)
        cached.lock_for_reading(self, folder / MANIFEST)
        self._products, _, self.clicks, self._clicked = open_records(folder / COLUMNS)  # memory-mapped
        if derivation:
            self.clicks, self._clicked = open_clicks(_derived_folder(folder, derivation))

    def split_products(self, split: Split) -> "Records[Product]":
        """The products of a split in catalog order, without their images."""
        return self._products.of_split(split)

    def products(self, split: Split) -> "ProductSource":
        """The records of a split, indexed by position in catalog order. Raises InputError if the split is empty."""
        from make_jax.catalog.shards import ProductSource

        if not self.manifest["products"][split]:
            raise InputError(
                f'{self.manifest["source"]}: the split "{split}" is empty, expected products with "split": "{split}"'
            )
        return ProductSource(self.folder / "products", split)

    def clicked(self) -> Int32[np.ndarray, " clicks"]:
        """The position of each click's product in the training split."""
        rows = self.split_products("train").rows
        assert rows is not None
        return np.searchsorted(rows, self._clicked).astype(np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        return BuiltCatalog, (self.folder, self.derivation)

    def __repr__(self) -> str:
        return f"BuiltCatalog({str(self.folder)!r})"


def build(catalog: str | Path | Catalog = "", cache: str = "", workers: int = 0, ray: str = "") -> BuiltCatalog:
    """Builds a catalog (a path, "" for the packaged one, or a loaded catalog) or opens its existing build.

    A new build reads every line, decodes every image once, to verify it, and writes columns and shards with a progress
    bar, in `workers` processes (0: one a core), or with `ray`, an address or "auto", as tasks of that Ray cluster,
    whose nodes share the file system. The bytes do not depend on the workers. After a kill, Ctrl-C or SIGTERM the next
    build goes on with the chunk and the shard that were not complete. Partial builds and builds of earlier content of
    the same path are removed unless a process reads them. One process builds at a time; others wait and use its result.

    Raises InputError for an invalid catalog or one without splits, an unreadable image, a cache that cannot be written
    (full disk), or a Ray cluster that cannot be used.
    """
    source = catalog.source if isinstance(catalog, Catalog) else open_source(catalog or packaged_path())
    root = cached.cache_root(cache)
    if ray:  # its workers have other working directories
        stamp = source.stamp
        source, root = open_source(source.path.resolve()), root.resolve()
        source.stamp = stamp
    name = jsonl.read_info(source, Problems(source.path)).name
    try:
        with cached.build_lock(root, name):
            columns = find_columns(source, cache)
            built = _opened(root, name, columns)
            if built is None:
                partial = cached.partial_folder(root, name, f"{FORMAT}{source.stamp}")
                with open_executor(workers, ray, (source.path, partial)) as executor:
                    built = _build_in(partial, root, name, source, executor, cache)
            cached.push_build(cache, built.folder)
            _remove_stale(root, name, source.path, built.folder)
            if isinstance(catalog, Catalog) and catalog.derivation:
                built = _with_derived_clicks(built.folder, catalog)
            return built
    except OSError as error:
        if error.errno in cached.UNWRITABLE:
            raise _unwritable(root, error.strerror) from None
        raise


def _opened(root: Path, name: str, columns: Catalog | None) -> BuiltCatalog | None:
    """The complete build of a catalog whose columns were found; None if it is missing or damaged."""
    if columns is None:
        return None
    try:
        return BuiltCatalog(root / cached.folder_name(name, columns.digest))
    except InputError:
        return None


def _build_in(
    partial: Path, root: Path, name: str, source: Source, executor: Executor, cache: str = ""
) -> BuiltCatalog:
    """Builds in the folder `partial` and publishes it. Removes it after an error, not after a kill or a signal."""
    try:
        catalog = write_columns(source, partial, executor)
        if not any(len(catalog.split_products(split)) for split in SPLITS):
            expected = 'expected "split": "train", "val" or "test" in each'
            raise InputError(f"{source.path}: no product has a split, {expected}")
        folder = root / cached.folder_name(name, catalog.digest)
        cached.pull_build(cache, folder.name)
        try:
            built = BuiltCatalog(folder)  # of another path or time, with the same content
            add_stamp(source, folder)
            shutil.rmtree(partial)
            return built
        except InputError:  # missing, damaged, or of another FORMAT
            if folder.exists():
                cached.remove_built(folder, MANIFEST)
        lengths = write_products(catalog, partial / "products", executor)
        _remove_partial_files(partial)
        files = {file.relative_to(partial).as_posix(): file.stat().st_size for file in _files(partial)}
        manifest = {
            "format": FORMAT,
            "name": catalog.info.name,
            "source": str(source.path.resolve()),
            "digest": catalog.digest,
            "products": {split: sum(lengths.get(split, ())) for split in SPLITS},
            "clicks": len(catalog.clicks),
            "files": {name: size for name, size in files.items() if name != f"{COLUMNS}/{INFO}"},  # it is rewritten
        }
        write_atomically(partial / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        publish_folder(partial, folder)
    except Exception:  # not KeyboardInterrupt, after which the next build goes on with the folder
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return BuiltCatalog(folder)


def _with_derived_clicks(folder: Path, catalog: Catalog) -> BuiltCatalog:
    """The build in `folder` with the clicks of `catalog`, which are written next to those of the file."""
    derived = _derived_folder(folder, catalog.derivation)
    if not derived.exists():
        with folder_atomically(derived) as partial:
            write_clicks(partial, catalog)
    return BuiltCatalog(folder, catalog.derivation)


def _derived_folder(folder: Path, derivation: str) -> Path:
    return folder / f"clicks-{hashlib.sha256(derivation.encode()).hexdigest()[:16]}"


def _files(folder: Path) -> Iterable[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(PARTIAL))


def _remove_partial_files(folder: Path) -> None:
    """Removes what killed workers were writing."""
    for file in folder.rglob(f"{PARTIAL}*"):
        file.unlink(missing_ok=True)


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
