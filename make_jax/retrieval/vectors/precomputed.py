"""Vectors that another program made: a folder with embeddings.json, and vectors of queries and products with ids.

docs/models.md describes the layout. NumPy arrays are memory-mapped; Parquet is held in memory, in float32.
"""

import functools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from make_jax import unique_json
from make_jax.errors import InputError
from make_jax.files import folder_digest
from make_jax.retrieval.vectors.parquet import check_columns, open_parquet, vector_matrix
from make_jax.retrieval.vectors.source import BLOCK_SIZE

CONFIG = "embeddings.json"
_MODALITIES = ("both", "title", "image")
_CHECKED_TOGETHER = 1 << 16  # vectors


class VectorTable(NamedTuple):
    """Vectors and the row of each id."""

    path: Path
    rows: dict[str, int]
    vectors: Float[np.ndarray, "n D"]  # in memory or memory-mapped

    def take(self, rows: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "m D"]:
        """A copy of the vectors in `rows`."""
        return np.array(self.vectors[np.asarray(rows, np.int64)], np.float32)


class PrecomputedFolder:
    """Vectors of queries and products, looked up by id. A `PrecomputedVectors`."""

    def __init__(
        self, folder: Path, modalities: Literal["both", "title", "image"], queries: VectorTable, products: VectorTable
    ) -> None:
        self.modalities = modalities
        self._folder, self._queries, self._products = folder, queries, products

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the folder's files."""
        return folder_digest(self._folder)

    def query_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each query. Raises InputError for a missing one, whose metrics would silently be 0."""
        missing = [identity for identity in ids if identity not in self._queries.rows]
        if missing:
            more = f" and {len(missing) - 1} more of {len(ids)}" if len(missing) > 1 else ""
            raise InputError(
                f"{self._queries.path}: no vector of query {missing[0]!r}{more}, expected one for each qid"
            )
        return self._queries.take([self._queries.rows[identity] for identity in ids])

    def product_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each product, zeros for a missing one."""
        rows = np.array([self._products.rows.get(identity, -1) for identity in ids], np.int64)
        vectors = self._products.take(rows)  # -1 takes the last row, which is cleared
        vectors[rows < 0] = 0
        return vectors


def matches(path: Path) -> bool:
    """Whether the folder holds precomputed vectors."""
    return (path / CONFIG).is_file()


def load(path: Path) -> PrecomputedFolder:
    """The folder's vectors. Raises InputError for duplicate ids, differing widths and numbers that are not finite."""
    try:
        modalities = unique_json.loads((path / CONFIG).read_text("utf-8-sig"))["reads"]
        if modalities not in _MODALITIES:
            raise ValueError
    except unique_json.DuplicateKeyError as error:
        raise InputError(f"{path}/{CONFIG}: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f'{path}/{CONFIG}: expected {{"reads": "title", "image" or "both"}}') from None
    queries, products = _read_table(path, "queries"), _read_table(path, "products")
    widths = queries.vectors.shape[1], products.vectors.shape[1]
    if widths[0] != widths[1]:
        raise InputError(f"{path}: queries have {widths[0]} dimensions and products {widths[1]}, expected equal widths")
    return PrecomputedFolder(path, modalities, queries, products)


def _read_table(folder: Path, name: str) -> VectorTable:
    """The vectors and ids of NAME.npy with NAME.ids.txt, of NAME.parquet, or of all Parquet files in folder NAME."""
    if (folder / f"{name}.npy").is_file():
        path = folder / f"{name}.npy"
        ids, vectors = _read_numpy(path, folder / f"{name}.ids.txt")
    else:
        files = sorted((folder / name).glob("*.parquet"))
        path = folder / name if files else folder / f"{name}.parquet"
        ids, vectors = _read_parquet(files or [path])
    if not len(ids):
        raise InputError(f"{path}: no vector, expected one a row")
    for start in range(0, len(ids), _CHECKED_TOGETHER):
        finite = np.isfinite(vectors[start : start + _CHECKED_TOGETHER]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise InputError(f"{path}: row {row + 1}, id {ids[row]!r}: a number that is not finite")
    rows = {identity: row for row, identity in enumerate(ids)}
    if len(rows) < len(ids):
        row = next(row for row, identity in enumerate(ids) if rows[identity] != row)
        raise InputError(
            f"{path}: duplicate id {ids[row]!r} in rows {row + 1} and {rows[ids[row]] + 1}, expected each once"
        )
    return VectorTable(path, rows, vectors)


def _read_numpy(path: Path, ids_path: Path) -> tuple[list[str], Float[np.ndarray, "n D"]]:
    """Ids, and a memory-mapped array."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("an archive of arrays")
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a NumPy array ({error}), expected float16 or float32 [n, D]") from None
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        raise InputError(f"{path}: {array.dtype} of shape {array.shape}, expected float16 or float32 [n, D]")
    try:
        ids = ids_path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{ids_path}: not UTF-8 at byte {error.start + 1}, expected UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{ids_path}: not found, expected an id a line for {path.name}") from None
    if len(ids) != len(array):
        raise InputError(f"{ids_path}: {len(ids)} ids for {len(array)} vectors in {path.name}, expected one a line")
    return ids, array


def _read_parquet(files: Sequence[Path]) -> tuple[list[str], Float32[np.ndarray, "n D"]]:
    """Ids and vectors of all files, in their order; files without rows are skipped."""
    ids: list[str] = []
    parts: list[Any] = []
    for path in files:
        with open_parquet(path, "expected Parquet with the columns id and vector") as file:
            check_columns(path, file.schema_arrow)
            for batch in file.iter_batches(batch_size=BLOCK_SIZE, columns=["id", "vector"]):
                column = batch.column("id")
                if column.null_count:
                    raise InputError(f"{path}: an id that is null, expected one for each vector")
                if not len(column):
                    continue
                ids += [str(identity) for identity in column.to_pylist()]
                width = parts[0].shape[1] if parts else None
                parts.append(vector_matrix(batch.column("vector"), path, width).astype(np.float32))
    return ids, np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
