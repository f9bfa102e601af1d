"""Builds a version of an index, in a folder that becomes a version by one rename when it is complete."""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from make_jax.catalog import jsonl
from make_jax.catalog.columns import Records
from make_jax.catalog.line_chunks import chunk_paths, write_batch
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Split
from make_jax.errors import InputError
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.files import publish_folder
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.ray_devices import RayDevices
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.serving.engines import EngineName
from make_jax.serving.index.manifest import (
    FORMAT,
    MANIFEST,
    BM25Entry,
    CatalogEntry,
    EngineEntry,
    FileEntry,
    Manifest,
    file_entry,
    read_manifest,
    write_manifest,
)
from make_jax.serving.index.model import IndexModel
from make_jax.serving.index.reader import VECTORS
from make_jax.serving.index.thumbnails import write_thumbnails
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

_ROWS_PER_FILE = 1 << 16  # products
_FLAT_NUMBERS = 1 << 26  # of all vectors, that exact search reads in about 10 ms
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Log = Callable[[str], None]


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
    devices: RayDevices | None = None,
    progress: Progress = no_progress,
    log: Log = lambda _: None,
) -> Built:
    """Builds a version of the index at `index`, which is created, and makes it the current one.

    A call that was interrupted, also by SIGKILL, is continued by the same call; until the version is complete, readers
    open the one before. A version of the same model, catalog and settings is not built again.

    Raises InputError if `index` is another folder or another process writes to it, for products that the model cannot
    encode, and for a full disk.
    """
    _check_folder(index, model)
    with writing(index), full_disk_is_input_error(index):
        key = _key(model, catalog, settings)
        version = _find(index, key)
        if new := version is None:
            version = next_version(index)
            building = index / f"{BUILDING}{key[:16]}"
            _build(building, key, model, catalog, settings, devices, progress, log)
            publish_folder(building, version_folder(index, version))
        assert version is not None
        removed: list[str] = []
        if settings.switch:
            previous = current_version(index) if (index / CURRENT).exists() else None
            if previous != version:
                set_current(index, version)
            removed = remove_versions(index, settings.keep, previous)
        return Built(version, new, removed)


def _check_folder(index: Path, model: IndexModel) -> None:
    """Raises InputError for a folder that is no index, and for one whose files would change the model's digest."""
    if index.exists() and not index.is_dir():
        raise InputError(f"{index}: a file, expected a new folder or an index")
    if index.is_dir() and (names := sorted(path.name for path in index.iterdir())) and "versions" not in names:
        raise InputError(f"{index}: holds {names[0]} and is no index, expected a new folder or an index")
    if model.entry.kind != "run" and index.resolve().is_relative_to(model.entry.path):
        raise InputError(f"{index}: inside the model's folder, whose files identify the model; name another folder")


@contextmanager
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


def _find(index: Path, key: str) -> str | None:
    """The newest version of this key without updates."""
    for name in reversed(version_names(index)):
        manifest = read_manifest(version_folder(index, name))
        if manifest.key == key and not manifest.updates:
            return name
    return None


def _build(
    folder: Path,
    key: str,
    model: IndexModel,
    catalog: Catalog,
    settings: IndexSettings,
    devices: RayDevices | None,
    progress: Progress,
    log: Log,
) -> None:
    """Fills the folder of a version; existing files of it are kept."""
    folder.mkdir(exist_ok=True)
    products = catalog.products if settings.split is None else catalog.split_products(settings.split)
    if not len(products):
        raise InputError(f"{catalog.path}: no product of split {settings.split!r}, expected some to index")
    write_products(products, folder)
    title_weight = model.entry.title_weight
    if isinstance(model.encoder, LateFusion) and title_weight is not None:
        model.encoder.title_weight = title_weight
    part = vectors_part(settings.split or "all", title_weight)
    embedded = embed_to_disk(
        model.encoder,
        catalog,
        products,
        folder / VECTORS,
        part,
        model.entry.modality,
        progress,
        devices=devices,
        dtype="float32",
    )
    for problem in write_thumbnails(catalog, products, folder, progress):
        log(f"warning: {problem}; the product has no picture")
    remove_partial(folder)
    remove_partial(folder / VECTORS)
    lexical = settings.lexical_weight
    manifest = Manifest(
        created=now(),
        key=key,
        model=dataclasses.replace(model.entry, title_weight=title_weight),
        catalog=catalog_entry(catalog),
        split=settings.split,
        base_rows=len(products),
        rows=len(products),
        count=len(products),
        width=embedded.width,
        engine=choose_engine(settings.engine, len(products), embedded.width),
        bm25=BM25Entry(1.2, 0.75),
        lexical_weight=lexical or 0.0,
        lexical_weight_reason="" if lexical is None else "set by --lexical-weight",
        files=file_entries(folder, [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]),
    )
    log(f"engine {manifest.engine.name}: {manifest.engine.reason}")
    write_manifest(folder, manifest)


def write_products(products: Sequence[Product], folder: Path) -> None:
    """Writes the columns of products, in files of 65,536; existing files are kept."""
    assert isinstance(products, Records)
    existing = {path.name for path in chunk_paths(folder, jsonl.PRODUCTS)}
    for number, start in enumerate(range(0, len(products), _ROWS_PER_FILE)):
        name = f"products-{number:05d}.arrow"
        if name not in existing:
            rows = slice(start, min(start + _ROWS_PER_FILE, len(products)))
            (batch,) = products.rows_of(products.table, rows).combine_chunks().to_batches()
            write_batch(batch, folder / name)


def vectors_part(part: str, title_weight: float | None) -> str:
    """What the header of a folder of vectors names its products."""
    return part if title_weight is None else f"{part}, title weight {title_weight:g},"


def choose_engine(name: EngineName | None, count: int, width: int) -> EngineEntry:
    """The engine that was set, or else exact search where it is fast enough, and why."""
    if name is not None:
        return EngineEntry(name, "set by --engine")
    size = f"{count:,} vectors of {width} numbers, {4e-6 * count * width:,.0f} MB that exact search reads for a query"
    return EngineEntry("flat" if count * width <= _FLAT_NUMBERS else "edge", size)


def catalog_entry(catalog: Catalog) -> CatalogEntry:
    """What the manifest states of a catalog."""
    info = catalog.info
    return CatalogEntry(info.name, str(catalog.path.resolve()), catalog.digest, info.attributes, info.hide_title)


def file_entries(folder: Path, paths: Sequence[Path]) -> dict[str, FileEntry]:
    """Size and checksum of files, by their path in the folder."""
    return {path.relative_to(folder).as_posix(): file_entry(path) for path in sorted(paths)}


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
