"""An import in progress: what is read already, in a database beside the target, so that any interruption can go on.

    .importing-<OUT>/work.db     beside OUT: rows as they were read, and how many of each file were
                     catalog/    the pictures; when all is read, the rest of the catalog; then it is renamed to OUT

Rows and the count of rows read are committed together, pictures are on disk before that. What comes out depends on
the source and the options alone, so a run that was interrupted any number of times gives the bytes of one that was not.
Memory holds one row group of the source; a catalog of ten million products is written from the database [ours].
"""

import contextlib
import hashlib
import itertools
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_jax import __version__
from make_jax.catalog import images, jsonl
from make_jax.catalog.importers.rows import BadRow, Row
from make_jax.catalog.importers.tables import Table
from make_jax.catalog.reporting import track
from make_jax.catalog.schema import Pool, Split
from make_jax.errors import InputError
from make_jax.files import sync_folder, write_durably

FORMAT = 1  # of the database; a work folder with another one is begun anew
BATCH = 500  # rows that are committed together
LISTED = 20  # rows left out that PROVENANCE.md names
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


@dataclass(frozen=True)
class About:
    """What catalog.json and PROVENANCE.md say of a benchmark."""

    name: str
    title: str
    licence: str
    provenance: str  # paragraphs: where it comes from, what the queries are, what was left out
    citation: str = ""
    attributes: tuple[str, ...] = ()
    gains: dict[int, float] = field(default_factory=dict)
    relevant: int = 1
    hide_title: bool = False
    pool: Pool = "split"


class Changed(Exception):  # noqa: N818  # no error: the import begins anew
    """The source is not what an interrupted import began with."""


class Work:
    """The unfinished catalog. `key` says what is imported and how; a work folder of another key is begun anew.

    Up to `allowed` rows that are wrong are left out and listed in PROVENANCE.md; the next one is an InputError.
    """

    def __init__(self, out: Path, source: Path, key: str, allowed: int = 0) -> None:
        self.out, self.source, self.allowed = out, source, allowed
        self.folder = work_folder(out)
        self._catalog = self.folder / "catalog"
        self._files: list[tuple[str, int]] = []  # name and size of what was read
        self._catalog.mkdir(parents=True, exist_ok=True)  # before the database: see `finished`
        self._db = _opened(self.folder)
        if _key(self._db) not in (None, key):
            self._db.close()
            shutil.rmtree(self.folder)
            self._catalog.mkdir(parents=True)
            self._db = _opened(self.folder)
        with self._transaction():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT OR IGNORE INTO step VALUES('', ?, 0, 0)", (key,))

    def close(self) -> None:
        """Ends the use of the folder; what is committed stays."""
        self._db.close()

    def each(self, table: Table, handle: Callable[[Row], None]) -> None:
        """Calls `handle` with every row of a table that has not been handled yet. InputError for a bad row too many."""
        # Loose pictures that rows name are left out of the stamp: whoever mends one goes on from there.
        stamp = json.dumps([[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in table.files])
        self._files += [(file.name, file.stat().st_size) for file in table.files]
        begun = self._db.execute("SELECT files, rows, done FROM step WHERE name = ?", (table.name,)).fetchone()
        files, count, done = begun or (stamp, 0, 0)
        if files != stamp:
            raise Changed
        if done:
            return
        with contextlib.closing(track(table.rows(count), None, table.name)) as rows:
            handled = BATCH
            while handled == BATCH:
                with self._transaction():
                    handled = 0
                    for row in itertools.islice(rows, BATCH):
                        self._one(row, handle)
                        handled += 1
                    count += handled
                    step = (table.name, stamp, count, handled < BATCH)
                    self._db.execute("INSERT OR REPLACE INTO step VALUES(?, ?, ?, ?)", step)

    def once(self, name: str, do: Callable[[], None]) -> None:
        """Calls `do` if no run has before; all that it adds is committed together."""
        if not self._db.execute("SELECT 1 FROM step WHERE name = ?", (name,)).fetchone():
            with self._transaction():
                do()
                self._db.execute("INSERT INTO step VALUES(?, '', 0, 1)", (name,))

    def product(self, row: Row, identity: str, split: Split, title: str, image: bytes | None, **values: Any) -> None:
        """Adds a product. BadRow for an id that was there before, a broken picture, and neither title nor picture."""
        if not title and not image:
            raise row.bad(f"product {identity}: neither title nor picture, expected at least one of them")
        self._add("product", row, identity, split, {"title": title}, {"split": split, **values})
        if image:
            self.picture(row, identity, image)

    def picture(self, row: Row, identity: str, data: bytes) -> None:
        """Gives a product its picture; one that is unknown is passed over. BadRow for a broken or second picture."""
        place = f"{row.place}: product {identity}"
        try:
            images.decode(data, place)
        except InputError as error:
            raise BadRow(str(error)) from None
        found = self._db.execute("SELECT image FROM product WHERE id = ?", (identity,)).fetchone()
        if found is None:
            return
        if found[0]:
            raise BadRow(f"{place}: a second picture, expected one")
        name = self._picture_name(identity) + images.extension(data)
        write_durably(self._catalog / name, data)
        self._db.execute("UPDATE product SET image = ? WHERE id = ?", (name, identity))

    def query(self, row: Row, identity: str, split: Split, text: str, **values: Any) -> None:
        """Adds a judged query. BadRow for an id that was there before, or without text."""
        if not text:
            raise row.bad(f"query {identity}: no text, expected what was asked")
        self._add("query", row, identity, split, {"text": text}, {"split": split, **values})

    def split_of(self, identity: str) -> str | None:
        """The split of a product that was added; None when none was."""
        found = self._db.execute("SELECT split FROM product WHERE id = ?", (identity,)).fetchone()
        return found[0] if found else None

    def has_query(self, identity: str) -> bool:
        """Whether a query was added."""
        return bool(self._db.execute("SELECT 1 FROM query WHERE id = ?", (identity,)).fetchone())

    def judge(self, row: Row, query: str, product: str, grade: int) -> None:
        """Adds a judgement. One that was there before with the same grade is passed over, with another it is BadRow."""
        values = (query, product, grade, row.place)
        if not self._db.execute("INSERT OR IGNORE INTO judgement VALUES(?, ?, ?, ?)", values).rowcount:
            asked = "SELECT grade, place FROM judgement WHERE query = ? AND product = ?"
            before, place = self._db.execute(asked, (query, product)).fetchone()
            if before != grade:
                text = f"query {query} judges product {product} {grade}, expected {before} as at {place}"
                raise row.bad(text)

    def click(self, row: Row, query: str, product: str, lang: str = "") -> None:
        """Adds a training pair."""
        self._db.execute("INSERT INTO click VALUES(?, ?, ?, ?)", (query, product, lang, row.place))

    def judging_splits(self, product: str) -> set[str]:
        """The splits of the queries that judge a product."""
        asked = "SELECT DISTINCT q.split FROM judgement j JOIN query q ON q.id = j.query WHERE j.product = ?"
        return {split for (split,) in self._db.execute(asked, (product,))}

    def click_judged(self, least: int, lang: str) -> None:
        """Makes a training pair of each judgement of `least` or more between training queries and products."""
        self._db.execute(
            "INSERT INTO click SELECT json_extract(q.line, '$.text'), j.product, ?, j.place FROM judgement j "
            "JOIN query q ON q.id = j.query JOIN product p ON p.id = j.product "
            "WHERE q.split = 'train' AND p.split = 'train' AND j.grade >= ? ORDER BY j.rowid",
            (lang, least),
        )

    def products(self) -> Iterator[dict[str, Any]]:
        """The products so far, in their order."""
        for identity, image, line in self._db.execute("SELECT id, image, line FROM product ORDER BY rowid"):
            values = json.loads(line)
            yield {"id": identity, "title": values.pop("title"), "image": image, **values}

    def finish(self, about: About, command: str) -> str:
        """Writes the catalog to its place and removes the work folder; one line on how much there is."""
        self.once("references", self._check_references)
        counts = self._counts()
        _write_lines(self._catalog / jsonl.PRODUCTS, self.products())
        _write_lines(self._catalog / jsonl.QUERIES, self._queries())
        _write_lines(self._catalog / jsonl.CLICKS, self._clicks())
        write_durably(self._catalog / jsonl.INFO, _info(about))
        write_durably(self._catalog / "PROVENANCE.md", self._provenance(about, command))
        for folder in (*(self._catalog / "images").glob("*/"), self._catalog / "images", self._catalog):
            if folder.exists():
                sync_folder(folder)
        self._db.close()
        self._catalog.rename(self.out)
        sync_folder(self.out.parent)
        shutil.rmtree(self.folder)
        return counts

    def _counts(self) -> str:
        """One line: how much was read, and how many rows were left out."""
        named = (("product", "products"), ("query", "judged queries"), ("judgement", "judgements"), ("click", "clicks"))
        found = [(self._db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], name) for table, name in named]
        bad = self._db.execute("SELECT COUNT(*) FROM bad").fetchone()[0]
        return ", ".join(f"{count:,} {name}" for count, name in found) + (f"; {bad:,} rows left out" if bad else "")

    def _one(self, row: Row, handle: Callable[[Row], None]) -> None:
        self._db.execute("SAVEPOINT one")
        try:
            if row.fault:
                raise row.bad(row.fault)
            handle(row)
        except BadRow as error:
            self._db.execute("ROLLBACK TO one")
            self._leave_out(str(error))
        self._db.execute("RELEASE one")

    def _leave_out(self, text: str) -> None:
        if self._db.execute("SELECT COUNT(*) FROM bad").fetchone()[0] >= self.allowed:
            raise InputError(f"{self.source}: {text}")
        self._db.execute("INSERT INTO bad VALUES(?)", (text,))

    def _add(
        self, table: str, row: Row, identity: str, split: str, first: dict[str, Any], rest: dict[str, Any]
    ) -> None:
        line = json.dumps({**first, **{key: value for key, value in rest.items() if value}}, ensure_ascii=False)
        columns = "id, place, split, line"
        values = (identity, row.place, split, line)
        added = self._db.execute(f"INSERT OR IGNORE INTO {table}({columns}) VALUES(?, ?, ?, ?)", values).rowcount
        if not added:
            place = self._db.execute(f"SELECT place FROM {table} WHERE id = ?", (identity,)).fetchone()[0]
            raise row.bad(f"{table} {identity} stands at {place} too, expected each id once")

    def _picture_name(self, identity: str) -> str:
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return f"images/{digest[:2]}/{identity if _FILE_NAME.fullmatch(identity) else digest[:32]}"

    def _check_references(self) -> None:
        for table, column, other, where, text in (
            ("judgement", "product", "product", "", "judges the unknown product"),
            ("judgement", "query", "query", "", "judges for the unknown query"),
            ("click", "product", "product", " AND o.split = 'train'", "a click on what is no training product:"),
        ):
            asked = f"FROM {table} t LEFT JOIN {other} o ON o.id = t.{column}{where} WHERE o.id IS NULL"
            for place, name in self._db.execute(f"SELECT t.place, t.{column} {asked} ORDER BY t.rowid"):
                self._leave_out(f"{place}: {text} {name}")
            self._db.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid {asked})")

    def _queries(self) -> Iterator[dict[str, Any]]:
        asked = (
            "SELECT q.id, q.line, j.product, j.grade FROM query q LEFT JOIN judgement j ON j.query = q.id "
            "ORDER BY q.rowid, j.rowid"
        )
        for (identity, line), judged in itertools.groupby(self._db.execute(asked), key=lambda found: found[:2]):
            rel = {product: grade for _, _, product, grade in judged if product is not None}
            yield {"qid": identity, **json.loads(line), "rel": rel}

    def _clicks(self) -> Iterator[dict[str, Any]]:
        for query, product, lang in self._db.execute("SELECT query, product, lang FROM click ORDER BY rowid"):
            yield {"query": query, "product": product, **({"lang": lang} if lang else {})}

    def _provenance(self, about: About, command: str) -> str:
        bad = [text for (text,) in self._db.execute("SELECT text FROM bad ORDER BY rowid")]
        files = "".join(f"- {name}, {size:,} bytes\n" for name, size in sorted(self._files))
        parts = [f"# {about.title}", about.provenance, f"Licence: {about.licence}."]
        parts += [f"Cite: {about.citation}"] if about.citation else []
        parts.append(f"Imported with `{command}` of make_jax {__version__} from\n\n{files.rstrip()}")
        if bad:
            listed = "\n".join(f"- {text}" for text in bad[:LISTED])
            parts.append(f"{len(bad):,} rows were wrong and are left out; the first of them:\n\n{listed}")
        return "\n\n".join(parts) + "\n"

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


def finished(out: Path, key: str) -> bool:
    """Whether an import of this key was killed after its catalog was in place; removes what it left beside it."""
    folder = work_folder(out)
    if not (out.exists() and folder.exists()) or (folder / "catalog").exists():
        return False
    same = False
    if (folder / "work.db").exists():
        database = _opened(folder)
        same = _key(database) == key
        database.close()
    shutil.rmtree(folder)
    return same


def discard(out: Path) -> None:
    """Removes the work folder of an unfinished import."""
    print(f"{out}: the source changed since the import was interrupted; it begins anew", file=sys.stderr)
    shutil.rmtree(work_folder(out))


def work_folder(out: Path) -> Path:
    """Where an import that is not finished lies."""
    return out.parent / f".importing-{out.name}"


def _opened(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "work.db", timeout=0, isolation_level=None)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def _key(database: sqlite3.Connection) -> str | None:
    """The key that a database was made with; None when it is new."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'step'").fetchone():
        return None
    found = database.execute("SELECT files FROM step WHERE name = ''").fetchone()
    return found[0] if found else None


def _info(about: About) -> str:
    values = {
        "name": about.name,
        "title": about.title,
        "licence": about.licence,
        "attributes": list(about.attributes),
        "gains": {str(grade): gain for grade, gain in about.gains.items()},
        "relevant": about.relevant,
        "hide_title": about.hide_title,
        "pool": about.pool,
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    write_durably(path, (json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n" for row in rows))
