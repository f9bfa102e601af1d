"""Any table with one row a product: CSV, TSV, JSON lines, Parquet or Excel. Columns are guessed or given."""

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from make_jax.catalog.importers import cells, staging
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import ROLES, Column, guess, parse_choices
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.local_images import LocalImages
from make_jax.catalog.importers.rows import BadRow, Row
from make_jax.catalog.importers.shop_fields import add_price
from make_jax.catalog.importers.shop_products import add_products, add_row, clean_id, download_steps
from make_jax.catalog.importers.staging import Item
from make_jax.catalog.importers.table_files import open_table
from make_jax.catalog.importers.tables import Table
from make_jax.catalog.path_options import add_path
from make_jax.catalog.text import strip_text
from make_jax.report_tables import markdown_table

_HEADER = ["column", "taken as", "why", "first value"]


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of this format."""
    add_column_options(command)
    add_text_options(command)
    command.add_argument("--sheet", default="", help="sheet of an Excel workbook (the first)")


def add_column_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of formats whose columns are guessed."""
    text = f"ROLE=COLUMN, after OUT, for example title=Name text=Colour,Size; roles: {', '.join(ROLES)}"
    command.add_argument("--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help=text)
    add_path(command, "--images", help="folder of the images (default: the folder of the table)")


def add_text_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of text files."""
    command.add_argument("--encoding", default="", help="of a text file, such as gb18030 or cp1252 (UTF-8 or UTF-16)")
    command.add_argument("--separator", default="", help="of the fields of a text file (guessed)")


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads the table `options.source`; prints what its columns are taken as."""
    opened = open_table(options.source, options.encoding, _separator(options.separator), options.sheet)
    columns = guess(options.source, opened.columns, opened.sample(), parse_choices(options.columns, opened.columns))
    return read_columns(state, options, [opened.table], columns, f"A table ({opened.how})")


def read_columns(
    state: ImportState, options: argparse.Namespace, tables: Sequence[Table], columns: Sequence[Column], how: str
) -> BenchmarkInfo:
    """Adds the products of tables with these columns, of `options.source`; prints the columns. `how` names the format
    and what was found of it."""
    source: Path = options.source
    print(f"{source}: {how}")
    print(shown(columns), flush=True)
    for table in tables:
        state.read_table(table, partial(_row, state, _keyed(columns)))
    base = source if source.is_dir() else source.parent
    attributes = add_products(state, LocalImages(state.database, base, options.images))
    return BenchmarkInfo(
        name=source.stem,
        title=source.name,
        licence="not stated by the source",
        provenance=f"{how}. Columns:\n\n{_markdown(columns)}".rstrip(),
        attributes=attributes,
        next_steps=download_steps(state),
    )


def shown(columns: Sequence[Column]) -> str:
    """The table of columns for a terminal."""
    rows = [
        _HEADER,
        *([column.name or "(no name)", _taken(column), column.reason, column.sample] for column in columns),
    ]
    widths = [max(cell_len(row[n]) for row in rows) for n in range(len(_HEADER))]
    lines = (
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _markdown(columns: Sequence[Column]) -> str:
    return markdown_table(_HEADER[:3], [[column.name, _taken(column), column.reason] for column in columns])


def _taken(column: Column) -> str:
    kinds = {"text", "number", "boolean", "list"}
    decimal = ", decimal comma" if column.decimal == "," and column.role in ("number", "price") else ""
    return (f"attribute, {column.role}" if column.role in kinds else column.role) + decimal


def _separator(option: str) -> str:
    return {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}.get(option, option)


def _keyed(columns: Sequence[Column]) -> list[tuple[str, Column]]:
    """The columns that are taken, each with the key of its attribute; equal keys get a number."""
    keys: list[str] = []
    result = []
    for column in columns:
        if column.role != "ignored":
            key, number = column.key, 2
            while column.role not in _TEXTS and key in keys:
                key, number = f"{column.key}_{number}", number + 1
            keys += [] if column.role in _TEXTS else [key]
            result.append((key, column))
    return result


def _row(state: ImportState, columns: Sequence[tuple[str, Column]], row: Row) -> None:
    """Stages one row."""
    if not row.values:
        return
    item = Item(id="")
    has_queries = any(column.role == "query" for _, column in columns)
    for key, column in columns:
        _READ.get(column.role, _attribute)(state, row, item, key, column)
    key = item.id and f"id {item.id}" if has_queries else row.place
    if not item.id:
        key = key or _content_key(item)
        item.id = str(staging.count(state.database) + 1)
        if any(column.role == "id" for _, column in columns):
            state.note("changed", "a row without id is identified by its number", row.place)
    if has_queries and item.image_bytes and staging.has_image(state.database, key):
        item.image_bytes = None  # one copy a product
    add_row(state, row, key, item, "rows of one product, each with its query" if has_queries else "")


def _content_key(item: Item) -> str:
    """What rows of one product without an id have in common: title and image."""
    digest = hashlib.sha256(json.dumps([item.title, item.image_names]).encode() + (item.image_bytes or b""))
    return f"content {digest.hexdigest()}"


def _text(name: str, state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    setattr(item, name, cells.plain_text(row.text(column.name)))


def _id(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    item.id = clean_id(state, row, row.text(column.name))


def _currency(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    item.currency = item.currency or row.text(column.name)


def _price(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    value = row.values.get(column.name)
    if _is_number(value):
        item.price = value
    else:
        currency, item.currency = item.currency, ""
        add_price(state, row, item, row.text(column.name), column.decimal)
        item.currency = item.currency or currency


def _image(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    value = row.values.get(column.name)
    if isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes)):
        item.image_bytes = row.image_bytes(column.name)
    elif isinstance(value, dict):  # {"bytes": null, "path": ...} and {"url": ...}
        names = [value.get(name) for name in ("path", "url", "src")]
        item.image_names = [row.valid_unicode(column.name, name) for name in names if isinstance(name, str) and name]
    elif isinstance(value, list | tuple):
        item.image_names = [strip_text(row.valid_unicode(column.name, each)) for each in value if isinstance(each, str)]
    else:
        item.image_names = cells.image_names(row.text(column.name))


def _query(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    value = row.values.get(column.name)
    if isinstance(value, list | tuple):
        texts = [strip_text(row.valid_unicode(column.name, each)) for each in value if isinstance(each, str)]
    else:
        texts = [row.text(column.name)]
    item.queries = [" ".join(text.split()) for text in texts if text]
    if not item.queries:
        state.note("noted", "rows without a query", row.place)


def _category(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    value = row.values.get(column.name)
    parts = value if isinstance(value, list | tuple) else cells.category_levels(row.text(column.name))
    texts = (row.valid_unicode(column.name, part) for part in parts if isinstance(part, str))
    item.category = [text for part in texts if (text := strip_text(part))]


def _attribute(state: ImportState, row: Row, item: Item, key: str, column: Column) -> None:
    value = row.values.get(column.name)
    if value is None or value != value or value == "":
        return
    try:
        kept = _VALUES[column.role](row, column)
    except BadRow:  # a list or an object among other values
        kept = None
    if kept is None:
        found = row.value_error(column.name, "").args[0]
        state.note("changed", f"{column.name}: no {column.role}, left out", found.removesuffix(", expected "))
    else:
        item.attributes[key] = kept


def _number_value(row: Row, column: Column) -> Any:
    value = row.values[column.name]
    return value if _is_number(value) else cells.number(row.text(column.name), column.decimal)


def _boolean_value(row: Row, column: Column) -> bool | None:
    value = row.values[column.name]
    if isinstance(value, bool):
        return value
    text = row.text(column.name)
    return {"1": True, "0": False}.get(text, cells.boolean(text))


def _list_value(row: Row, column: Column) -> list[Any] | None:
    value = row.values[column.name]
    if not isinstance(value, list | tuple):
        return cells.texts(row.text(column.name))
    items = [
        strip_text(row.valid_unicode(column.name, each)) if isinstance(each, str) else each
        for each in value
        if each is not None
    ]
    return items if all(isinstance(item, str) or _is_number(item) for item in items) else None


def _text_value(row: Row, column: Column) -> str:
    value = row.values[column.name]
    return str(value).lower() if isinstance(value, bool) else cells.plain_text(row.text(column.name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_Reader = Callable[[ImportState, Row, Item, str, Column], None]
_TEXTS = ("id", "title", "image", "category", "group", "split", "price", "currency", "description", "query")
_READ: dict[str, _Reader] = {name: partial(_text, name) for name in ("title", "group", "split", "description")}
_READ |= {"id": _id, "image": _image, "category": _category, "price": _price, "currency": _currency}
_READ["query"] = _query
_VALUES: dict[str, Callable[[Row, Column], Any]] = {
    "number": _number_value,
    "boolean": _boolean_value,
    "list": _list_value,
    "text": _text_value,
}
