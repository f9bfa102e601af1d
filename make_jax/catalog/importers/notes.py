"""Counts what an import took, joined, changed, dropped and ignored, and why, with the first places of each reason."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Literal

from make_jax.catalog.text import shortened

Outcome = Literal["taken", "joined", "changed", "noted", "without image", "dropped", "ignored"]
OUTCOMES: tuple[Outcome, ...] = (
    "taken",
    "joined",
    "changed",
    "noted",
    "without image",
    "dropped",
    "ignored",
)  # the order of a report
FIRST = 3  # places that a report lists for each reason

TABLE = "CREATE TABLE IF NOT EXISTS note(outcome TEXT, reason TEXT, count INTEGER, first TEXT, \
PRIMARY KEY(outcome, reason))"


def add(database: sqlite3.Connection, outcome: Outcome, reason: str, place: str, count: int = 1) -> None:
    """Counts `count` records with an outcome and its reason; `place` ("feed.csv:17: red") is one of the first few.

    Part of the caller's transaction, so that a resumed import counts each row once.
    """
    place = (
        shortened(place, 160).encode("utf-8", "backslashreplace").decode("utf-8")
    )  # JSON can express half a surrogate pair
    sql = "SELECT first FROM note WHERE outcome = ? AND reason = ?"
    known = database.execute(sql, (outcome, reason)).fetchone()
    if known is None:
        values = (outcome, reason, count, json.dumps([place], ensure_ascii=False))
        database.execute("INSERT INTO note VALUES(?, ?, ?, ?)", values)
        return
    first = json.loads(known[0])
    if len(first) < FIRST:
        first.append(place)
    sql = "UPDATE note SET count = count + ?, first = ? WHERE outcome = ? AND reason = ?"
    database.execute(sql, (count, json.dumps(first, ensure_ascii=False), outcome, reason))


def lines(database: sqlite3.Connection) -> list[str]:
    """One line a reason, by outcome and then in the order of first occurrence; [] without notes."""
    found = database.execute("SELECT outcome, reason, count, first FROM note ORDER BY rowid").fetchall()
    found.sort(key=lambda note: OUTCOMES.index(note[0]))
    return [_line(outcome, reason, count, json.loads(first)) for outcome, reason, count, first in found]


def _line(outcome: str, reason: str, count: int, first: Iterable[str]) -> str:
    places = "; ".join(place for place in first if place)
    return f"{outcome} {count:,}: {reason}" + (f" (first: {places})" if places else "")
