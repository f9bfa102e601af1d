"""A folder of ready vectors, made by any program: embeddings.json, and vectors of queries and of products with ids.

docs/models.md describes the layout. NumPy arrays stay on disk and are read where they are asked for; Parquet is held in
memory, in float32.
"""

import functools
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from make_jax.errors import InputError
from make_jax.evaluation.models.folder_digest import folder_digest
from make_jax.retrieval.embed import Modality

CONFIG = "embeddings.json"
_BLOCK = 1 << 16  # vectors that are looked at together
_READS: dict[str, Modality] = {"both": "both", "title": "title", "image": "image"}


class Table(NamedTuple):
    """Vectors and the place of each id."""

    path: Path
    places: dict[str, int]
    vectors: Float[np.ndarray, "n D"]  # or of a file that is mapped into memory

    def rows(self, places: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "m D"]:
        """A copy of some of them."""
        return np.array(self.vectors[np.asarray(places, np.int64)], np.float32)


class PrecomputedFolder:
    """Vectors by id."""

    def __init__(self, folder: Path, modalities: Modality, queries: Table, products: Table) -> None:
        self.modalities: Modality = modalities
        self._folder, self._queries, self._products = folder, queries, products

    @functools.cached_property
    def digest(self) -> str:
        """A name that changes when the vectors do."""
        return folder_digest(self._folder)

    def query_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each query. InputError for one that is missing: it would count as found by nobody."""
        missing = [identity for identity in ids if identity not in self._queries.places]
        if missing:
            more = f" and {len(missing) - 1} more of {len(ids)}" if len(missing) > 1 else ""
            raise InputError(
                f"{self._queries.path}: no vector of query {missing[0]!r}{more}, expected one for each qid"
            )
        return self._queries.rows([self._queries.places[identity] for identity in ids])

    def product_vectors(self, ids: Sequence[str]) -> Float32[np.ndarray, "n D"]:
        """The vector of each product, zeros for one that has none."""
        places = np.array([self._products.places.get(identity, -1) for identity in ids], np.int64)
        rows = self._products.rows(places)  # -1 takes the last row, which is cleared
        rows[places < 0] = 0
        return rows


def recognise(path: Path) -> bool:
    """Whether the folder says that it holds vectors."""
    return (path / CONFIG).is_file()


def load(path: Path) -> PrecomputedFolder:
    """The folder's vectors. InputError for ids that stand twice, widths that differ, numbers that are not finite."""
    try:
        reads = _READS[json.loads((path / CONFIG).read_text("utf-8"))["reads"]]
    except (ValueError, KeyError, TypeError):
        raise InputError(f'{path}/{CONFIG}: expected {{"reads": "title", "image" or "both"}}') from None
    queries, products = _table(path, "queries"), _table(path, "products")
    widths = queries.vectors.shape[1], products.vectors.shape[1]
    if widths[0] != widths[1]:
        raise InputError(f"{path}: queries have {widths[0]} numbers and products {widths[1]}, expected as many")
    return PrecomputedFolder(path, reads, queries, products)


def _table(folder: Path, name: str) -> Table:
    """Vectors and ids of NAME.npy with NAME.ids.txt, of NAME.parquet, or of all Parquet files in the folder NAME."""
    if (folder / f"{name}.npy").is_file():
        path = folder / f"{name}.npy"
        ids, vectors = _of_numpy(path, folder / f"{name}.ids.txt")
    else:
        files = sorted((folder / name).glob("*.parquet"))
        path = folder / name if files else folder / f"{name}.parquet"
        ids, vectors = _of_parquet(files or [path])
    if not len(ids):
        raise InputError(f"{path}: no vector, expected one a row")
    for start in range(0, len(ids), _BLOCK):
        finite = np.isfinite(vectors[start : start + _BLOCK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise InputError(f"{path}: row {row + 1}, id {ids[row]!r}: a number that is not finite")
    places = {identity: place for place, identity in enumerate(ids)}
    if len(places) < len(ids):
        row = next(row for row, identity in enumerate(ids) if places[identity] != row)
        raise InputError(
            f"{path}: id {ids[row]!r} stands in rows {row + 1} and {places[ids[row]] + 1}, expected each once"
        )
    return Table(path, places, vectors)


def _of_numpy(path: Path, names: Path) -> tuple[list[str], Float[np.ndarray, "n D"]]:
    """Ids, and an array that stays on disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("an archive of arrays")
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an array of NumPy ({error}), expected float16 or float32 [n, D]") from None
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind != "f":
        raise InputError(f"{path}: {array.dtype} of shape {array.shape}, expected float16 or float32 [n, D]")
    try:
        ids = names.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{names}: not UTF-8 at byte {error.start + 1}, expected UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{names}: not found, expected an id a line for {path.name}") from None
    if len(ids) != len(array):
        raise InputError(f"{names}: {len(ids)} ids for {len(array)} vectors in {path.name}, expected one a line")
    return ids, array


def _of_parquet(files: Sequence[Path]) -> tuple[list[str], Float32[np.ndarray, "n D"]]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    ids: list[str] = []
    parts = []
    for path in files:
        try:
            table = parquet.read_table(path, columns=["id", "vector"])
        except (pyarrow.ArrowException, KeyError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: {said}; expected Parquet with the columns id and vector") from None
        if table["id"].null_count:
            raise InputError(f"{path}: an id that is null, expected one for each vector")
        if not len(table):
            continue
        ids += [str(identity) for identity in table["id"].to_pylist()]
        parts.append(_matrix(table["vector"].combine_chunks(), path))
        if parts[0].shape[1] != parts[-1].shape[1]:
            raise InputError(f"{path}: vectors of {parts[-1].shape[1]} numbers, expected {parts[0].shape[1]}")
    return ids, np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _matrix(column: Any, path: Path) -> Float32[np.ndarray, "n D"]:
    """A column of lists of equal length as rows."""
    import pyarrow

    kind = column.type
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)):
        raise InputError(f"{path}: vector is of type {kind}, expected a list of float16 or float32")
    flat = column.flatten()
    width, left = divmod(len(flat), max(len(column), 1))
    lengths = set(column.value_lengths().to_pylist()) if hasattr(column, "value_lengths") else {width}
    if (
        left
        or not width
        or column.null_count
        or flat.null_count
        or lengths - {width}
        or not pyarrow.types.is_floating(kind.value_type)
    ):
        raise InputError(
            f"{path}: vector has nulls, lists that are empty or of differing lengths, or no floats, expected [n, D]"
        )
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), width)
