"""Reads a sheet of an Excel workbook (.xlsx) row by row.

openpyxl reads the stored values of formulas, with defusedxml, which it uses when it is installed: a workbook that
declares XML entities is rejected. The sizes that the zip states are checked first, and that no text is longer than
MAX_TEXT, of which the parser would hold several copies [ours].
"""

import contextlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openpyxl
from defusedxml import DefusedXmlException

from make_jax.catalog.importers.cells import plain_value
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import existing_file
from make_jax.catalog.source import READ_ERRORS
from make_jax.errors import InputError

MAX_XML = 1 << 30  # bytes of one unpacked part; openpyxl holds the table of shared texts in memory
MAX_TEXT = 1 << 20  # bytes between two tags; a cell has at most 32,767 characters
MAX_RATIO = 500  # unpacked over packed bytes of a part larger than 1 MiB; XML packs well
_FIX = "open it in Excel or LibreOffice and save it again as .xlsx"
_BLOCK = 1 << 20  # bytes that are searched at once
_CELL = re.compile(rb'<c r="([A-Z]{1,3}\d+)"')
_ERROR = re.compile(r"#(N/A|REF!|VALUE!|DIV/0!|NAME\?|NUM!|NULL!)")


class Sheet:
    """The rows of one sheet below its header, which is the first row that is not empty.

    Numbers, booleans and texts keep their type; dates become ISO 8601 texts. `sheet` "" is the first sheet.
    """

    def __init__(self, path: Path, sheet: str = "") -> None:
        self.name = path.name
        self.files: tuple[Path, ...] = (existing_file(path),)
        _check_zip(path)
        with _open(path) as (values, _):
            self.sheets: list[str] = [each.title for each in values.worksheets]
            if sheet and sheet not in self.sheets:
                names = ", ".join(self.sheets)
                raise InputError(f"{path}: no sheet {sheet!r}, expected one of {names} (option --sheet)")
            if not self.sheets:
                raise InputError(f"{path}: no sheet with rows, expected one")
            self.sheet = sheet or self.sheets[0]
            self.columns, self._header_row = self._header(values[self.sheet])

    def rows(self, start: int) -> Iterator[Row]:
        """One row a line of the sheet that is not empty; a formula without a stored value is a fault."""
        first = self._header_row + 1
        with _open(self.files[0]) as books:
            values, formulas = (book[self.sheet].iter_rows(min_row=first) for book in books)
            number = 0
            for line, (cells, sources) in enumerate(zip(values, formulas, strict=True), first):
                if all(cell.value is None for cell in (*cells, *sources)):
                    continue
                number += 1
                if number > start:
                    yield self._row(line, cells, sources)

    def _row(self, line: int, cells: Any, sources: Any) -> Row:
        place = f"{self.name}: {self.sheet}: row {line}"
        values: dict[str, Any] = {}
        for position, (cell, source) in enumerate(zip(cells, sources, strict=True)):
            if position >= len(self.columns):
                if cell.value is not None:
                    return Row(place, {}, f"{cell.coordinate}: a value without a header, expected {len(self.columns)}")
                continue
            value = cell.value
            if value is None and source.data_type == "f":
                text = f"{source.coordinate}: a formula ({str(source.value)[:40]}) without a stored value"
                return Row(place, {}, f"{text}; {_FIX}")
            values[self.columns[position]] = _value(value, cell.data_type)
        return Row(place, {name: values.get(name) for name in self.columns})

    def _header(self, sheet: Any) -> tuple[list[str], int]:
        for line, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            names = ["" if cell is None else str(cell).strip() for cell in cells]
            if any(names):
                while not names[-1]:
                    names.pop()
                return names, line
        raise InputError(f"{self.files[0]}: the sheet {self.sheet!r} is empty, expected a header (option --sheet)")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """The workbook with the stored values of formulas, and with the formulas. What openpyxl raises for a damaged or
    malicious workbook becomes InputError."""
    try:
        with path.open("rb") as values, path.open("rb") as formulas:  # openpyxl leaves a file open after an error
            books = [openpyxl.load_workbook(values, read_only=True, data_only=True)]
            books.append(openpyxl.load_workbook(formulas, read_only=True))
            for sheet in (sheet for book in books for sheet in book.worksheets):
                sheet.reset_dimensions()  # what the file states may be wrong
            yield books[0], books[1]
    except InputError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, DefusedXmlException):  # openpyxl wraps what the parser raises
            cause = cause.__cause__ or cause.__context__
        if cause:
            text = "declares XML entities, which can expand without bound"
            raise InputError(f"{path}: {text}; {_FIX}") from None
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path}: cannot be read ({text}), expected an Excel workbook; {_FIX}") from None


def _value(value: Any, kind: str) -> Any:
    """A cell's value as text, number or boolean; an error such as #N/A is no value."""
    if kind == "e" or (isinstance(value, str) and _ERROR.fullmatch(value)):
        return None
    return plain_value(value)


def _check_zip(path: Path) -> None:
    """Raises InputError for what is no .xlsx, and for parts that unpack to more than MAX_XML or MAX_RATIO."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(path, entries)
            for entry in entries:
                if entry.filename.endswith((".xml", ".rels")):
                    _check_texts(path, archive, entry.filename)
    except READ_ERRORS as error:
        raise InputError(f"{path}: cannot be read ({error}), expected an Excel workbook (.xlsx)") from None


def _check_texts(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raises InputError for a text of a part that is longer than MAX_TEXT by a block."""
    since, cell = 0, ""  # bytes since a tag, the last cell of a sheet
    with archive.open(name) as part:
        while block := part.read(_BLOCK):
            last = block.rfind(b"<")
            since = len(block) - last if last >= 0 else since + len(block)
            if since > MAX_TEXT + _BLOCK:
                where = f"{name}, cell {cell} or after it" if cell else name
                raise InputError(f"{path}: {where}: a text of more than {MAX_TEXT:,} bytes, expected at most 32,767 "
                                 "characters in a cell; shorten it")  # fmt: skip
            cell = found[-1].decode() if (found := _CELL.findall(block)) else cell


def _check_sizes(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    for entry in entries:
        packed = max(1, entry.compress_size)
        if entry.file_size > MAX_XML or (entry.file_size > 1 << 20 and entry.file_size / packed > MAX_RATIO):
            text = f"{entry.filename} unpacks to {entry.file_size:,} bytes, expected at most {MAX_XML:,}"
            raise InputError(f"{path}: {text} and {MAX_RATIO} times its size; save the sheet as CSV UTF-8")
