"""The report of an import."""

import sqlite3

from make_jax.catalog.importers import notes


def test_notes_count_by_reason_and_keep_the_first_places() -> None:
    database = sqlite3.connect(":memory:")
    database.execute(notes.TABLE)
    notes.add(database, "dropped", "no title", "a.csv:9")
    for number in range(1200):
        notes.add(database, "taken", "products", f"a.csv:{number}")
    notes.add(database, "taken", "pictures", "", count=7)
    assert notes.lines(database) == [
        "taken 1,200: products (first: a.csv:0; a.csv:1; a.csv:2)",
        "taken 7: pictures",
        "dropped 1: no title (first: a.csv:9)",
    ]
