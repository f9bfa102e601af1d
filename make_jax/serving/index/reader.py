"""Reads an index: `open_index(path)`."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from jaxtyping import Bool, Float32, Int64

from make_jax.catalog import jsonl
from make_jax.catalog.columns import PRODUCT_SCHEMA, Records, product_records
from make_jax.catalog.id_index import IdIndex
from make_jax.catalog.line_chunks import open_file
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.retrieval.vectors.shards import VectorFolder
from make_jax.serving.engines import Rows
from make_jax.serving.index.manifest import (
    UPDATES,
    Manifest,
    UpdateEntry,
    check_files,
    content_digest,
    read_manifest,
    size_problem,
)
from make_jax.serving.index.thumbnails import Thumbnails, is_thumbnails
from make_jax.serving.index.versions import current_version, version_folder

VECTORS = "vectors"  # folder of vectors, of a version or of an update
ROWS = "rows.npy"  # of an update: the row of each of its products
EMBEDDED = "embedded.npy"  # the row of each of its vectors: products of which only attributes changed have none
DELETED = "deleted.npy"  # rows
_ATTEMPTS = 3  # to open a version, which a switch may replace and remove meanwhile

_Read = TypeVar("_Read")


class Changes(NamedTuple):
    """The rows that differ between two states of a version."""

    replaced: Int64[np.ndarray, " n"]  # ascending; added ones too
    deleted: Int64[np.ndarray, " m"]  # ascending


class OpenIndex:
    """One version of an index, with the updates that it had when it was opened. Immutable and thread-safe.

    A row is the position of a product. Updates append rows and replace their content; rows of deleted products stay,
    and a product that is added again has its old row. After the version is removed, products and pictures stay
    readable; so do vectors and weights, which are read on first use, if they were used before.
    """

    def __init__(self, path: Path, version: str, manifest: Manifest) -> None:
        """Use `open_index`."""
        self.path = path  # of the index
        self.version = version
        self.manifest = manifest
        self.folder = version_folder(path, version)
        folders = [self.folder, *(update_folder(self.folder, update) for update in manifest.updates)]
        tables = [open_file(folder, jsonl.PRODUCTS, PRODUCT_SCHEMA) for folder in folders]
        changes = [np.arange(manifest.base_rows), *(np.load(folder / ROWS) for folder in folders[1:])]
        positions = np.zeros(manifest.rows, np.int64)  # in all tables together
        deleted = np.zeros(manifest.rows, bool)
        first = 0
        for folder, table, rows in zip(folders, tables, changes, strict=True):
            positions[rows] = first + np.arange(len(rows))
            deleted[rows] = False
            if folder != self.folder:
                deleted[np.load(folder / DELETED)] = True
            first += len(table)
        table = pa.concat_tables(tables)
        self._positions = positions
        counts = zip(folders, map(len, tables), strict=True)
        self._thumbnails = Thumbnails(self.folder, counts, manifest.files)
        self._file_system_id = _file_system_id(self.folder)
        self.deleted: Bool[np.ndarray, " rows"] = deleted
        records = product_records(table)
        self.products: Records[Product] = records.select(positions) if manifest.updates else records

    @property
    def updates(self) -> tuple[UpdateEntry, ...]:
        """The updates of the version, oldest first."""
        return self.manifest.updates

    @property
    def state(self) -> "State":
        """What `index_state` returns as long as the index does not change."""
        return State(self.version, content_digest(self.manifest))

    def continues(self, earlier: "OpenIndex") -> bool:
        """Whether this is `earlier` after further updates, and not another version that was built in its place."""
        same_folder = self.version == earlier.version and self._file_system_id == earlier._file_system_id
        files, before = self.manifest.files, earlier.manifest.files
        return same_folder and self.manifest.key == earlier.manifest.key and before.items() <= files.items()

    @property
    def rows(self) -> int:
        """Number of rows, those of deleted products too."""
        return self.manifest.rows

    @property
    def vectors(self) -> Float32[np.ndarray, "rows D"]:
        """The vector of each row, in memory; zeros for a product that the model cannot encode. Read-only."""
        return self._embeddings.vectors

    @property
    def weights(self) -> Float32[np.ndarray, "rows 2"]:
        """w_title and w_image of each row; both 0 where its vector is zero. Read-only."""
        return self._embeddings.weights

    @functools.cached_property
    def _embeddings(self) -> ProductEmbeddings:
        vectors = np.zeros((self.rows, self.manifest.width), np.float32)
        weights = np.zeros((self.rows, 2), np.float32)
        for rows, folder in self._vector_folders():
            for first, block in folder.blocks(dtype=np.float32):
                vectors[rows[first : first + len(block)]] = block
            stored = folder.weights()
            if stored is None:
                raise InputError(f"{folder.folder}: no columns title_weight and image_weight, expected both")
            weights[rows] = stored
        return ProductEmbeddings(vectors, weights)

    @functools.cached_property
    def _ids(self) -> IdIndex:
        return IdIndex(self.products.column("id"), self.products.column("hash").to_numpy())

    def row(self, id: str) -> int | None:
        """The row of a product; None for an unknown or deleted one."""
        row = self._ids.get(id)
        return None if row is None or self.deleted[row] else row

    def rows_of_ids(self, ids: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The row of each id, of deleted products too; -1 for an unknown one."""
        return self._ids.positions(ids)

    def thumbnail(self, row: int) -> bytes | None:
        """The picture of a product as a WebP file; None without one. Raises DamagedFileError."""
        return self._thumbnails.picture(int(self._positions[row]))

    def image_checksum(self, row: int) -> str | None:
        """Size and CRC-32 of the product's original image; None without one. Raises DamagedFileError."""
        return self._thumbnails.checksum(int(self._positions[row]))

    def engine_rows(self, size: int) -> Iterator[Rows]:
        """All products that are not deleted, by ascending row, at most `size` at a time; one part at least."""
        live = np.flatnonzero(~self.deleted)
        for start in range(0, max(len(live), 1), size):
            yield self.rows_at(live[start : start + size])

    def rows_at(self, rows: Int64[np.ndarray, " n"]) -> Rows:
        """What an engine needs of some rows."""
        products = list(self.products.select(rows))
        titles, attributes = [product.title for product in products], [product.attributes for product in products]
        consecutive = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
        vectors = self.vectors[rows[0] : rows[-1] + 1] if consecutive else self.vectors[rows]  # a view if possible
        return Rows(rows, vectors, titles, attributes)

    def changes(self, since: int) -> Changes:
        """What the updates after number `since` changed in all: `engine.update(index.rows_at(replaced), deleted)`."""
        touched: list[np.ndarray] = [np.zeros(0, np.int64)]
        for update in self.updates[since:]:
            folder = update_folder(self.folder, update)
            touched += [np.load(folder / ROWS), np.load(folder / DELETED)]
        rows = np.unique(np.concatenate(touched))
        return Changes(rows[~self.deleted[rows]], rows[self.deleted[rows]])

    def _vector_folders(self) -> Iterator[tuple[Int64[np.ndarray, " n"], VectorFolder]]:
        """The folders of vectors, oldest first, and the row of each vector."""
        yield np.arange(self.manifest.base_rows), VectorFolder(self.folder / VECTORS)
        for update in self.updates:
            folder = update_folder(self.folder, update)
            rows = np.load(folder / EMBEDDED)
            if len(rows):
                yield rows, VectorFolder(folder / VECTORS)


class State(NamedTuple):
    """What readers compare to see whether an index has changed."""

    version: str
    content: str  # `content_digest`


def open_index(
    path: str | Path, version: str = "", *, read_vectors: bool = False, known: OpenIndex | None = None
) -> OpenIndex:
    """The current version of an index, or another one. Verifies the checksums of all files but pictures.

    Those of pictures are verified when one is read. Files that `known` has, an earlier state, are not verified again.
    Keeps no vector in memory, unless `read_vectors`: then the result also outlives the removal of its version.

    Raises InputError if there is no such version, and DamagedFileError for a missing or damaged file.
    """
    path = Path(path)

    def read(name: str) -> OpenIndex:
        folder = version_folder(path, name)
        manifest = read_manifest(folder)
        check_files(folder, manifest.files, size_problem)
        verified = known.manifest.files if known is not None and known.folder == folder else {}
        read_now = {n: f for n, f in manifest.files.items() if not is_thumbnails(n) and verified.get(n) != f}
        check_files(folder, read_now)
        opened = OpenIndex(path, name, manifest)
        if read_vectors:
            _ = opened.vectors
        return opened

    return read(version) if version else _of_current(path, read)


def index_state(path: str | Path, version: str = "") -> State:
    """What identifies the current version of an index, or another one, and its updates; reads two small files."""
    path = Path(path)

    def read(name: str) -> State:
        return State(name, content_digest(read_manifest(version_folder(path, name))))

    return read(version) if version else _of_current(path, read)


def _of_current(index: Path, read: Callable[[str], _Read]) -> _Read:
    """What `read` returns of the current version; again if another one became current meanwhile."""
    for _ in range(_ATTEMPTS):
        name = current_version(index)
        try:
            return read(name)
        except (InputError, FileNotFoundError):
            if current_version(index) == name:
                raise
    return read(current_version(index))


def _file_system_id(folder: Path) -> tuple[int, int]:
    """Differs for a folder that was created again under the same name."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def update_folder(version: Path, update: UpdateEntry) -> Path:
    """The folder of an update of a version."""
    return version / UPDATES / str(update.number)
