"""The manifest of a version, index.json, and JSON files that contain their own checksum."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from make_jax.catalog.schema import Split
from make_jax.errors import InputError
from make_jax.files import write_atomically
from make_jax.retrieval.embed import Modality
from make_jax.serving.engines import EngineName

MANIFEST = "index.json"
UPDATES = "updates"  # folder of a version
ADVICE = "restore it from a backup or build the index again"
FORMAT = 1
_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n\}\n\Z')
_NO_DIGEST = b"0" * 64
_BLOCK_BYTES = 1 << 20


class DamagedFileError(InputError):
    """A file of an index is missing or damaged; the message names it."""


@dataclass(frozen=True)
class ModelEntry:
    """The model that made the vectors and encodes the queries."""

    path: str  # as it was named, absolute
    name: str
    kind: str  # a key of `evaluation.models.ADAPTERS`
    checkpoint: Literal["best", "last"]  # of a run
    digest: str  # changes when its vectors do
    modality: Modality  # what it reads of a product
    title_weight: float | None = None  # of a late fusion; None: the model has no such weight


@dataclass(frozen=True)
class CatalogEntry:
    """The catalog whose products were indexed."""

    name: str
    path: str
    digest: str
    attributes: tuple[str, ...] = ()  # keys of products that can be filtered and counted
    hide_title: bool = False  # titles are labels; the index has none


@dataclass(frozen=True)
class BM25Entry:
    """Parameters of BM25 over titles."""

    k1: float
    b: float


@dataclass(frozen=True)
class EngineEntry:
    """The engine that serves the version, and why."""

    name: EngineName
    reason: str


@dataclass(frozen=True)
class UpdateEntry:
    """One update of a version."""

    number: int  # from 1; its folder is updates/<number>
    created: str  # UTC, ISO 8601
    catalog: CatalogEntry | None  # None: it only deleted products
    added: int
    replaced: int
    unchanged: int  # products of the catalog that the index had already
    deleted: int


@dataclass(frozen=True)
class FileEntry:
    """What a file must be."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of index.json."""

    created: str  # UTC, ISO 8601
    key: str  # digest of model, catalog and settings: a version with the same one would be the same
    model: ModelEntry
    catalog: CatalogEntry
    split: Split | None  # the indexed products; None: all
    base_rows: int  # rows without updates
    rows: int  # products, deleted ones too
    count: int  # products that are not deleted
    width: int  # dimensions of a vector
    engine: EngineEntry
    bm25: BM25Entry
    lexical_weight: float  # of BM25 where a search does not set it; 0: cosine alone
    lexical_weight_reason: str
    files: dict[str, FileEntry]  # by path in the version's folder; without index.json
    updates: tuple[UpdateEntry, ...] = ()
    format: int = FORMAT


_ADAPTER = TypeAdapter(Manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes index.json atomically."""
    write_sealed(folder / MANIFEST, dataclasses.asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version. Raises InputError if it is missing, damaged or of another format."""
    path = folder / MANIFEST
    values = read_sealed(path)
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {values.get('format')!r}, expected {FORMAT}; build the index again with this version"
        )
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: {first['msg']}; restore the file or build the index again") from None


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON object atomically, with the checksum of its text as the last key, `sha256`."""
    text = json.dumps(values | {"sha256": _NO_DIGEST.decode()}, indent=1, ensure_ascii=False).encode() + b"\n"
    digest = hashlib.sha256(text).hexdigest().encode()
    write_atomically(path, _with_digest(text, digest))


def read_sealed(path: Path) -> dict[str, Any]:
    """The object of a file of `write_sealed`. Raises InputError if it is missing or any byte has changed."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: not found, expected an index that `search.py index` wrote") from None
    seal = _SEAL.search(text)
    if seal is None or hashlib.sha256(_with_digest(text, _NO_DIGEST)).hexdigest().encode() != seal[1]:
        raise InputError(f"{path}: damaged, its checksum differs; restore the file or build the index again")
    values: dict[str, Any] = json.loads(text)
    del values["sha256"]
    return values


def _with_digest(text: bytes, digest: bytes) -> bytes:
    """The text with another checksum at its end."""
    return _SEAL.sub(b'"sha256": "' + digest + b'"\n}\n', text)


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha.update(block)
            size += len(block)
    return FileEntry(size, sha.hexdigest())


def size_problem(path: Path, expected: FileEntry) -> str:
    """Why a file cannot be the expected one, in one line; "" if it has its size. Reads nothing of it."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"{path}: {error.strerror or error}; {ADVICE}"
    return "" if size == expected.size else f"{path}: {size:,} bytes, expected {expected.size:,}; {ADVICE}"


def file_problem(path: Path, expected: FileEntry) -> str:
    """What is wrong with a file, in one line; "" if it has the expected size and checksum."""
    try:
        problem = size_problem(path, expected)
        return problem or ("" if file_entry(path) == expected else checksum_problem(path))
    except OSError as error:
        return f"{path}: {error.strerror or error}; {ADVICE}"


def checksum_problem(path: Path) -> str:
    """The line that states a damaged file."""
    return f"{path}: damaged, its checksum differs from that in {MANIFEST}; {ADVICE}"


def check_files(
    folder: Path, files: Mapping[str, FileEntry], problem_of: Callable[[Path, FileEntry], str] = file_problem
) -> None:
    """Raises DamagedFileError for the first file with a `problem_of` it, by default another size or checksum."""
    for name, expected in files.items():
        if problem := problem_of(folder / name, expected):
            raise DamagedFileError(problem)


def content_digest(manifest: Manifest, updates: int | None = None) -> str:
    """Identifies the products, vectors and settings of a version after so many of its updates; None: after all.

    A version that was deleted and built again under the same name has another one, unless its files are the same.
    """
    count = len(manifest.updates) if updates is None else updates
    later = tuple(f"{UPDATES}/{update.number}/" for update in manifest.updates[count:])
    files = {name: file.sha256 for name, file in manifest.files.items() if not name.startswith(later)}
    return hashlib.sha256(json.dumps([manifest.key, files], sort_keys=True).encode()).hexdigest()
