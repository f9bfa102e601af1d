"""WebDataset: tar shards in which the files of one sample share a key: 0001.jpg, 0001.txt, 0001.json, 0001.cls.

The layout is that of github.com/webdataset/webdataset (tariterators.py): a key is the path up to the first dot of the
file name, neighboring files with one key are one sample, extensions are compared in lower case. The files are read with
`tarfile` and not with that library, because its decoders unpickle (.pyd, .pth) and its opener runs shell commands that
stand in the name of a shard ("pipe:..."). Here, only images, text and JSON are read, members of a bounded size, and
nothing is extracted: a name is an id and never a path.
"""

import argparse
import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import SYNONYMS, guess, parse_choices
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.table import read_columns
from make_jax.catalog.importers.table_files import SAMPLE_ROWS
from make_jax.catalog.importers.tables import Table
from make_jax.errors import InputError
from make_jax.unique_json import DuplicateKeyError, object_of

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "text", "caption", "title", "cls", "id")
MAX_TEXT = 4 << 20  # bytes of a text or JSON file in a shard
CAPTIONS = ("txt", "caption", "text", "title")  # columns that are titles here, the first that exists


class TarShard:
    """The samples of one shard. A row has "key", "image", a value for each text file by its extension, and the values
    of the JSON object."""

    def __init__(self, path: Path) -> None:
        self.name = str(path.resolve())
        self.files: tuple[Path, ...] = (path,)

    def rows(self, start: int) -> Iterator[Row]:
        """One row a sample; a text or JSON file that cannot be read is a fault. InputError for a damaged shard."""
        path = self.files[0]
        try:
            with tarfile.open(path, "r:") as tar:
                members = (member for member in tar if member.isfile())
                keyed = ((*_key(member.name), member) for member in members)
                samples = itertools.groupby((each for each in keyed if each[0]), key=lambda each: each[0])
                for number, (key, files) in enumerate(samples):
                    if number >= start:
                        yield self._row(tar, key, [(extension, member) for _, extension, member in files])
                    else:
                        list(files)
                check_end(tar)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: cannot be read ({text}), expected a complete, uncompressed .tar") from None

    def _row(self, tar: tarfile.TarFile, key: str, files: Sequence[tuple[str, tarfile.TarInfo]]) -> Row:
        row = Row(f"{self.files[0].name}: {key}", {"key": key})
        for extension, member in files:
            if extension in IMAGES:
                row.values.setdefault("image", self._bytes(tar, member, MAX_BYTES, row))
            elif extension == "json":
                _add_json(row, member.name, self._bytes(tar, member, MAX_TEXT, row))
            elif extension in TEXTS:
                try:
                    row.values.setdefault(extension, self._bytes(tar, member, MAX_TEXT, row).decode("utf-8-sig"))
                except UnicodeDecodeError as error:
                    row.fault = row.fault or f"{member.name}: not UTF-8 at byte {error.start + 1}, expected UTF-8"
        return row

    def _bytes(self, tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int, row: Row) -> bytes:
        if member.size > limit:
            row.fault = f"{member.name}: {member.size:,} bytes, expected at most {limit:,}"
            return b""
        file = tar.extractfile(member)
        data = file.read(limit) if file else b""
        if len(data) != member.size:
            raise tarfile.ReadError(f"{member.name} is cut off")
        return data


def shards(source: Path) -> list[Path]:
    """The .tar files of a folder, or the one named. InputError without one."""
    if source.is_dir():
        found = sorted(source.rglob("*.tar"))
    else:
        found = [source] if source.suffix == ".tar" else []
    if not found:
        packed = any(source.rglob("*.tar.*")) if source.is_dir() else ".tar." in source.name or source.suffix == ".tgz"
        more = "; decompress the shards first" if packed else ""
        raise InputError(f"{source}: no .tar, expected one or a folder of them{more}")
    return found


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads the shards; prints what the values of their samples are taken as."""
    tables = [TarShard(path) for path in shards(options.source)]
    return read_samples(state, options, tables, f"WebDataset, {len(tables)} shard{'s'[: len(tables) != 1]}")


def read_samples(
    state: ImportState, options: argparse.Namespace, tables: Sequence[Table], how: str, ignored: Sequence[str] = ()
) -> BenchmarkInfo:
    """Reads samples with "key", "image" and a caption. A caption is the title; there are no queries and clicks.

    `ignored` columns describe the download and not the product.
    """
    first = list(itertools.islice((row for table in tables for row in table.rows(0)), SAMPLE_ROWS))
    sample = [row for row in first if not row.fault]
    columns = list(dict.fromkeys(name for row in sample for name in row.values))
    if not columns:
        found = f"{first[0].place}: {first[0].fault}" if first else "no sample, expected files like 1.jpg and 1.txt"
        raise InputError(f"{options.source}: {found}")
    known = {"id": ["key"], "image": ["image"], "ignored": list(ignored)}
    if not any(name in SYNONYMS["title"].split() for name in columns):
        known["title"] = [name for name in CAPTIONS if name in columns][:1]
    if _are_names([row.values.get("cls") for row in sample]):
        known["category"] = ["cls"]
    guessed = guess(options.source, columns, sample, parse_choices(options.columns, columns), known)
    return read_columns(state, options, tables, guessed, how)


def check_end(tar: tarfile.TarFile) -> None:
    """Raises ReadError unless the members end at the block of zeros that ends an archive; tarfile takes a cut or
    damaged header for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut off or damaged after its last readable file")


def _key(name: str) -> tuple[str, str]:
    """Key and extension of a member; an empty key for one that is no part of a sample."""
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    return (folder + slash + stem if stem and dot else ""), extension.lower()


def _are_names(values: Sequence[Any]) -> bool:
    """Whether class labels are names; a number says nothing without the list of classes."""
    texts = [value.strip() for value in values if isinstance(value, str)]
    return bool(texts) and not all(text.isdecimal() for text in texts)


def _add_json(row: Row, name: str, data: bytes) -> None:
    """Adds the values of a JSON object; those of the sample's other files come first."""
    if row.fault:
        return
    try:
        values = json.loads(data.decode("utf-8-sig"), object_pairs_hook=object_of)
    except UnicodeDecodeError as error:
        row.fault = f"{name}: not UTF-8 at byte {error.start + 1}, expected UTF-8"
    except DuplicateKeyError as error:
        row.fault = f"{name}: {error}"
    except (ValueError, RecursionError) as error:
        row.fault = f"{name}: not JSON ({error}), expected one object"
    else:
        if isinstance(values, dict):
            row.values = {**values, **row.values}
        else:
            row.fault = f"{name}: not an object, expected one JSON object"
