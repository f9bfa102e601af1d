"""Resumable state of an import: a SQLite database next to the target folder.

    .importing-<OUT>/work.db     imported rows, and the number of rows read from each file
                     catalog/    images; at the end the JSON files too; then renamed to OUT

Rows and row counts are committed in one transaction, after their images are on disk. The result depends on the source
and the options only: an interrupted and resumed import writes the same bytes as an uninterrupted one. Memory holds one
row group of the source; the catalog is written from the database [ours].
"""

import contextlib
import hashlib
import itertools
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from make_jax.catalog import images, jsonl
from make_jax.catalog.importers import notes, staging
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.rows import BadRow, Row
from make_jax.catalog.importers.tables import Table
from make_jax.catalog.reporting import track
from make_jax.catalog.schema import Split
from make_jax.errors import InputError
from make_jax.files import sync_folder, write_durably

FORMAT = 3  # of the database; a state folder of another format is discarded
BATCH = 500  # rows per transaction
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TABLES = """
CREATE TABLE IF NOT EXISTS step(name TEXT PRIMARY KEY, files TEXT, rows INTEGER, done INTEGER);
CREATE TABLE IF NOT EXISTS bad(text TEXT);
CREATE TABLE IF NOT EXISTS product(id TEXT PRIMARY KEY, place TEXT, image TEXT, split TEXT, line TEXT);
CREATE TABLE IF NOT EXISTS query(id TEXT PRIMARY KEY, place TEXT, split TEXT, line TEXT);
CREATE TABLE IF NOT EXISTS judgement(query TEXT, product TEXT, grade INTEGER, place TEXT, PRIMARY KEY(query, product));
CREATE INDEX IF NOT EXISTS judged ON judgement(product);
CREATE TABLE IF NOT EXISTS click(query TEXT, product TEXT, lang TEXT, place TEXT);
"""
_TABLES += f"{notes.TABLE};{staging.TABLES}"


class SourceChanged(Exception):  # noqa: N818  # not an error: the import starts over
    """The source files changed since an interrupted import started."""


class NoProducts(InputError):  # noqa: N818
    """Every row of the source was read and none became a product: there is nothing to resume."""


class ImportState:
    """The unfinished catalog of one import. `key` identifies source and options; state of another key is discarded.

    Up to `max_bad_rows` invalid rows are skipped and listed in PROVENANCE.md; one more raises InputError.
    """

    def __init__(self, out: Path, source: Path, key: str, max_bad_rows: int = 0) -> None:
        self.out, self.source, self.max_bad_rows = out, source, max_bad_rows
        self.folder = state_folder(out)
        self._catalog = self.folder / "catalog"
        self._files: list[tuple[str, int]] = []  # names and sizes of the source files
        self._catalog.mkdir(parents=True, exist_ok=True)  # before the database: see `was_completed`
        self._db = _open_database(self.folder)
        if _key(self._db) not in (None, key):
            self._db.close()
            shutil.rmtree(self.folder)
            self._catalog.mkdir(parents=True)
            self._db = _open_database(self.folder)
        with self._transaction():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT OR IGNORE INTO step VALUES('', ?, 0, 0)", (key,))

    @property
    def database(self) -> sqlite3.Connection:
        """For further tables of a format (staging.py); written within the transaction of `read_table` or `run_once`."""
        return self._db

    def close(self) -> None:
        """Closes the database; committed rows are kept."""
        self._db.close()

    def discard_if_empty(self) -> str:
        """Closes and removes an import of which no row was committed: there is nothing to resume. Otherwise returns how
        to resume it."""
        rows = self._db.execute("SELECT SUM(rows) FROM step").fetchone()[0]
        if not rows:
            self.discard()
            return ""
        return (
            f"; the rows so far are kept in {self.folder}: repair the source and run this again, or delete the folder"
        )

    def discard(self) -> None:
        """Closes and removes this import."""
        self._db.close()
        shutil.rmtree(self.folder)

    def read_table(self, table: Table, handle: Callable[[Row], None]) -> None:
        """Calls `handle` with every row of a table that was not handled before. InputError for too many bad rows."""
        # Image files that rows name are not part of the stamp, so an import can resume after one was repaired.
        stamp = json.dumps([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in table.files])
        self._files += [(file.name, file.stat().st_size) for file in table.files]
        step = self._db.execute("SELECT files, rows, done FROM step WHERE name = ?", (table.name,)).fetchone()
        files, count, done = step or (stamp, 0, 0)
        if files != stamp:
            raise SourceChanged
        if done:
            return
        with contextlib.closing(track(table.rows(count), None, table.name)) as rows:
            handled = BATCH
            while handled == BATCH:
                with self._transaction():
                    handled = 0
                    for row in itertools.islice(rows, BATCH):
                        self._handle(row, handle)
                        handled += 1
                    count += handled
                    progress = (table.name, stamp, count, handled < BATCH)
                    self._db.execute("INSERT OR REPLACE INTO step VALUES(?, ?, ?, ?)", progress)

    def run_once(self, name: str, action: Callable[[], None]) -> None:
        """Calls `action` unless an earlier run did; everything it adds is committed in one transaction."""
        if not self._db.execute("SELECT 1 FROM step WHERE name = ?", (name,)).fetchone():
            with self._transaction():
                action()
                self._db.execute("INSERT INTO step VALUES(?, '', 0, 1)", (name,))

    def note(self, outcome: notes.Outcome, reason: str, place: str, count: int = 1) -> None:
        """Counts what the import did and why, for the report that ends it; see notes.py."""
        notes.add(self._db, outcome, reason, place, count)

    def report(self) -> list[str]:
        """The lines of the report so far."""
        return notes.lines(self._db)

    def write_file(self, name: str, content: Iterator[bytes]) -> None:
        """Writes a further file of the catalog, at the end of an import."""
        write_durably(self._catalog / name, content)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Reverts what the block added to the database if it raises BadRow, which is raised on."""
        self._db.execute("SAVEPOINT one")
        try:
            yield
        except BadRow:
            self._db.execute("ROLLBACK TO one")
            self._db.execute("RELEASE one")
            raise
        self._db.execute("RELEASE one")

    def add_product(
        self,
        row: Row,
        id: str,
        split: Split,
        title: str,
        image: bytes | None,
        attributes: Mapping[str, Any] = MappingProxyType({}),
        **values: Any,
    ) -> None:
        """Adds a product; `attributes` are written as they are, of `values` only those that are not empty, 0 or False.

        Raises BadRow for a duplicate id, a damaged image, or neither title nor image.
        """
        if not title and not image:
            raise row.error(f"product {id}: neither title nor image, expected at least one of them")
        self._add("product", row, id, split, {"title": title}, {"split": split, **values}, attributes)
        if image:
            self.add_image(row, id, image)

    def add_image(self, row: Row, id: str, data: bytes) -> None:
        """Adds the image of a product; ignores unknown products. Raises BadRow for a damaged or second image."""
        place = f"{row.place}: product {id}"
        try:
            images.decode(data, place)
        except InputError as error:
            raise BadRow(str(error)) from None
        product = self._db.execute("SELECT image FROM product WHERE id = ?", (id,)).fetchone()
        if product is None:
            return
        if product[0]:
            raise BadRow(f"{place}: a second image, expected one")
        name = self._image_name(id) + images.extension(data)
        write_durably(self._catalog / name, data)
        self._db.execute("UPDATE product SET image = ? WHERE id = ?", (name, id))

    def add_query(self, row: Row, id: str, split: Split, text: str, **values: Any) -> None:
        """Adds a judged query. Raises BadRow for a duplicate id or an empty text."""
        if not text:
            raise row.error(f"query {id}: no text, expected the text of a query")
        self._add("query", row, id, split, {"text": text}, {"split": split, **values})

    def product_split(self, id: str) -> str | None:
        """The split of an added product, None if it was not added."""
        product = self._db.execute("SELECT split FROM product WHERE id = ?", (id,)).fetchone()
        return product[0] if product else None

    def has_query(self, id: str) -> bool:
        """Whether the query was added."""
        return bool(self._db.execute("SELECT 1 FROM query WHERE id = ?", (id,)).fetchone())

    def add_judgement(self, row: Row, query: str, product: str, grade: int) -> None:
        """Adds a judgement; ignores a repeated one. Raises BadRow if an earlier one has another grade."""
        values = (query, product, grade, row.place)
        if not self._db.execute("INSERT OR IGNORE INTO judgement VALUES(?, ?, ?, ?)", values).rowcount:
            sql = "SELECT grade, place FROM judgement WHERE query = ? AND product = ?"
            first, place = self._db.execute(sql, (query, product)).fetchone()
            if first != grade:
                raise row.error(f"query {query} judges product {product} {grade}, expected {first} as at {place}")

    def add_click(self, row: Row, query: str, product: str, lang: str = "") -> None:
        """Adds a training pair."""
        self._db.execute("INSERT INTO click VALUES(?, ?, ?, ?)", (query, product, lang, row.place))

    def splits_judging(self, product: str) -> set[str]:
        """The splits of the queries that judge a product."""
        sql = "SELECT DISTINCT q.split FROM judgement j JOIN query q ON q.id = j.query WHERE j.product = ?"
        return {split for (split,) in self._db.execute(sql, (product,))}

    def add_clicks_from_judgements(self, min_grade: int, lang: str) -> None:
        """Adds a training pair for each judgement >= `min_grade` between a training query and a training product."""
        self._db.execute(
            "INSERT INTO click SELECT json_extract(q.line, '$.text'), j.product, ?, j.place FROM judgement j "
            "JOIN query q ON q.id = j.query JOIN product p ON p.id = j.product "
            "WHERE q.split = 'train' AND p.split = 'train' AND j.grade >= ? ORDER BY j.rowid",
            (lang, min_grade),
        )

    def products(self) -> Iterator[dict[str, Any]]:
        """The added products, in the order of addition."""
        for id, image, line in self._db.execute("SELECT id, image, line FROM product ORDER BY rowid"):
            values = json.loads(line)
            yield {"id": id, "title": values.pop("title"), "image": image, **values}

    def finish(self, info: BenchmarkInfo, command: str) -> str:
        """Writes the catalog to its folder and removes the state folder; returns its counts and the report."""
        self.run_once("references", self._check_references)
        counts = self._counts()
        _write_lines(self._catalog / jsonl.PRODUCTS, self.products())
        _write_lines(self._catalog / jsonl.QUERIES, self._queries())
        _write_lines(self._catalog / jsonl.CLICKS, self._clicks())
        write_durably(self._catalog / jsonl.INFO, info.catalog_json())
        bad = [text for (text,) in self._db.execute("SELECT text FROM bad ORDER BY rowid")]
        text = info.provenance_text(command, sorted(self._files), self.report(), bad)
        write_durably(self._catalog / "PROVENANCE.md", text)
        for folder in (*(self._catalog / "images").glob("*/"), self._catalog / "images", self._catalog):
            if folder.exists():
                sync_folder(folder)
        self._db.close()
        self._catalog.rename(self.out)
        sync_folder(self.out.parent)
        shutil.rmtree(self.folder)
        return counts

    def _counts(self) -> str:
        """One line with the numbers of records and of skipped rows, then one a note."""
        named = (("product", "products"), ("query", "judged queries"), ("judgement", "judgements"), ("click", "clicks"))
        counts = [(self._db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], name) for table, name in named]
        bad = self._db.execute("SELECT COUNT(*) FROM bad").fetchone()[0]
        with_image = self._db.execute("SELECT COUNT(image) FROM product").fetchone()[0]
        images = f" ({with_image:,} with an image, {counts[0][0] - with_image:,} without)"
        parts = [f"{count:,} {name}{images if name == 'products' else ''}" for count, name in counts]
        report = "".join(f"\n  {line}" for line in self.report())
        return ", ".join(parts) + (f"; {bad:,} rows skipped" if bad else "") + report

    def _handle(self, row: Row, handle: Callable[[Row], None]) -> None:
        try:
            with self.attempt():
                if row.fault:
                    raise row.error(row.fault)
                handle(row)
        except BadRow as error:
            self._skip(str(error))

    def _skip(self, text: str) -> None:
        if self._db.execute("SELECT COUNT(*) FROM bad").fetchone()[0] >= self.max_bad_rows:
            # The places of rows begin with the name of their file.
            if self.source.is_file():
                raise InputError(f"{'' if self.source.parent == Path() else f'{self.source.parent}/'}{text}")
            raise InputError(f"{self.source}: {text}")
        self._db.execute("INSERT INTO bad VALUES(?)", (text,))

    def _add(
        self,
        table: str,
        row: Row,
        id: str,
        split: str,
        first: dict[str, Any],
        rest: dict[str, Any],
        last: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        values = {**first, **{key: value for key, value in rest.items() if value}, **last}
        line = json.dumps(values, ensure_ascii=False)
        columns = "id, place, split, line"
        sql = f"INSERT OR IGNORE INTO {table}({columns}) VALUES(?, ?, ?, ?)"
        added = self._db.execute(sql, (id, row.place, split, line)).rowcount
        if not added:
            place = self._db.execute(f"SELECT place FROM {table} WHERE id = ?", (id,)).fetchone()[0]
            raise row.error(f"{table} {id} occurs at {place} too, expected unique ids")

    def _image_name(self, id: str) -> str:
        digest = hashlib.sha256(id.encode()).hexdigest()
        return f"images/{digest[:2]}/{id if _FILE_NAME.fullmatch(id) else digest[:32]}"

    def _check_references(self) -> None:
        for table, column, other, where, text in (
            ("judgement", "product", "product", "", "judges the unknown product"),
            ("judgement", "query", "query", "", "judges for the unknown query"),
            (
                "click",
                "product",
                "product",
                " AND o.split = 'train'",
                "clicks a product outside the training split:",
            ),
        ):
            dangling = f"FROM {table} t LEFT JOIN {other} o ON o.id = t.{column}{where} WHERE o.id IS NULL"
            for place, name in self._db.execute(f"SELECT t.place, t.{column} {dangling} ORDER BY t.rowid"):
                self._skip(f"{place}: {text} {name}")
            self._db.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid {dangling})")

    def _queries(self) -> Iterator[dict[str, Any]]:
        sql = (
            "SELECT q.id, q.line, j.product, j.grade FROM query q LEFT JOIN judgement j ON j.query = q.id "
            "ORDER BY q.rowid, j.rowid"
        )
        for (id, line), judgements in itertools.groupby(self._db.execute(sql), key=lambda record: record[:2]):
            rel = {product: grade for _, _, product, grade in judgements if product is not None}
            yield {"qid": id, **json.loads(line), "rel": rel}

    def _clicks(self) -> Iterator[dict[str, Any]]:
        for query, product, lang in self._db.execute("SELECT query, product, lang FROM click ORDER BY rowid"):
            yield {"query": query, "product": product, **({"lang": lang} if lang else {})}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def was_completed(out: Path, key: str) -> bool:
    """Whether an import of this key was killed after its catalog was renamed to `out`; removes its state folder."""
    folder = state_folder(out)
    if not (out.exists() and folder.exists()) or (folder / "catalog").exists():
        return False
    completed = False
    if (folder / "work.db").exists():
        database = _open_database(folder)
        completed = _key(database) == key
        database.close()
    shutil.rmtree(folder)
    return completed


def discard(out: Path) -> None:
    """Removes the state folder of an unfinished import."""
    print(f"{out}: the source changed since the import was interrupted; starting over", file=sys.stderr)
    shutil.rmtree(state_folder(out))


def state_folder(out: Path) -> Path:
    """The folder of an unfinished import."""
    return out.parent / f".importing-{out.name}"


def _open_database(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "work.db", timeout=0, isolation_level=None)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def _key(database: sqlite3.Connection) -> str | None:
    """The key of the import that created a database; None for a new one."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'step'").fetchone():
        return None
    row = database.execute("SELECT files FROM step WHERE name = ''").fetchone()
    return row[0] if row else None


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    write_durably(path, (json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n" for row in rows))
