"""Collects the rows of each product in the import's database, because variants may stand anywhere in a file."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_jax.catalog.importers.rows import Row

TABLES = """
CREATE TABLE IF NOT EXISTS staged(
    number INTEGER PRIMARY KEY, first INTEGER, key TEXT, place TEXT, line TEXT, image BLOB);
CREATE INDEX IF NOT EXISTS staged_key ON staged(key);
CREATE INDEX IF NOT EXISTS staged_first ON staged(first);
CREATE TABLE IF NOT EXISTS url(url TEXT PRIMARY KEY, name TEXT, wanted INTEGER);
CREATE INDEX IF NOT EXISTS url_name ON url(name)
"""


@dataclass
class Item:
    """What one row states about a product. Absent values are empty."""

    id: str
    title: str = ""
    description: str = ""
    image_names: list[str] = field(default_factory=list)  # paths or URLs, the most important first
    image_position: int = 0  # images of rows with a lower one come first
    image_bytes: bytes | None = None  # an encoded image in the row itself
    category: list[str] = field(default_factory=list)  # from general to specific
    group: str = ""
    split: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)  # text, number, boolean or list of texts
    options: list[list[str]] = field(default_factory=list)  # name and value of each; variants omit the names
    price: int | float | None = None
    currency: str = ""
    variant: str = ""  # id of the variant
    is_main: bool = True  # its values precede those of the other rows of the product
    hidden: str = ""  # why the shop does not show it ("status draft")
    queries: list[str] = field(default_factory=list)  # searches after which this product was chosen
    place: str = ""  # of its row; set when it is read back


def stage(database: sqlite3.Connection, row: Row, key: str, item: Item) -> bool:
    """Adds a row; those of one `key` are one product. Returns whether an earlier row has the key."""
    found = database.execute("SELECT first FROM staged WHERE key = ? LIMIT 1", (key,)).fetchone()
    values = dict(vars(item))
    image, _ = values.pop("image_bytes"), values.pop("place")
    line = json.dumps(values, ensure_ascii=False)
    sql = "INSERT INTO staged(first, key, place, line, image) VALUES(?, ?, ?, ?, ?)"
    number = database.execute(sql, (found and found[0], key, row.place, line, image)).lastrowid
    if not found:
        database.execute("UPDATE staged SET first = number WHERE number = ?", (number,))
    return bool(found)


def has_main(database: sqlite3.Connection, key: str) -> bool:
    """Whether a main row of this key is staged."""
    sql = "SELECT 1 FROM staged WHERE key = ? AND json_extract(line, '$.is_main') LIMIT 1"
    return database.execute(sql, (key,)).fetchone() is not None


def has_variant(database: sqlite3.Connection, key: str, variant: str) -> bool:
    """Whether a row of this key and variant is staged."""
    sql = "SELECT 1 FROM staged WHERE key = ? AND json_extract(line, '$.variant') = ? LIMIT 1"
    return database.execute(sql, (key, variant)).fetchone() is not None


def has_image(database: sqlite3.Connection, key: str) -> bool:
    """Whether a staged row of this key holds an encoded image."""
    sql = "SELECT 1 FROM staged WHERE key = ? AND image IS NOT NULL LIMIT 1"
    return database.execute(sql, (key,)).fetchone() is not None


def count(database: sqlite3.Connection) -> int:
    """The number of staged rows."""
    return database.execute("SELECT COALESCE(MAX(number), 0) FROM staged").fetchone()[0]


def currencies(database: sqlite3.Connection) -> list[tuple[str, int, str]]:
    """Currency, number of rows and first place of the staged prices, by first place; "" is a price without one."""
    sql = "SELECT json_extract(line, '$.currency'), COUNT(*), MIN(number) FROM staged "
    sql += "WHERE json_extract(line, '$.price') IS NOT NULL GROUP BY 1 ORDER BY 3"
    found = database.execute(sql).fetchall()
    place = "SELECT place FROM staged WHERE number = ?"
    return [(currency, count, database.execute(place, (number,)).fetchone()[0]) for currency, count, number in found]


class StagedProducts:
    """One row a product, in the order of first rows. It has one value, "items": its Items, the main ones first."""

    name = "products"
    files: tuple[Path, ...] = ()

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def rows(self, start: int) -> Iterator[Row]:
        """The products from number `start`. Each is read when it is requested, because the consumer writes between."""
        sql = "SELECT number FROM staged WHERE first = number ORDER BY number LIMIT 1 OFFSET ?"
        found = self._db.execute(sql, (start,)).fetchone()
        while found:
            yield self._product(found[0])
            sql = "SELECT MIN(number) FROM staged WHERE first = number AND number > ?"
            found = self._db.execute(sql, found).fetchone()
            if found == (None,):
                return

    def _product(self, first: int) -> Row:
        sql = "SELECT place, line, image FROM staged WHERE first = ? ORDER BY number"
        rows = self._db.execute(sql, (first,)).fetchall()
        items = [Item(**json.loads(line), image_bytes=image, place=place) for place, line, image in rows]
        return Row(rows[0][0], {"items": sorted(items, key=lambda item: not item.is_main)})
