"""The fields of a shop's export, found by their names in any case and in the spellings of several versions."""

import argparse
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from make_jax.catalog.importers import cells
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.staging import Item
from make_jax.catalog.importers.table_files import OpenTable
from make_jax.catalog.path_options import add_path
from make_jax.catalog.text import shortened, strip_text
from make_jax.errors import InputError


class Fields:
    """The values of one row by the names that an importer uses."""

    def __init__(self, row: Row, columns: Mapping[str, str]) -> None:
        self.row = row
        self._columns = columns

    def text(self, name: str) -> str:
        """The text of a field; "" if it is empty or the export has no such column."""
        return self.row.text(self._columns[name]) if name in self._columns else ""

    def plain(self, name: str) -> str:
        """The text of a field without HTML."""
        return cells.plain_text(self.text(name))


def find_columns(
    opened: OpenTable, aliases: Mapping[str, Sequence[str]], required: Sequence[str], export: str
) -> dict[str, str]:
    """Name -> column of the table, for those of `aliases` that it has, compared without case, "_" and "-".

    Raises InputError if a required one is missing; `export` states what the file should be.
    """
    present = {_folded(column): column for column in opened.columns}
    found = {
        name: next(present[_folded(alias)] for alias in spellings if _folded(alias) in present)
        for name, spellings in aliases.items()
        if any(_folded(alias) in present for alias in spellings)
    }
    if missing := [name for name in required if name not in found]:
        listed = shortened(", ".join(opened.columns), 200)
        text = f"no column {aliases[missing[0]][0]!r} among {listed}; expected {export}"
        raise InputError(f"{opened.file}: {text}, or import it as `table`")
    return found


def note_columns(
    state: ImportState,
    opened: OpenTable,
    aliases: Mapping[str, Sequence[str]],
    taken: Collection[str],
    reasons: Mapping[str, str],
) -> None:
    """Reports the columns that are taken, and the others by the reason for which they are ignored.

    `reasons` maps a regular expression of names, compared without case, to a reason; the first that matches counts.
    """
    sample = opened.sample()
    others = {_folded(alias) for spellings in aliases.values() for alias in spellings}
    ignored: dict[str, list[str]] = {}
    for name in opened.columns:
        if name in taken:
            continue
        reason = next((reason for regex, reason in reasons.items() if re.fullmatch(regex, name, re.IGNORECASE)), "")
        if all(row.values.get(name) in (None, "") for row in sample):
            reason = f"empty in the first {len(sample):,} rows"
        elif not reason:
            reason = "another column has the same meaning" if _folded(name) in others else "not known to this format"
        ignored.setdefault(reason, []).append(name or "(no name)")
    state.note("taken", f"columns: {', '.join(name for name in opened.columns if name in taken)}", "", len(taken))
    for reason, names in ignored.items():
        state.note("ignored", f"columns, {reason}: {', '.join(names)}", "", len(names))


def decimal_of(opened: OpenTable, columns: Iterable[str]) -> str:
    """The decimal mark of the prices in the first rows, for those that can be read in two ways."""
    sample = opened.sample()
    values = (row.values.get(column) for column in columns for row in sample)
    return cells.decimal_mark(value for value in values if isinstance(value, str))


def add_price(state: ImportState, row: Row, item: Item, text: str, decimal: str = ".") -> None:
    """Sets the price of an item, and its currency if the text has one; reports what is no price, and what could be
    another one: "1.299" with the decimal mark "," is 1299."""
    found = cells.price(text, decimal)
    if found:
        item.price, item.currency = found
        if cells.price(text, "." if decimal == "," else ",") != found:
            how = f'prices that can be read in two ways, here with the decimal mark "{decimal}"'
            state.note("noted", how, f"{row.place}: {text} is {found[0]:,}")
        elif "," in text:
            state.note("noted", "prices with commas", f"{row.place}: {text} is {found[0]:,}")
    elif text:
        state.note("changed", "a price that is no number is left out", f"{row.place}: {text}")


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of product feeds."""
    add_path(command, "--images", help="folder of the images, saved under the file names of their URLs")
    command.add_argument("--encoding", default="", help="of a text file, such as gb18030 or cp1252 (UTF-8 or UTF-16)")


def add_shop_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the exports of shops."""
    add_options(command)
    command.add_argument("--drafts", action="store_true", help="also products that the shop does not show")


def attribute(item: Item, key: str, text: str) -> None:
    """Adds a text attribute unless it is empty."""
    if text := strip_text(text):
        item.attributes[key] = text


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
