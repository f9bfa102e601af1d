"""Builds a version of an index, in a folder that becomes a version by one rename when it is complete."""

import contextlib
import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from make_jax.catalog import jsonl
from make_jax.catalog.columns import Records
from make_jax.catalog.line_chunks import chunk_paths, write_batch
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Split
from make_jax.errors import InputError
from make_jax.files import publish_folder
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.retrieval.vector_index import DiskEmbeddings
from make_jax.retrieval.vectors.shards import HEADER
from make_jax.serving.engines import EngineName
from make_jax.serving.index.manifest import (
    FORMAT,
    MANIFEST,
    UPDATES,
    CatalogEntry,
    EngineEntry,
    FileEntry,
    Manifest,
    check_files,
    file_entry,
    read_manifest,
    write_manifest,
)
from make_jax.serving.index.model import IndexModel, load_encoder, set_title_weight
from make_jax.serving.index.reader import VECTORS, open_index
from make_jax.serving.index.thumbnails import write_thumbnails
from make_jax.serving.index.tuning import Tuned, tune_index, vectors_of_pool
from make_jax.serving.index.versions import (
    BUILDING,
    CURRENT,
    current_version,
    next_version,
    remove_partial,
    remove_versions,
    set_current,
    version_folder,
    version_names,
    writing,
)
from make_jax.serving.opened import build_engine

_ROWS_PER_FILE = 1 << 16  # products
_VECTORS_PER_SHARD = 1 << 12  # what SIGKILL loses at most: minutes, also of a slow model
# Of all vectors, which exact search reads for each query: on two cores 13 million numbers take 2.5 ms and 27 million
# 7 to 9 ms, with which a page takes more than 10 ms (docs/serving.md, "How fast").
_FLAT_NUMBERS = 1 << 24
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Log = Callable[[str], None]


def no_log(line: str) -> None:
    """A `Log` that shows nothing."""


@dataclass(frozen=True)
class IndexSettings:
    """What determines a version besides model and catalog."""

    split: Split | None = None  # the indexed products; None: all
    lexical_weight: float | None = None  # of BM25; None: the best on validation queries, 0 without
    engine: EngineName | None = None  # None: by the size
    switch: bool = True  # make it the current version
    keep: int = 2  # versions that stay, with `switch`


class Built(NamedTuple):
    """The result of `build_index`."""

    version: str
    new: bool  # False: the index had this version already
    removed: list[str]  # versions


def build_index(
    index: Path,
    model: IndexModel,
    catalog: Catalog,
    settings: IndexSettings = IndexSettings(),
    *,
    ray: Any = None,
    progress: Progress = no_progress,
    log: Log = no_log,
) -> Built:
    """Builds a version of the index at `index`, which is created, and makes it the current one.

    A call that was interrupted, also by SIGKILL, is continued by the same call; until the version is complete, readers
    open the one before. A version of the same model, catalog and settings is not built again.

    Args:
        index: a new folder, or an index.
        model: of the vectors; the weight of titles in a late fusion is tuned and set.
        catalog: of the products and of the validation queries.
        settings: what else determines the version, and whether it becomes the current one.
        ray: the module of a connected Ray cluster whose devices embed (`ray_cluster.connected`); None: this process.
        progress: of each stage.
        log: receives what was decided, a line each.

    Raises:
        InputError: `index` is another folder, another process writes to it, the model cannot encode the products, or
            the disk is full.
    """
    _check_folder(index, model)
    with writing(index), full_disk_is_input_error(index):
        key = _key(model, catalog, settings)
        version = _find(index, key, model, catalog, log)
        if new := version is None:
            version = next_version(index)
            build = _Build(index / f"{BUILDING}{key[:16]}", model, catalog, settings, ray, progress, log)
            build.link_from(index)
            build.run(key)
            publish_folder(build.folder, version_folder(index, version))
        assert version is not None
        _build_engine(index, version, log)
        removed: list[str] = []
        if settings.switch:
            previous = current_version(index) if (index / CURRENT).exists() else None
            if previous != version:
                set_current(index, version)
            removed = remove_versions(index, settings.keep, previous)
        return Built(version, new, removed)


def _build_engine(index: Path, version: str, log: Log) -> None:
    """Before the switch, so that a server that follows the index answers from the new version at once."""
    opened = open_index(index, version)
    if opened.manifest.engine.name == "edge":
        log(f"building the search graph of {opened.manifest.count:,} products, unless it exists")
        build_engine(opened)


def _check_folder(index: Path, model: IndexModel) -> None:
    """Raises InputError for a folder that is no index, and for one whose files would change the model's digest."""
    if index.exists() and not index.is_dir():
        raise InputError(f"{index}: a file, expected a new folder or an index")
    if index.is_dir() and (names := sorted(path.name for path in index.iterdir())) and "versions" not in names:
        raise InputError(f"{index}: holds {names[0]} and is no index, expected a new folder or an index")
    if model.entry.kind != "run" and index.resolve().is_relative_to(model.entry.path):
        raise InputError(f"{index}: inside the model's folder, whose files identify the model; name another folder")


@contextlib.contextmanager
def full_disk_is_input_error(index: Path) -> Iterator[None]:
    """Says what is left when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise InputError(
            f"{error.filename or index}: {error.strerror}; the index is as before, and the same command continues when "
            "there is space"
        ) from None


def _key(model: IndexModel, catalog: Catalog, settings: IndexSettings) -> str:
    parts = [FORMAT, model.entry.digest, catalog.digest, settings.split, settings.lexical_weight, settings.engine]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _find(index: Path, key: str, model: IndexModel, catalog: Catalog, log: Log) -> str | None:
    """The newest intact version of this key without updates; notes there where model and catalog are now."""
    for name in reversed(version_names(index)):
        folder = version_folder(index, name)
        try:
            manifest = read_manifest(folder)
            if manifest.key != key or manifest.updates:
                continue
            check_files(folder, manifest.files)
        except InputError as error:
            log(f"warning: {error}: {name} is not used")
            continue
        found = dataclasses.replace(
            manifest,
            model=dataclasses.replace(manifest.model, path=model.entry.path, name=model.entry.name),
            catalog=catalog_entry(catalog),
        )
        if found != manifest:
            write_manifest(folder, found)
        return name
    return None


@dataclass(frozen=True)
class _Build:
    """One version that is being built in `folder`."""

    folder: Path
    model: IndexModel
    catalog: Catalog
    settings: IndexSettings
    ray: Any
    progress: Progress
    log: Log

    def link_from(self, index: Path) -> None:
        """Makes the folder, with the files of a version of this model and catalog that differs in its settings."""
        if self.folder.exists():
            return
        self.folder.mkdir()
        digests = self.model.entry.digest, self.catalog.digest, self.settings.split
        for name in reversed(version_names(index)):
            version = version_folder(index, name)
            with contextlib.suppress(InputError, OSError):  # damaged, or a file system without hard links
                manifest = read_manifest(version)
                if (manifest.model.digest, manifest.catalog.digest, manifest.split) == digests:
                    check_files(version, manifest.files)  # whose checksums would otherwise become those of the copy
                    _link(version, self.folder, manifest)
                    return

    def run(self, key: str) -> None:
        """Fills the folder; existing files of it are kept."""
        products, split = self.catalog.products, self.settings.split
        if split is not None:
            products = self.catalog.split_products(split)
        if not len(products):
            raise InputError(f"{self.catalog.path}: no product of split {split!r}, expected some to index")
        write_products(products, self.folder)
        tuned, embedded = self._embed(products)
        for problem in write_thumbnails(self.catalog, products, self.folder, self.progress):
            self.log(f"warning: {problem}; it has no picture in the index")
        remove_partial(self.folder)
        remove_partial(self.folder / VECTORS)
        lexical = self.settings.lexical_weight
        manifest = Manifest(
            created=now(),
            key=key,
            model=dataclasses.replace(self.model.entry, title_weight=tuned.title_weight),
            catalog=catalog_entry(self.catalog),
            split=split,
            base_rows=len(products),
            rows=len(products),
            count=len(products),
            width=embedded.width,
            engine=choose_engine(self.settings.engine, len(products), embedded.width),
            bm25=tuned.bm25,
            lexical_weight=tuned.lexical_weight if lexical is None else lexical,
            lexical_weight_reason=tuned.lexical_weight_reason if lexical is None else "set by --lexical-weight",
            files=file_entries(self.folder),
        )
        if tuned.title_weight is not None:
            self.log(f"title weight of the late fusion: {tuned.title_weight:g}")
        self.log(f"BM25 weight {manifest.lexical_weight:g}: {manifest.lexical_weight_reason}")
        self.log(f"engine {manifest.engine.name}: {manifest.engine.reason}")
        write_manifest(self.folder, manifest)

    def _embed(self, products: Records[Product]) -> tuple[Tuned, DiskEmbeddings]:
        """Tunes, and embeds the products: first, where the tuned weight of titles is in the vectors."""
        entry, split = self.model.entry, self.settings.split
        if entry.title_weight is None:
            embedded = self._vectors(products, None)
            pool_vectors = partial(vectors_of_pool, embedded, self.catalog, products, split)
            return tune_index(self.folder, self.model.encoder, self.catalog, pool_vectors, self.progress), embedded
        tuned = tune_index(self.folder, self.model.encoder, self.catalog, lambda _: None, self.progress)
        if tuned.title_weight is None:
            tuned = tuned._replace(title_weight=entry.title_weight)
        return tuned, self._vectors(products, tuned.title_weight)

    def _vectors(self, products: Records[Product], title_weight: float | None) -> DiskEmbeddings:
        part = vectors_part(self.settings.split or "all", title_weight)
        return embed(self.model, self.catalog, products, self.folder, part, title_weight, self.ray, self.progress)


def _link(version: Path, folder: Path, manifest: Manifest) -> None:
    """Links the files of a version without its updates into a folder; files never change, they are replaced."""
    names = [name for name in manifest.files if not name.startswith(f"{UPDATES}/")]
    (folder / VECTORS).mkdir()
    for name in sorted(names, key=lambda name: not name.endswith(HEADER)):  # without it, shards are another folder's
        (folder / name).hardlink_to(version / name)


def embed(
    model: IndexModel,
    catalog: Catalog,
    products: Records[Product],
    folder: Path,
    part: str,
    title_weight: float | None,
    ray: Any,
    progress: Progress,
    *,
    may_lack_all: bool = False,
) -> DiskEmbeddings:
    """The vectors of products in `folder`/vectors, in float32; missing shards are embedded."""
    entry = model.entry
    set_title_weight(model.encoder, title_weight)
    devices = None
    if ray is not None:
        devices = RayDevices(ray, partial(load_encoder, Path(entry.path), entry.checkpoint, title_weight))
    return embed_to_disk(
        model.encoder,
        catalog,
        products,
        folder / VECTORS,
        part,
        entry.modality,
        progress,
        per_shard=_VECTORS_PER_SHARD,
        devices=devices,
        dtype="float32",
        may_lack_all=may_lack_all,
    )


def write_products(products: Records[Product], folder: Path) -> None:
    """Writes the columns of products, in files of 65,536; existing files are kept."""
    existing = {path.name for path in chunk_paths(folder, jsonl.PRODUCTS)}
    for number, start in enumerate(range(0, len(products), _ROWS_PER_FILE)):
        name = f"products-{number:05d}.arrow"
        if name not in existing:
            rows = slice(start, min(start + _ROWS_PER_FILE, len(products)))
            (batch,) = products.rows_of(products.table, rows).combine_chunks().to_batches()
            write_batch(batch, folder / name)


def vectors_part(part: str, title_weight: float | None) -> str:
    """What the header of a folder of vectors names its products."""
    return part if title_weight is None else f"{part} with title weight {title_weight:g}"


def choose_engine(name: EngineName | None, count: int, width: int) -> EngineEntry:
    """The engine that was set, or else exact search where it is fast enough, and why."""
    if name is not None:
        return EngineEntry(name, "set by --engine")
    size = f"{count:,} vectors of {width} numbers, {4e-6 * count * width:,.1f} MB that exact search reads for a query"
    return EngineEntry("flat" if count * width <= _FLAT_NUMBERS else "edge", size)


def catalog_entry(catalog: Catalog) -> CatalogEntry:
    """What the manifest states of a catalog."""
    info = catalog.info
    return CatalogEntry(info.name, str(catalog.path.resolve()), catalog.digest, info.attributes, info.hide_title)


def file_entries(folder: Path, below: str = ".") -> dict[str, FileEntry]:
    """Size and checksum of all files of a version but its manifest, or of those `below` a folder in it."""
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: file_entry(path) for name, path in names.items() if name != MANIFEST}


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
