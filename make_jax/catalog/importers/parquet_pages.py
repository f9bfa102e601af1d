"""Checks the sizes of a Parquet file's pages before pyarrow reads one: it holds a page three to four times in memory.

pyarrow gives the sizes of column chunks only, and neither their statistics nor a size tell one huge cell from many
small ones. The page headers do; they precede each page, in the compact protocol of Thrift (parquet.thrift of
github.com/apache/parquet-format; thrift-compact-protocol.md of github.com/apache/thrift).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from make_jax.errors import InputError

MAX_CELL = 96 << 20  # bytes; fits a base64 image of images.MAX_BYTES
MAX_PAGE = 512 << 20  # bytes of an unpacked page, of which pyarrow writes one for up to 1,024 cells
MAX_LISTS = 2 << 30  # bytes of a column of lists in one row group: a list may continue in the next page
BATCH_ROWS = 64  # rows read together
_MAX_HEADER = 16 << 20  # bytes of a page header, which may hold the least and the largest value
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_VALUES = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # field of the header whose field 1 is the number of values


@dataclass(frozen=True)
class _Page:
    kind: int
    size: int  # bytes when unpacked
    values: int


def batch_rows(path: Path, metadata: Any, columns: Collection[str]) -> int:
    """The number of rows of `columns` that may be read together, at most BATCH_ROWS: fewer if values that many rows may
    share are large. `metadata` is that of pyarrow.parquet.ParquetFile.

    Raises InputError for a cell of more than MAX_CELL bytes, if its page shows it, and for a page over MAX_PAGE.
    """
    largest, before = 0, 0
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for number in range(row_group.num_columns):
                column = row_group.column(number)
                if column.path_in_schema.partition(".")[0] in columns:
                    is_list = metadata.schema.column(number).max_repetition_level > 0
                    rows = (before, row_group.num_rows)
                    largest = max(largest, _check_column(path, file, column, rows, is_list))
            before += row_group.num_rows
    return max(1, min(BATCH_ROWS, MAX_PAGE // max(1, largest)))


def _check_column(path: Path, file: IO[bytes], column: Any, rows: tuple[int, int], is_list: bool) -> int:
    """The size of the column's dictionary in a row group; `rows` are those before the group, and in it."""
    first, count = rows
    name, dictionary, done = column.path_in_schema.partition(".")[0], 0, 0
    if is_list and count and (column.total_uncompressed_size > max(MAX_LISTS, count * MAX_CELL)):
        text = f"{column.total_uncompressed_size:,} bytes of lists, expected at most {MAX_LISTS:,} in a row group"
        raise InputError(f"{path}: column {name!r}, rows {first + 1:,} to {first + count:,}: {text}")
    for page in _pages(path, file, column):
        at = (first + 1, first + count)
        if page.kind == _DICTIONARY:
            dictionary = page.size
        else:
            at = at if is_list else (first + done + 1, first + done + page.values)
            done += page.values
        found = f"{path}: column {name!r}, row{f's {at[0]:,} to' if at[0] < at[1] else ''} {at[1]:,}"
        if page.size > MAX_CELL * max(1, page.values):
            raise InputError(f"{found}: a cell of {page.size // max(1, page.values):,} bytes or more, "
                             f"expected at most {MAX_CELL:,}")  # fmt: skip
        if page.size > MAX_PAGE:
            text = f"one page of {page.size:,} bytes, expected at most {MAX_PAGE:,}"
            raise InputError(f"{found}: {text}; write the file with smaller pages (pyarrow: write_batch_size=16)")
    return dictionary


def _pages(path: Path, file: IO[bytes], column: Any) -> Iterator[_Page]:
    """The pages of a column in one row group, in order. Raises InputError for a damaged header."""
    offset, values = column.data_page_offset, 0
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < offset:
        offset = column.dictionary_page_offset
    while values < column.num_values:
        length = 1 << 10
        while True:
            file.seek(offset)
            header = _Thrift(file.read(length))
            try:
                fields = header.struct()
                kind, size, packed = (fields[number] for number in (1, 2, 3))
                page = _Page(kind, size, fields.get(_VALUES.get(kind, 0), {}).get(1, 0))
                if min(size, packed, page.values) < 0 or (page.kind in (_DATA, _DATA_V2) and not page.values):
                    raise ValueError("a size that is not positive")
                break
            except IndexError:  # the header is longer, or cut off
                if len(header.data) < length or length >= _MAX_HEADER:
                    raise _damaged(path, column, offset, "it is cut off") from None
                length *= 16
            except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
                raise _damaged(path, column, offset, str(error)) from None
        yield page
        values += page.values if page.kind in (_DATA, _DATA_V2) else 0
        offset += header.at + packed


def _damaged(path: Path, column: Any, offset: int, text: str) -> InputError:
    place = f"the page header of column {column.path_in_schema!r} at byte {offset:,}"
    return InputError(f"{path}: cannot be read ({place}: {text}), expected a complete Parquet file")


class _Thrift:
    """Reads one struct in Thrift's compact protocol. IndexError if `data` ends within it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        """Integers and structs by the number of their field; other values are skipped."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):  # true, false
            return None
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 12:
            return self.struct()
        if kind in (3, 7):  # byte, double
            self._skip(1 if kind == 3 else 8)
        elif kind == 8:
            self._skip(self._varint())
        elif kind in (9, 10):  # list, set
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._skip(1) if head & 15 in (1, 2) else self._value(head & 15)
        else:
            raise ValueError(f"the unknown type {kind}")
        return None

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise IndexError
