"""Opens a table by its file name extension: CSV, TSV, JSON lines, Parquet or Excel."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from make_jax.catalog.importers.cells import plain_value
from make_jax.catalog.importers.excel import Sheet
from make_jax.catalog.importers.parquet_pages import batch_rows
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Parquet, Table
from make_jax.catalog.importers.text_tables import delimited, json_lines
from make_jax.errors import InputError

SAMPLE_ROWS = 1000  # rows from which columns are guessed
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet", ".xlsx")


@dataclass(frozen=True)
class OpenTable:
    """A table, its columns in order, and how it is read ("UTF-8, separated by comma")."""

    table: Table
    columns: tuple[str, ...]
    how: str

    @property
    def file(self) -> Path:
        """The first file, for messages."""
        return self.table.files[0]

    def sample(self) -> list[Row]:
        """The first SAMPLE_ROWS readable rows."""
        return list(itertools.islice((row for row in self.table.rows(0) if not row.fault and row.values), SAMPLE_ROWS))


def open_table(path: Path, encoding: str = "", separator: str = "", sheet: str = "") -> OpenTable:
    """Opens a file, or the Parquet files of a folder. Options that do not apply to its format are ignored.

    Raises InputError for a file that cannot be read, has an unknown extension, or has two columns of one name.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".parquet":
        opened = _parquet(sorted(path.glob("*.parquet")) if path.is_dir() else [path], path)
    elif suffix == ".xlsx":
        book = Sheet(path, sheet)
        others = [name for name in book.sheets if name != book.sheet]
        ignored = f"; not read: {', '.join(others)} (option --sheet)" if others else ""
        opened = OpenTable(book, tuple(book.columns), f"sheet {book.sheet}{ignored}")
    elif suffix in (".jsonl", ".ndjson"):
        lines, how = json_lines(path, encoding)
        first = OpenTable(lines, (), how)
        opened = OpenTable(lines, tuple(dict.fromkeys(key for row in first.sample() for key in row.values)), how)
    elif suffix in SUFFIXES:
        table, how = delimited(path, encoding, separator)
        opened = OpenTable(table, tuple(table.header()), how)
    else:
        old = "; save the old Excel format as .xlsx" if suffix in (".xls", ".ods") else ""
        raise InputError(f"{path}: extension {suffix!r}, expected one of {', '.join(SUFFIXES)}{old}")
    if not any(opened.columns):
        raise InputError(f"{path}: no columns, expected a header and rows")
    if odd := next((name for name in opened.columns if not name.isascii() and not _is_unicode(name)), None):
        raise InputError(f"{path}: half of a surrogate pair in the column {odd!a}, expected valid Unicode")
    twice = [name for name, count in Counter(opened.columns).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path}: the column {twice[0]!r} occurs twice, expected each name once; rename one")
    return opened


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _PlainParquet(Parquet):
    """Parquet with the values of a text table: decimals are numbers, dates and times are texts."""

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record."""
        for row in super().rows(start):
            row.values = {name: plain_value(value) for name, value in row.values.items()}
            yield row


def _parquet(files: list[Path], path: Path) -> OpenTable:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    if not files:
        raise InputError(f"{path}: a folder without .parquet files, expected a file or a folder of Parquet files")
    names: list[str] = []
    for file in files:
        try:
            with parquet.ParquetFile(file) as opened:
                names += [name for name in opened.schema_arrow.names if name not in names]
                batch_rows(file, opened.metadata, opened.schema_arrow.names)  # checks the sizes of cells
        except (pyarrow.ArrowException, OSError) as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: cannot be read ({text}), expected a complete Parquet file") from None
    how = f"Parquet, {len(files)} files" if len(files) > 1 else "Parquet"
    return OpenTable(_PlainParquet(files, (), names), tuple(names), how)
