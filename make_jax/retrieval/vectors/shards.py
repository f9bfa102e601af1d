"""A folder of vectors: float16 or float32 rows with ids in Parquet shards, and vectors.json, the header.

docs/embeddings.md describes the layout, so that other programs can write and read such folders. A shard is written
under a temporary name and renamed, so an existing shard is complete; several processes may fill a folder in any order.
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
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float16, Float32

from make_jax.errors import InputError
from make_jax.files import PARTIAL, sync_folder, write_atomically, write_durably
from make_jax.retrieval.vectors.parquet import check_columns, open_parquet, vector_matrix
from make_jax.retrieval.vectors.source import BLOCK_SIZE, Block

HEADER = "vectors.json"
SUFFIX = ".parquet"
FORMAT = 1
VECTORS_PER_SHARD = 1 << 16
VectorType = Literal["float16", "float32"]
_WEIGHTS = ("title_weight", "image_weight")
_METADATA_KEY = b"make_jax.vectors"  # of a shard: the header it was written under
_ADVICE = "delete it and run the embedding command again, which writes it anew"


@dataclass(frozen=True)
class Header:
    """The content of vectors.json: what the vectors are, how many there are, and how they are split into shards."""

    model: str  # digest of the model; of our own models of parameters and preprocessing
    catalog: str  # digest of the catalog; "" when ids alone identify the products
    part: str  # the embedded products and modality: "test by both"
    count: int  # vectors
    width: int  # dimensions of a vector
    per_shard: int = VECTORS_PER_SHARD  # vectors of every shard but the last
    dtype: VectorType = "float16"  # of the numbers that we write; vectors.json names it where it is float32

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.per_shard)

    def rows(self, shard: int) -> range:
        """Positions of the vectors of a shard."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    def path(self, folder: Path, shard: int) -> Path:
        """The file of a shard."""
        return folder / f"vectors-{shard:05d}-of-{self.shards:05d}{SUFFIX}"

    def to_json(self) -> str:
        """The text of vectors.json; the same header gives the same bytes."""
        values = dataclasses.asdict(self)
        if self.dtype == "float16":
            del values["dtype"]  # as in the folders that were written before there was another
        return json.dumps({"format": FORMAT, "shards": self.shards} | values, indent=1) + "\n"


# --- reading ---


class VectorFolder:
    """The vectors of a complete folder, read in blocks: `VectorFolder(path)`. A `VectorSource`.

    Opening reads each shard's footer and no vector. Raises InputError for a folder without header, and for shards that
    are missing, cut short, of another folder, or of another count or width than the header's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.header = read_header(self.folder)
        if missing := missing_shards(self.folder, self.header):
            raise InputError(
                f"{self.header.path(self.folder, missing[0])}: missing, as are {len(missing) - 1} others of "
                f"{self.header.shards} shards; run the embedding command again, which writes the missing ones"
            )
        for shard in range(self.header.shards):
            check_shard(self.folder, self.header, shard)

    @property
    def count(self) -> int:
        """Number of vectors."""
        return self.header.count

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return self.header.width

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector, in the type that we write."""
        return np.dtype(self.header.dtype).itemsize * self.header.width

    def ids(self) -> list[str]:
        """The id of each vector. Raises InputError for a duplicate."""
        ids: list[str] = []
        for path in self._paths():
            for batch in _batches(path, ["id"], VECTORS_PER_SHARD):
                ids += batch.column(0).to_pylist()
        if len(set(ids)) < len(ids):
            first: dict[str, int] = {}
            for position, identity in enumerate(ids):
                if first.setdefault(identity, position) < position:
                    places = f"positions {first[identity]} and {position}"
                    raise InputError(f"{self.folder}: duplicate id {identity!r}, at {places}; expected each id once")
        return ids

    def weights(self) -> Float32[np.ndarray, "N 2"] | None:
        """The weights of title and image in each vector; None when the shards have no such columns."""
        with open_parquet(self.header.path(self.folder, 0), _ADVICE) as file:
            if not set(_WEIGHTS) <= set(file.schema_arrow.names):
                return None
        parts = [np.zeros((0, 2), np.float32)]
        for path in self._paths():
            for batch in _batches(path, list(_WEIGHTS), VECTORS_PER_SHARD):
                columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in _WEIGHTS]
                parts.append(np.stack(columns, axis=1).astype(np.float32))
        return np.concatenate(parts)

    def blocks(self, size: int = BLOCK_SIZE, dtype: type[np.floating[Any]] | None = None) -> Iterator[Block]:
        """All vectors in order, at most `size` at a time; a thread reads the next block while one is used.

        They come as stored (float16, or float32 in another program's folder) or as `dtype`. Memory is that of two
        blocks and Parquet's read buffers. Raises InputError for a damaged page and for numbers that are not finite.
        """
        blocks = self._read(size, dtype)
        with ThreadPoolExecutor(1, thread_name_prefix="vectors") as pool:
            prefetched = pool.submit(next, blocks, None)
            while (block := prefetched.result()) is not None:
                prefetched = pool.submit(next, blocks, None)
                yield block

    def _read(self, size: int, dtype: type[np.floating[Any]] | None) -> Iterator[Block]:
        first = 0
        for path in self._paths():
            for batch in _batches(path, ["vector"], size):
                stored = vector_matrix(batch.column(0), path, self.header.width)
                vectors = stored if dtype is None else stored.astype(dtype, copy=False)
                if not np.isfinite(vectors).all():
                    raise InputError(f"{path}: numbers that are not finite, expected finite vectors")
                yield Block(first, vectors)
                first += len(vectors)

    def _paths(self) -> list[Path]:
        return [self.header.path(self.folder, shard) for shard in range(self.header.shards)]


def read_header(folder: Path) -> Header:
    """The header of a folder. Raises InputError when there is no such folder or its vectors.json is malformed."""
    path = folder / HEADER
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise InputError(f"{path}: format {values['format']!r}, expected {FORMAT}")
        values = {"dtype": "float16"} | values
        if values["dtype"] not in get_args(VectorType):
            raise InputError(f"{path}: dtype {values['dtype']!r}, expected {' or '.join(get_args(VectorType))}")
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


def missing_shards(folder: Path, header: Header) -> list[int]:
    """The shards that do not exist yet."""
    names = {entry.name for entry in os.scandir(folder)}
    return [shard for shard in range(header.shards) if header.path(folder, shard).name not in names]


def check_shard(folder: Path, header: Header, shard: int) -> None:
    """Reads the footer of a shard. Raises InputError when it is damaged or does not match the header."""
    import pyarrow  # type: ignore[import-untyped]

    path, rows = header.path(folder, shard), len(header.rows(shard))
    with open_parquet(path, _ADVICE) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
    written_under = (schema.metadata or {}).get(_METADATA_KEY)
    if written_under is not None and written_under != header.to_json().encode():
        raise InputError(f"{path}: written under another {HEADER}, of another model or catalog; delete that shard")
    if count != rows:
        raise InputError(f"{path}: {count:,} vectors, expected {rows:,} according to {HEADER}")
    check_columns(path, schema)
    vector, ids = schema.field("vector").type, schema.field("id").type
    if str(vector.value_type) not in ("halffloat", "float"):
        raise InputError(f"{path}: vector is {vector}, expected lists of float16 or float32")
    if pyarrow.types.is_fixed_size_list(vector) and vector.list_size != header.width:
        raise InputError(
            f"{path}: vectors of {vector.list_size} numbers, expected {header.width} according to {HEADER}"
        )
    if str(ids) not in ("string", "large_string"):
        raise InputError(f"{path}: id is {ids}, expected strings")


def _batches(path: Path, columns: list[str], size: int) -> Iterator[Any]:
    with open_parquet(path, _ADVICE) as file:
        yield from file.iter_batches(batch_size=size, columns=columns, use_threads=False)


# --- writing ---


def prepare_folder(folder: Path, header: Header) -> list[int]:
    """Creates `folder` or checks that it belongs to `header`, and returns its missing shards.

    Several processes may do so at once. Raises InputError when it holds vectors of something else or a damaged shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / HEADER
    if not path.exists():
        if names := [entry.name for entry in os.scandir(folder) if not entry.name.startswith(PARTIAL)]:
            raise InputError(f"{folder}: holds {min(names)} and no {HEADER}; expected a new folder for vectors")
        with contextlib.suppress(FileNotFoundError):  # another process wrote it and deleted our temporary file
            write_atomically(path, header.to_json())
    existing = read_header(folder)
    for field in dataclasses.fields(Header):
        found, expected = getattr(existing, field.name), getattr(header, field.name)
        if found != expected:
            raise InputError(
                f"{path}: {field.name} is {found!r}, expected {expected!r} for the vectors to embed; name another "
                "folder or delete this one"
            )
    for entry in os.scandir(folder):  # headers of killed processes; half-written shards are replaced by their writer
        if entry.name.startswith(PARTIAL) and not entry.name.endswith(SUFFIX):
            Path(entry.path).unlink(missing_ok=True)
    missing = missing_shards(folder, header)
    for shard in sorted({*range(header.shards)} - {*missing}):
        check_shard(folder, header, shard)
    return missing


@contextlib.contextmanager
def claim_shard(folder: Path, shard: int) -> Iterator[bool]:
    """Locks a shard for this process while inside; False when another process holds it.

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
    """Writes one shard atomically; the same rows give the same bytes. One process per shard: see `claim_shard`.

    Raises InputError for numbers beyond the header's `dtype`, ValueError for another number or width of rows than the
    header's.
    """
    import pyarrow
    from pyarrow import parquet

    if len(ids) != len(header.rows(shard)) or vectors.shape != (len(ids), header.width):
        raise ValueError(f"shard {shard}: {len(ids)} ids, vectors {vectors.shape}, header {header}")
    with np.errstate(over="ignore"):  # checked below
        stored = np.ascontiguousarray(vectors, header.dtype)
    if not np.isfinite(stored).all():
        path = header.path(folder, shard)
        raise InputError(f"{path}: numbers that {header.dtype} does not hold, expected unit vectors")
    number = pyarrow.field("element", pyarrow.from_numpy_dtype(header.dtype), nullable=False)
    kind = pyarrow.list_(number, header.width)
    fields = [pyarrow.field("id", pyarrow.string(), False), pyarrow.field("vector", kind, False)]
    columns = [
        pyarrow.array(ids, pyarrow.string()),
        pyarrow.FixedSizeListArray.from_arrays(stored.reshape(-1), type=kind),
    ]
    for name, column in zip(_WEIGHTS, [] if weights is None else weights.T, strict=False):
        fields.append(pyarrow.field(name, pyarrow.float32(), False))
        columns.append(pyarrow.array(np.ascontiguousarray(column)))
    schema = pyarrow.schema(fields, {_METADATA_KEY: header.to_json().encode()})
    table = pyarrow.Table.from_arrays(columns, schema=schema)
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(  # vectors do not compress, and nothing reads dictionaries and statistics of them
        table,
        buffer,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        row_group_size=BLOCK_SIZE,
    )
    _replace(header.path(folder, shard), buffer.getvalue().to_pybytes())


def _replace(path: Path, content: bytes) -> None:
    """Writes under a fixed temporary name, which the next writer overwrites if this process is killed; renames."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    write_durably(partial, content)
    partial.rename(path)
    sync_folder(path.parent)
