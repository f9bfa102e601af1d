"""A folder of vectors: float16 rows with ids in Parquet shards, and vectors.json, which says what they are of.

docs/embeddings.md describes the layout, so that other programs can write and read such folders. A shard is written
beside and renamed, so one that is there is whole; folders may therefore be filled by many processes and in any order.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float16, Float32

from make_jax.errors import InputError
from make_jax.files import PARTIAL, sync_folder, write_atomically, write_durably

HEADER = "vectors.json"
SUFFIX = ".parquet"
FORMAT = 1
PER_SHARD = 1 << 16  # vectors
GROUP = 1 << 13  # vectors of a Parquet row group
_WEIGHTS = ("title_weight", "image_weight")
_KEY = b"make_jax.vectors"  # of a shard's metadata: the header it was written under


@dataclass(frozen=True)
class Header:
    """What vectors.json says: of what the vectors are, and how many there are where."""

    model: str  # who made them; of our own models a digest of parameters and preprocessing
    catalog: str  # digest of the catalog; "" when only ids say what they are of
    part: str  # which of its products, read how: "test by both"
    count: int  # vectors
    width: int  # numbers of a vector
    per_shard: int = PER_SHARD  # vectors of every shard but the last

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.count // self.per_shard)

    def rows(self, shard: int) -> range:
        """Positions of the vectors of a shard."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    def path(self, folder: Path, shard: int) -> Path:
        """The file of a shard."""
        return folder / f"vectors-{shard:05d}-of-{self.shards:05d}{SUFFIX}"

    def text(self) -> str:
        """vectors.json; the same header gives the same bytes."""
        return json.dumps({"format": FORMAT, "shards": self.shards} | dataclasses.asdict(self), indent=1) + "\n"


class Block(NamedTuple):
    """Some vectors that follow one another."""

    first: int  # position of the first
    vectors: Float16[np.ndarray, "n D"] | Float32[np.ndarray, "n D"]


@runtime_checkable
class Vectors(Protocol):
    """Vectors that are read in blocks and are never in memory together."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        ...

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector on disk."""
        ...

    def blocks(self, most: int = GROUP, dtype: type[np.floating[Any]] | None = None) -> Iterator[Block]:
        """All in order, at most `most` at a time, as `dtype` or as they are."""
        ...


# --- reading ---


class VectorFolder:
    """The vectors of a complete folder, read in blocks: `VectorFolder(path)`.

    Opening it reads each shard's footer and no vector. Raises InputError for a folder without header, and for shards
    that are missing, cut short, of another folder, or not of the count and width that the header says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.header = read_header(self.folder)
        if gone := missing(self.folder, self.header):
            raise InputError(
                f"{self.header.path(self.folder, gone[0])}: missing, as are {len(gone) - 1} others of "
                f"{self.header.shards} shards; run the command that embeds again, which goes on where it stopped"
            )
        for shard in range(self.header.shards):
            check_shard(self.folder, self.header, shard)

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return self.header.count

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.header.width

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector, in the float16 that we write."""
        return 2 * self.header.width

    def ids(self) -> list[str]:
        """The id of each vector. InputError when one stands twice."""
        found: list[str] = []
        for shard in range(self.header.shards):
            path = self.header.path(self.folder, shard)
            for batch in _batches(path, ["id"], PER_SHARD):
                found += batch.column(0).to_pylist()
        if len(set(found)) < len(found):
            first: dict[str, int] = {}
            for position, identity in enumerate(found):
                if first.setdefault(identity, position) < position:
                    places = f"positions {first[identity]} and {position}"
                    raise InputError(f"{self.folder}: id {identity!r} stands twice, at {places}; expected each id once")
        return found

    def weights(self) -> Float32[np.ndarray, "N 2"] | None:
        """The share of title and image in each vector; None when the shards do not say."""
        if not set(_WEIGHTS) <= set(_columns(self.header.path(self.folder, 0))):
            return None
        parts = [np.zeros((0, 2), np.float32)]
        for shard in range(self.header.shards):
            for batch in _batches(self.header.path(self.folder, shard), list(_WEIGHTS), PER_SHARD):
                columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in _WEIGHTS]
                parts.append(np.stack(columns, axis=1).astype(np.float32))
        return np.concatenate(parts)

    def blocks(self, most: int = GROUP, dtype: type[np.floating[Any]] | None = None) -> Iterator[Block]:
        """All vectors in order, at most `most` at a time; a thread reads the next block while one is used.

        They come as they are stored (float16, or float32 of another program's folder) or as `dtype`. Memory is that of
        two blocks and what Parquet holds to read them. InputError for a damaged page and for numbers that are not
        finite.
        """
        blocks = self._read(most, dtype)
        with ThreadPoolExecutor(1, thread_name_prefix="vectors") as pool:
            waiting = pool.submit(next, blocks, None)
            while (block := waiting.result()) is not None:
                waiting = pool.submit(next, blocks, None)
                yield block

    def _read(self, most: int, dtype: type[np.floating[Any]] | None) -> Iterator[Block]:
        for shard in range(self.header.shards):
            path, first = self.header.path(self.folder, shard), self.header.rows(shard).start
            for batch in _batches(path, ["vector"], most):
                stored = _matrix(batch.column(0), self.header.width, path)
                vectors = stored if dtype is None else stored.astype(dtype, copy=False)
                if not np.isfinite(vectors).all():
                    raise InputError(f"{path}: numbers that are not finite, expected vectors of numbers")
                yield Block(first, vectors)
                first += len(vectors)


def read_header(folder: Path) -> Header:
    """What a folder says of itself. InputError when there is no such folder or its vectors.json is not as expected."""
    path = folder / HEADER
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise InputError(f"{path}: format {values['format']!r}, expected {FORMAT}")
        header = Header(**{field.name: values[field.name] for field in dataclasses.fields(Header)})
        texts, numbers = (header.model, header.catalog, header.part), (header.count, header.width, header.per_shard)
        if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n > 0 for n in numbers):
            raise TypeError
        if values["shards"] != header.shards:
            raise InputError(
                f"{path}: {values['shards']!r} shards, expected {header.shards} of {header.per_shard} each"
            )
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: not found, expected a folder of vectors (docs/embeddings.md)") from None
    except (ValueError, KeyError, TypeError):
        expected = "format, shards, model, catalog, part, count, width, per_shard"
        raise InputError(f"{path}: damaged, expected JSON with {expected} (docs/embeddings.md)") from None
    return header


def missing(folder: Path, header: Header) -> list[int]:
    """The shards that are not there yet."""
    there = {entry.name for entry in os.scandir(folder)}
    return [shard for shard in range(header.shards) if header.path(folder, shard).name not in there]


def check_shard(folder: Path, header: Header, shard: int) -> None:
    """Reads the footer of a shard; InputError when it is damaged or not what the header says."""
    import pyarrow  # type: ignore[import-untyped]

    path, rows = header.path(folder, shard), len(header.rows(shard))
    with _opened(path) as file:
        said, schema, found = (file.schema_arrow.metadata or {}).get(_KEY), file.schema_arrow, file.metadata.num_rows
    if said is not None and said != header.text().encode():
        raise InputError(f"{path}: written under another {HEADER}, of another model or catalog; delete that shard")
    if found != rows:
        raise InputError(f"{path}: {found:,} vectors, expected {rows:,} as {HEADER} says")
    names = schema.names
    if "id" not in names or "vector" not in names:
        raise InputError(f"{path}: columns {', '.join(names)}, expected id and vector (docs/embeddings.md)")
    kind, of_ids = schema.field("vector").type, schema.field("id").type
    lists = (pyarrow.types.is_fixed_size_list, pyarrow.types.is_list, pyarrow.types.is_large_list)
    if not any(test(kind) for test in lists) or str(kind.value_type) not in ("halffloat", "float"):
        raise InputError(f"{path}: vector is {kind}, expected lists of float16 or float32")
    if pyarrow.types.is_fixed_size_list(kind) and kind.list_size != header.width:
        raise InputError(f"{path}: vectors of {kind.list_size} numbers, expected {header.width} as {HEADER} says")
    if str(of_ids) not in ("string", "large_string"):
        raise InputError(f"{path}: id is {of_ids}, expected strings")


def _matrix(column: Any, width: int, path: Path) -> np.ndarray:
    """A column of lists as an array of rows; a view of what Parquet read."""
    flat = column.flatten()
    lengths = column.value_lengths() if not hasattr(column.type, "list_size") else None
    ragged = lengths is not None and not np.array_equal(lengths.to_numpy(), np.full(len(column), width))
    if column.null_count or flat.null_count or ragged:
        raise InputError(f"{path}: rows that are not of {width} numbers, expected as many as {HEADER} says")
    rows: np.ndarray = flat.to_numpy().reshape(len(column), width)
    return rows


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Parquet file whose pages are checked as they are read and which is not held in memory; InputError on damage."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20, memory_map=False
        ) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: missing, expected a shard of vectors") from None
    except (pyarrow.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: damaged or cut short ({said}); delete it and run the command that embeds again, which makes it "
            "anew"
        ) from None


def _batches(path: Path, columns: list[str], most: int) -> Iterator[Any]:
    with _opened(path) as file:
        yield from file.iter_batches(batch_size=most, columns=columns, use_threads=False)


def _columns(path: Path) -> list[str]:
    with _opened(path) as file:
        names: list[str] = file.schema_arrow.names
    return names


# --- writing ---


def prepare(folder: Path, header: Header) -> list[int]:
    """Makes `folder` ready to receive shards under `header`, and returns those that it lacks.

    Several processes may do so at once. Raises InputError when it already holds vectors of something else, or a shard
    that is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / HEADER
    if not path.exists():
        if found := [entry.name for entry in os.scandir(folder) if not entry.name.startswith(PARTIAL)]:
            raise InputError(f"{folder}: holds {min(found)} and no {HEADER}; expected a new folder for vectors")
        with contextlib.suppress(FileNotFoundError):  # another process was first and swept
            write_atomically(path, header.text())
    there = read_header(folder)
    for field in dataclasses.fields(Header):
        found, wanted = getattr(there, field.name), getattr(header, field.name)
        if found != wanted:
            raise InputError(
                f"{path}: {field.name} is {found!r}, and what is to be embedded has {wanted!r}; name another folder "
                "or delete this one"
            )
    for entry in os.scandir(folder):  # headers that killed processes left; shards are replaced by who makes them
        if entry.name.startswith(PARTIAL) and not entry.name.endswith(SUFFIX):
            Path(entry.path).unlink(missing_ok=True)
    gone = missing(folder, header)
    for shard in sorted({*range(header.shards)} - {*gone}):
        check_shard(folder, header, shard)
    return gone


@contextlib.contextmanager
def claimed(folder: Path, shard: int) -> Iterator[bool]:
    """Whether the shard is this process's to make while inside: False when another process is making it.

    By a lock on one byte of vectors.json, which ends with the process, however it dies, and when this process closes
    vectors.json elsewhere, as `read_header` does: do not read it inside.
    """
    with (folder / HEADER).open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shard)
        except (BlockingIOError, PermissionError):
            yield False
            return
        yield True


def write_shard(
    folder: Path,
    header: Header,
    shard: int,
    ids: Sequence[str],
    vectors: Float32[np.ndarray, "n D"] | Float16[np.ndarray, "n D"],
    weights: Float32[np.ndarray, "n 2"] | None = None,
) -> None:
    """Writes one shard, whole or not at all; the same rows give the same bytes. One process a shard: see `claimed`.

    Raises InputError for numbers that float16 does not hold, ValueError for rows that are not those of the header.
    """
    import pyarrow
    from pyarrow import parquet

    if len(ids) != len(header.rows(shard)) or vectors.shape != (len(ids), header.width):
        raise ValueError(f"shard {shard}: {len(ids)} ids, vectors {vectors.shape}, header {header}")
    with np.errstate(over="ignore"):  # told below
        half = np.ascontiguousarray(vectors, np.float16)
    if not np.isfinite(half).all():
        raise InputError(f"{header.path(folder, shard)}: numbers that float16 does not hold, expected unit vectors")
    number = pyarrow.field("element", pyarrow.float16(), nullable=False)
    kind = pyarrow.list_(number, header.width)
    fields = [pyarrow.field("id", pyarrow.string(), False), pyarrow.field("vector", kind, False)]
    columns = [
        pyarrow.array(ids, pyarrow.string()),
        pyarrow.FixedSizeListArray.from_arrays(half.reshape(-1), type=kind),
    ]
    for name, column in zip(_WEIGHTS, [] if weights is None else weights.T, strict=False):
        fields.append(pyarrow.field(name, pyarrow.float32(), False))
        columns.append(pyarrow.array(np.ascontiguousarray(column)))
    schema = pyarrow.schema(fields, {_KEY: header.text().encode()})
    table = pyarrow.Table.from_arrays(columns, schema=schema)
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(  # vectors do not compress, and dictionaries and statistics of them serve nobody
        table,
        buffer,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        row_group_size=GROUP,
    )
    _replace(header.path(folder, shard), buffer.getvalue().to_pybytes())


def _replace(path: Path, content: bytes) -> None:
    """Writes beside under a fixed name, so that nothing stays of a killed process once the shard is made; renames."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    write_durably(partial, content)
    partial.rename(path)
    sync_folder(path.parent)
