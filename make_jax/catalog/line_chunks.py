"""Parses a file of JSON lines into Arrow record batches, in chunks, by several processes.

Chunks are cut at line ends by size alone, so batches are the same for any number of processes. With a folder, each
batch is a file in it, written once: a later call continues where an interrupted one stopped.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import pyarrow as pa  # type: ignore[import-untyped]

from make_jax.catalog.executors import Executor, InProcess
from make_jax.catalog.jsonl import Hash
from make_jax.catalog.reporting import Problems
from make_jax.catalog.source import READ_ERRORS, Source, unreadable
from make_jax.files import write_atomically

CHUNK_BYTES = 16 << 20
_SUMMARY = b"summary"  # key in the metadata of a batch


@runtime_checkable
class LineParser(Protocol):
    """Parses the lines of one kind of file. Picklable."""

    @property
    def name(self) -> str:
        """The name of the file."""
        ...

    @property
    def path(self) -> Path:
        """The path of the catalog, for messages."""
        ...

    def parse(self, data: bytes, first: int, problems: Problems) -> tuple[pa.RecordBatch, "Summary"]:
        """The rows of some lines, of which the first has the number `first`. Adds problems at "name:number"."""
        ...


class Summary(NamedTuple):
    """What is known of lines besides their rows."""

    lines: int  # that are not blank
    keys: tuple[str, ...] = ()  # that the format does not declare, sorted


class Chunk(NamedTuple):
    """A parsed part of a file."""

    batch: pa.RecordBatch
    summary: Summary
    problems: Problems


@dataclass
class ParsedFile:
    """A parsed file."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    lines: int = 0  # that are not blank
    keys: set[str] = field(default_factory=set)  # that the format does not declare
    problems: list[Problems] = field(default_factory=list)  # of the parts

    def table(self, schema: pa.Schema) -> pa.Table:
        """The batches as one table."""
        return pa.Table.from_batches(self.batches, schema)


def parse_file(
    source: Source, parser: LineParser, sha: Hash, *, max_per_kind: int | None, folder: Path | None, executor: Executor
) -> ParsedFile:
    """The parsed lines of a file of the catalog; nothing if the file does not exist.

    Args:
        source: the catalog.
        parser: of the file `parser.name`.
        sha: updated with the name, size and bytes of the file, so that the digest of a catalog needs no second read.
        max_per_kind: problems of a kind that are kept of each chunk; None is all.
        folder: keeps the batches of chunks without problems as files; None keeps them in memory.
        executor: workers that parse a file of several chunks.

    Raises:
        InputError: the file cannot be read.
    """
    parsed = ParsedFile()
    name = parser.name
    if name not in source.sizes:
        return parsed
    sha.update(f"{name} {source.sizes[name]}\n".encode())
    if source.sizes[name] <= CHUNK_BYTES:
        executor = InProcess()
    shared = executor.share(parser)

    def jobs() -> Iterator[tuple[LineParser, bytes, int, int | None, Path | None]]:
        for number, (data, first) in enumerate(_chunks(source, name, sha)):
            path = None if folder is None else folder / _chunk_name(name, number)
            written = path is not None and path.exists()
            yield shared, b"" if written else data, first, max_per_kind, path

    for chunk in executor.map(_parse, jobs()):
        _add(parsed, chunk)
    return parsed


def _chunks(source: Source, name: str, sha: Hash) -> Iterator[tuple[bytes, int]]:
    """Parts of a file that end at a line end, each with the number of its first line."""
    first = 1
    try:
        with source.open(name) as file:
            while data := file.read(CHUNK_BYTES):
                data += file.readline()
                sha.update(data)
                yield data, first
                first += data.count(b"\n")
    except READ_ERRORS as error:
        raise unreadable(source.path, name, error) from None


def _parse(parser: LineParser, data: bytes, first: int, max_per_kind: int | None, path: Path | None) -> Chunk | Path:
    """One parsed chunk, or `path` where it has been written because it has no problem. Runs in worker processes."""
    if path is not None and path.exists():
        return path
    problems = Problems(parser.path, max_per_kind)
    batch, summary = parser.parse(data, first, problems)
    if path is None or problems.count:
        return Chunk(batch, summary, problems)
    write_batch(batch.replace_schema_metadata({_SUMMARY: json.dumps(summary)}), path)
    return path


def write_batch(batch: pa.RecordBatch, path: Path) -> None:
    """Writes a batch to a file, atomically."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    write_atomically(path, sink.getvalue().to_pybytes())


def open_file(folder: Path, name: str, schema: pa.Schema) -> pa.Table:
    """The rows of the file `name` whose chunks `parse_file` wrote to `folder`, memory-mapped."""
    batches = [open_batch(path) for path in chunk_paths(folder, name)]
    return pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches], schema)


def chunk_paths(folder: Path, name: str) -> list[Path]:
    """The files of the chunks of the file `name`, in order."""
    return sorted(folder.glob(_chunk_name(name, "*")))


def write_file(folder: Path, name: str, table: pa.Table) -> None:
    """Writes a table for `open_file`."""
    for number, batch in enumerate(table.to_batches()):
        write_batch(batch, folder / _chunk_name(name, number))


def _chunk_name(name: str, number: int | str) -> str:
    return f"{name.removesuffix('.jsonl')}-{number if number == '*' else f'{number:05d}'}.arrow"


def open_batch(path: Path) -> pa.RecordBatch:
    """The batch of a file, memory-mapped."""
    with pa.memory_map(os.fspath(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)


def _add(parsed: ParsedFile, chunk: Chunk | Path) -> None:
    if isinstance(chunk, Path):
        batch = open_batch(chunk)
        chunk = Chunk(batch, Summary(*json.loads(batch.schema.metadata[_SUMMARY])), Problems(chunk))
    parsed.batches.append(chunk.batch.replace_schema_metadata(None))
    parsed.lines += chunk.summary.lines
    parsed.keys.update(chunk.summary.keys)
    if chunk.problems.count:
        parsed.problems.append(chunk.problems)
