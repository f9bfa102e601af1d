"""The files that benchmarks are published in: row by row, from any row on, in memory that does not grow with them."""

import csv
import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from make_jax.catalog.importers.rows import Row
from make_jax.errors import InputError

MAX_LINE = 96 << 20  # bytes; a picture of images.MAX_BYTES in base64 fits
_BLOCK = 1 << 20  # characters of JSON that are read at a time
_SPACE = re.compile(r"\s*")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")


@runtime_checkable
class Table(Protocol):
    """Rows in an order that does not change."""

    name: str
    files: tuple[Path, ...]

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on, from 0."""


def published(path: Path) -> Path:
    """The path, if it is there. InputError else."""
    if not path.exists():
        raise InputError(f"{path}: not found, expected it as published (option --source)")
    return path


class Lines:
    """Lines of text in UTF-8. A row has one value, "line"."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.files: tuple[Path, ...] = (published(path),)

    def rows(self, start: int) -> Iterator[Row]:
        """One row a line. Lines that are not UTF-8, or too long, come as faults."""
        with self.files[0].open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                if number <= start:
                    continue
                text, fault = "", ""
                try:
                    text = line.decode("utf-8").removeprefix("\ufeff" if number == 1 else "")
                except UnicodeDecodeError as error:
                    fault = f"not UTF-8 at byte {error.start + 1}, expected UTF-8"
                if len(line) == MAX_LINE:
                    raise InputError(f"{self.files[0]}:{number}: more than {MAX_LINE:,} bytes, expected a shorter line")
                yield Row(f"{self.name}:{number}", {"line": text}, fault)


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)
        self.name = self._lines.name
        self.files = self._lines.files

    def rows(self, start: int) -> Iterator[Row]:
        """One row a line; a line that is no object comes as a fault, an empty one as a row without values."""
        for row in self._lines.rows(start):
            line, row.values = row.values["line"], {}
            if row.fault or line.isspace():
                yield row
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                row.fault = f"not JSON ({error}), expected one object"
            else:
                row.values = found if isinstance(found, dict) else {}
                row.fault = "" if isinstance(found, dict) else "not an object, expected one JSON object"
            yield row


class Csv:
    """A file of separated values whose first line names the columns.

    With `rest`, the last column takes what separators in it have cut off; else another number of fields is a fault.
    """

    def __init__(self, path: Path, columns: Sequence[str], separator: str = ",", rest: bool = False) -> None:
        self._lines = Lines(path)
        self.name = self._lines.name
        self.files = self._lines.files
        self._columns, self._separator, self._rest = tuple(columns), separator, rest

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record, placed at its first line."""
        faults: list[str] = []

        def decoded() -> Iterator[str]:
            for row in self._lines.rows(0):
                faults.extend([row.fault] if row.fault else [])
                yield row.values["line"]

        csv.field_size_limit(MAX_LINE)
        reader = csv.reader(decoded(), delimiter=self._separator)
        try:
            header = [column.strip() for column in next(reader, [])]
            missing = _missing(self._columns, header)
            if faults or missing:
                raise InputError(f"{self.files[0]}:1: {(faults or [missing])[0]}")
            number, line = 0, reader.line_num + 1
            for fields in reader:
                if fields or faults:
                    if number >= start:
                        yield self._row(f"{self.name}:{line}", header, fields, faults)
                    number += 1
                faults.clear()
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{self.files[0]}:{reader.line_num}: {error}, expected separated values") from None

    def _row(self, place: str, header: list[str], fields: list[str], faults: list[str]) -> Row:
        if faults:
            return Row(place, {}, faults[0])
        last = len(header) - 1
        if self._rest and len(fields) > len(header):
            fields = [*fields[:last], self._separator.join(fields[last:]).rstrip(self._separator)]
        if len(fields) != len(header):
            return Row(place, {}, f"{len(fields)} fields, expected {len(header)}")
        return Row(place, dict(zip(header, fields, strict=True)))


class JsonMembers:
    """The members of one JSON object that may be larger than memory. A row's values are a member's; "key" is added."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.files: tuple[Path, ...] = (published(path),)

    def rows(self, start: int) -> Iterator[Row]:
        """One row a member. InputError for a file that is not one JSON object of objects."""
        with self.files[0].open(encoding="utf-8") as file:
            try:
                for number, (key, value) in enumerate(_members(file)):
                    if number < start:
                        continue
                    place = f"{self.name}: {json.dumps(key, ensure_ascii=False)}"
                    if isinstance(value, dict):
                        yield Row(place, {**value, "key": key})
                    else:
                        yield Row(place, {}, "not an object, expected one JSON object")
            except UnicodeDecodeError as error:
                raise InputError(f"{self.files[0]}: not UTF-8 ({error.reason}), expected UTF-8") from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self.files[0]}: not JSON ({error}), expected one object") from None


class Parquet:
    """Parquet files one after the other; of the columns only those named. `optional` ones may be absent."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str], optional: Sequence[str] = ()) -> None:
        self.name = files[0].parent.name if len(files) > 1 else files[0].name
        self.files: tuple[Path, ...] = tuple(published(file) for file in files)
        self._columns, self._optional = tuple(columns), tuple(optional)

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record, numbered from 1 in each file."""
        import pyarrow  # type: ignore[import-untyped]

        for file in self.files:
            try:
                skipped = yield from self._of_file(file, start)
            except (pyarrow.ArrowException, OSError) as error:
                text = " ".join(str(error).split())[:200]
                raise InputError(f"{file}: cannot be read ({text}), expected a whole Parquet file") from None
            start -= skipped

    def _of_file(self, path: Path, start: int) -> Generator[Row, None, int]:
        """Yields the rows from `start` on; returns how many of the rows before it are in this file."""
        from pyarrow import parquet

        with parquet.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            if missing := _missing(self._columns, names):
                raise InputError(f"{path}: {missing}")
            columns = [name for name in (*self._columns, *self._optional) if name in names]
            number = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number + size <= start:  # whole groups are passed over unread
                    number += size
                    continue
                for batch in file.iter_batches(batch_size=64, row_groups=[group], columns=columns):
                    for values, fault in _records(batch):
                        number += 1
                        if number > start:
                            yield Row(f"{path.name}: row {number}", values, fault)
            return min(start, number)


def shards(folder: Path, prefix: str) -> list[Path]:
    """The files "<prefix>-00000-of-00003*.parquet" of a Hugging Face data set. InputError when one lacks."""
    folder = folder / "data" if (folder / "data").is_dir() else folder
    files = sorted(folder.glob(f"{prefix}-*.parquet"))
    if not files:
        raise InputError(f"{folder}: no {prefix}-*.parquet, expected the Parquet files as published (option --source)")
    found = [(int(match[1]), int(match[2])) for file in files if (match := _SHARD.search(file.name))]
    for number in range(max((of for _, of in found), default=0)):
        if number not in {place for place, _ in found}:
            raise InputError(f"{folder}: {prefix}-{number:05d}-of-{found[0][1]:05d} is missing, expected all of them")
    return files


def _missing(columns: Sequence[str], found: Sequence[str]) -> str:
    """What to say of columns that are not there; "" when all are."""
    missing = [column for column in columns if column not in found]
    return f"no column {missing[0]!r} among {', '.join(found)[:200]}" if missing else ""


def _records(batch: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The records of a batch with the fault of each; text that is not UTF-8 spoils its own record only."""
    try:
        yield from ((values, "") for values in batch.to_pylist())
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0], ""
            except UnicodeDecodeError as error:
                yield {}, f"not UTF-8 ({error.reason}), expected UTF-8"


def _members(file: IO[str]) -> Iterator[tuple[str, Any]]:
    """Key and value of each member of the JSON object in a file."""
    decode = json.JSONDecoder().raw_decode
    text, at = file.read(_BLOCK), 0

    def take(parse: Callable[[str, int], tuple[Any, int]]) -> Any:
        """What `parse` finds at the place, reading on when the text may end inside it."""
        nonlocal text, at
        while True:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it always matches
            try:
                found, end = parse(text, at)
                if end < len(text):
                    at = end
                    return found
            except ValueError:
                if len(text) - at > MAX_LINE:
                    raise
            more = file.read(max(_BLOCK, len(text) - at))
            if not more:
                found, at = parse(text, at)
                return found
            text, at = text[at:] + more, 0

    def sign(text: str, at: int) -> tuple[str, int]:
        if at >= len(text):
            raise ValueError("it ends too early")
        return text[at], at + 1

    if take(sign) != "{":
        raise ValueError("it does not begin with {")
    while True:
        key = take(decode)
        if not isinstance(key, str) or take(sign) != ":":
            raise ValueError("a member without key")
        yield key, take(decode)
        follows = take(sign)
        if follows == "}":
            return
        if follows != ",":
            raise ValueError(f"found {follows!r} between two members")
