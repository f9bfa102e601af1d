"""Row-by-row readers of published files (CSV, JSON, Parquet): start at any row, in bounded memory."""

import contextlib
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from make_jax.catalog.importers.parquet_pages import MAX_CELL, batch_rows
from make_jax.catalog.importers.rows import Row
from make_jax.errors import InputError
from make_jax.unique_json import DuplicateKeyError, object_of

MAX_LINE = MAX_CELL  # bytes of a line of text
_BLOCK = 1 << 20  # characters per read of a large JSON file
MAX_LINES = 100_000  # of one quoted field, with all of which memory holds until its quote is closed
_UNCLOSED = "a quote opens a field and none closes it, expected two quotes around a field of at most 100,000 lines"
_SPACE = re.compile(r"\s*")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")


@runtime_checkable
class Table(Protocol):
    """Rows in a fixed order."""

    name: str
    files: tuple[Path, ...]

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` (from 0) to the end."""


def existing_file(path: Path) -> Path:
    """The path. Raises InputError if it does not exist."""
    if not path.exists():
        raise InputError(f"{path}: not found, expected it as published (SOURCE)")
    return path


class TextLines:
    """Lines of text. A row has one value, "line"."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self.name = path.name
        self.files: tuple[Path, ...] = (existing_file(path),)
        self._encoding = encoding

    def rows(self, start: int) -> Iterator[Row]:
        """One row a line; a line that is not UTF-8 has a fault. Raises InputError for a line over MAX_LINE, or one
        that is not in the encoding if that is another."""
        for number, (line, fault) in enumerate(self._utf8() if self._encoding == "utf-8" else self._decoded(), 1):
            if number > start:
                yield Row(f"{self.name}:{number}", {"line": line}, fault)

    def _utf8(self) -> Iterator[tuple[str, str]]:
        """Each line and its fault: a wrong byte affects its own line only."""
        with self.files[0].open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                self._check_length(number, len(line))
                try:
                    yield line.decode("utf-8").removeprefix("\ufeff" if number == 1 else ""), ""
                except UnicodeDecodeError as error:
                    yield "", f"not UTF-8 at byte {error.start + 1}, expected UTF-8"

    def _decoded(self) -> Iterator[tuple[str, str]]:
        number = 0
        with self.files[0].open(encoding=self._encoding, newline="\n") as file:
            try:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
                    self._check_length(number, len(line))
                    yield line.removeprefix("\ufeff" if number == 1 else ""), ""
            except UnicodeError as error:
                text = f"not {self._encoding} ({error}), expected that encoding (option --encoding)"
                raise InputError(f"{self.files[0]}: after line {number}: {text}") from None

    def _check_length(self, number: int, length: int) -> None:
        if length >= MAX_LINE:
            raise InputError(f"{self.files[0]}:{number}: more than {MAX_LINE:,} bytes, expected a shorter line")


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self._lines = TextLines(path, encoding)
        self.name = self._lines.name
        self.files = self._lines.files

    def rows(self, start: int) -> Iterator[Row]:
        """One row a line; a line that is not an object has a fault, a blank one has no values."""
        for row in self._lines.rows(start):
            line, row.values = row.values["line"], {}
            if row.fault or line.isspace():
                yield row
                continue
            try:
                value = json.loads(line, object_pairs_hook=object_of)
            except DuplicateKeyError as error:
                row.fault = str(error)
            except (ValueError, RecursionError) as error:
                row.fault = f"not JSON ({error}), expected one object"
            else:
                row.values = value if isinstance(value, dict) else {}
                row.fault = "" if isinstance(value, dict) else "not an object, expected one JSON object"
            yield row


class Csv:
    """A file of separated values with a header line.

    `join_excess` appends surplus fields to the last column, for unquoted separators in it; otherwise a wrong number of
    fields is a fault, unless `pad` takes missing last fields as empty: Excel does not write them. `skip` lines stand
    before the header.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        separator: str = ",",
        join_excess: bool = False,
        encoding: str = "utf-8",
        skip: int = 0,
        pad: bool = False,
    ) -> None:
        self._lines = TextLines(path, encoding)
        self._skip, self._pad = skip, pad
        self.name = self._lines.name
        self.files = self._lines.files
        self._columns, self._separator, self._join_excess = tuple(columns), separator, join_excess

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record; its place is its first line. An opened quote without its closing quote is a fault of its
        line alone: the next record is the next line."""
        records = self._records()
        header = self._header(records)
        for number, (line, fields, fault) in enumerate(records):
            if number >= start:
                yield self._row(f"{self.name}:{line}", header, fields, fault)

    def header(self) -> list[str]:
        """The names of the columns. Raises InputError if one of `columns` is missing."""
        return self._header(self._records())

    def _header(self, records: Iterator[tuple[int, list[str], str]]) -> list[str]:
        line, header, fault = next(records, (self._skip + 1, [], ""))
        header = [column.strip() for column in header]
        if text := fault or _missing(self._columns, header):
            raise InputError(f"{self.files[0]}:{line}: {text}")
        return header

    def _records(self) -> Iterator[tuple[int, list[str], str]]:
        """First line, fields and fault of each record; blank lines are no records."""
        csv.field_size_limit(MAX_LINE)
        lines = enumerate(self._lines.rows(self._skip), self._skip + 1)
        unread: deque[tuple[int, Row]] = deque()
        width = 0  # fields of the header
        while following := unread.popleft() if unread else next(lines, None):
            number, first = following
            fields, fault = self._record(first, unread, lines, width)
            width = width or len(fields)
            if fields or fault:
                yield number, fields, fault

    def _record(
        self, first: Row, unread: deque[tuple[int, Row]], lines: Iterator[tuple[int, Row]], width: int
    ) -> tuple[list[str], str]:
        """Fields and fault of the record that begins with the line `first`. Takes the further lines of a quoted field
        from `unread` and `lines`, and returns them to `unread` if its quote is not closed."""
        taken: list[tuple[int, Row]] = []

        def texts() -> Iterator[str]:
            yield first.values["line"]
            while len(taken) < MAX_LINES and (following := unread.popleft() if unread else next(lines, None)):
                taken.append(following)
                yield following[1].values["line"]

        if first.fault:
            return [], first.fault
        try:
            fields = next(csv.reader(texts(), delimiter=self._separator, strict=True))
        except csv.Error:
            unread.extendleft(reversed(taken))
            return self._single_line(first.values["line"])
        rows = [first, *(row for _, row in taken)]
        if taken and self._unclosed([row.values["line"] for row in rows], fields, width):
            unread.extendleft(reversed(taken))
            return [], _UNCLOSED
        return fields, next((row.fault for row in rows if row.fault), "")

    def _single_line(self, line: str) -> tuple[list[str], str]:
        """Fields and fault of a line whose quotes are not as in the format; text after a closing quote is accepted."""
        try:
            fields = next(csv.reader([line.rstrip("\r\n") + "\n"], delimiter=self._separator))
        except csv.Error as error:
            return [], f"{error}, expected separated values"
        return ([], _UNCLOSED) if fields and fields[-1].endswith("\n") else (fields, "")

    def _unclosed(self, lines: list[str], fields: list[str], width: int) -> bool:
        """Whether a record of several lines is several records, the first with an unclosed quote: it has a wrong
        number of fields, or each of its lines alone has the right one."""

        def fits(count: int) -> bool:
            return count == width or (self._join_excess and count > width)

        return bool(width) and (not fits(len(fields)) or all(fits(line.count(self._separator) + 1) for line in lines))

    def _row(self, place: str, header: list[str], fields: list[str], fault: str) -> Row:
        if fault:
            return Row(place, {}, fault)
        last = len(header) - 1
        if self._join_excess and len(fields) > len(header):
            fields = [*fields[:last], self._separator.join(fields[last:]).rstrip(self._separator)]
        missing = len(header) - len(fields)
        if missing < 0 or (missing and not self._pad):
            return Row(place, {}, f"{len(fields)} fields, expected {len(header)}")
        row = Row(place, dict(zip(header, [*fields, *[""] * missing], strict=True)))
        row.padded = missing > 0
        return row


class JsonMembers:
    """The members of a JSON object larger than memory. A row has the values of one member, and its "key"."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.files: tuple[Path, ...] = (existing_file(path),)

    def rows(self, start: int) -> Iterator[Row]:
        """One row a member. Raises InputError if the file is not one JSON object."""
        with self.files[0].open(encoding="utf-8-sig") as file:
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
            except DuplicateKeyError as error:
                raise InputError(f"{self.files[0]}: {error}") from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self.files[0]}: not JSON ({error}), expected one object") from None


class Parquet:
    """The given columns of several Parquet files, concatenated. `optional` columns may be absent."""

    def __init__(self, files: Sequence[Path], columns: Sequence[str], optional: Sequence[str] = ()) -> None:
        self.name = files[0].parent.name if len(files) > 1 else files[0].name
        self.files: tuple[Path, ...] = tuple(existing_file(file) for file in files)
        self._columns, self._optional = tuple(columns), tuple(optional)

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record; places count from 1 in each file."""
        import pyarrow  # type: ignore[import-untyped]

        for file in self.files:
            try:
                skipped = yield from self._of_file(file, start)
            except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: a time in nanoseconds
                text = " ".join(str(error).split())[:200]
                raise InputError(f"{file}: cannot be read ({text}), expected a complete Parquet file") from None
            start -= skipped

    def _of_file(self, path: Path, start: int) -> Generator[Row, None, int]:
        """Yields the rows from `start` on; returns the number of skipped rows."""
        from pyarrow import parquet

        # With buffer_size, memory holds a page of each column, not its part of a row group.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BLOCK) as file:
            names = file.schema_arrow.names
            if missing := _missing(self._columns, names):
                raise InputError(f"{path}: {missing}")
            columns = [name for name in (*self._columns, *self._optional) if name in names]
            size = batch_rows(path, file.metadata, columns)
            number = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if number + count <= start:  # skipped without reading
                    number += count
                    continue
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=columns):
                    for values, fault in records(batch):
                        number += 1
                        if number > start:
                            yield Row(f"{path.name}: row {number}", values, fault)
            return min(start, number)


def shards(folder: Path, prefix: str) -> list[Path]:
    """The files "<prefix>-00000-of-00003*.parquet" of a Hugging Face dataset. Raises InputError if one is missing."""
    folder = folder / "data" if (folder / "data").is_dir() else folder
    files = sorted(folder.glob(f"{prefix}-*.parquet"))
    if not files:
        raise InputError(f"{folder}: no {prefix}-*.parquet, expected the Parquet files as published (SOURCE)")
    numbered = [(int(match[1]), int(match[2])) for file in files if (match := _SHARD.search(file.name))]
    for number in range(max((total for _, total in numbered), default=0)):
        if number not in {present for present, _ in numbered}:
            raise InputError(
                f"{folder}: {prefix}-{number:05d}-of-{numbered[0][1]:05d} is missing, expected all of them"
            )
    return files


def _missing(columns: Sequence[str], present: Sequence[str]) -> str:
    """The message about the first missing column; "" if all are present."""
    missing = [column for column in columns if column not in present]
    return f"no column {missing[0]!r} among {', '.join(present)[:200]}" if missing else ""


def records(batch: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The records of an Arrow batch, each with its fault: invalid UTF-8, or a cell over MAX_CELL bytes, of which
    no copy is made. A fault affects its own record only."""
    if batch.nbytes <= MAX_CELL:
        with contextlib.suppress(UnicodeDecodeError):
            yield from [(values, "") for values in batch.to_pylist()]
            return
    for number in range(batch.num_rows):
        record = batch.slice(number, 1)
        sizes = zip(record.schema.names, (column.nbytes for column in record.columns), strict=True)
        if large := next(((name, size) for name, size in sizes if size > MAX_CELL), None):
            yield {}, f"column {large[0]!r}: a cell of {large[1]:,} bytes, expected at most {MAX_CELL:,}"
            continue
        try:
            yield record.to_pylist()[0], ""
        except UnicodeDecodeError as error:
            yield {}, f"not UTF-8 ({error.reason}), expected UTF-8"


def _members(file: IO[str]) -> Iterator[tuple[str, Any]]:
    """Key and value of each member of the JSON object in a file. json has no incremental parser."""
    decode = json.JSONDecoder(object_pairs_hook=object_of).raw_decode
    text, at = file.read(_BLOCK), 0

    def take(parse: Callable[[str, int], tuple[Any, int]]) -> Any:
        """The value that `parse` reads at `at`; reads more text if the value may continue beyond it."""
        nonlocal text, at
        while True:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # always matches
            try:
                value, end = parse(text, at)
                if end < len(text):
                    at = end
                    return value
            except DuplicateKeyError:
                raise
            except ValueError:
                if len(text) - at > MAX_LINE:
                    raise
            more = file.read(max(_BLOCK, len(text) - at))
            if not more:
                value, at = parse(text, at)
                return value
            text, at = text[at:] + more, 0

    def symbol(text: str, at: int) -> tuple[str, int]:
        if at >= len(text):
            raise ValueError("it ends too early")
        return text[at], at + 1

    if take(symbol) != "{":
        raise ValueError("it does not begin with {")
    while True:
        key = take(decode)
        if not isinstance(key, str) or take(symbol) != ":":
            raise ValueError("a member without key")
        yield key, take(decode)
        separator = take(symbol)
        if separator == "}":
            return
        if separator != ",":
            raise ValueError(f"found {separator!r} between two members")
