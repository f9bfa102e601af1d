"""Text files of importers: unclosed quotes, fields of several lines, byte-order marks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from make_jax.catalog.importers import tables
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from tests.catalog.importers import published
from tests.catalog.importers.imports import imported
from tests.catalog.importers.test_malformed import Corruption, replace


def title_of(number: int, title: str) -> Corruption:
    """Replaces the title of a product of Fashion Product Images; the new one may have a quote."""

    def corrupt(source: Path) -> None:
        lines = (source / "styles.csv").read_text(encoding="utf-8").splitlines()
        lines[number + 1] = ",".join([*lines[number + 1].split(",")[:9], title])
        (source / "styles.csv").write_text("\n".join(lines), encoding="utf-8")

    return corrupt


@pytest.mark.parametrize(
    ("name", "publish", "corruptions", "line", "lost"),
    [
        ("fashion", published.kaggle_fashion, [title_of(3, '"No Mornings Tee')], "styles.csv:5", 1),
        ("fashion", published.kaggle_fashion, [title_of(23, '"No Mornings Tee')], "styles.csv:25", 1),  # end of file
        ("fashion", published.kaggle_fashion, [title_of(3, '"Tee'), title_of(6, 'Heel 9"')], "styles.csv:5", 1),
        ("fashion", published.kaggle_fashion, [title_of(3, '"Tee'), title_of(6, '"Top')], "styles.csv:5", 2),
        ("wands", published.wands, [replace("dataset/query.csv", "d\xc3\xa9cor", '"decor')], "query.csv:3", 1),
    ],
)
def test_an_unclosed_quote_loses_its_own_line_alone(
    tmp_path: Path, name: str, publish: Callable[[Path], Path], corruptions: list[Corruption], line: str, lost: int
) -> None:
    complete = imported(tmp_path / "complete", name, publish(tmp_path / "source"))
    for corrupt in corruptions:
        corrupt(tmp_path / "source")
    with pytest.raises(InputError, match=rf"{line}: a quote opens a field and none closes it"):
        imported(tmp_path / "out", name, tmp_path / "source")
    catalog = imported(tmp_path / "out", name, tmp_path / "source", "--bad-rows", "9")
    records = len(catalog.products) + len(catalog.queries)
    assert records == len(complete.products) + len(complete.queries) - lost


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('id,text\r\n1,"two\r\nlines quoted"\r\n\r\n2,b', [["1", "two\r\nlines quoted"], ["2", "b"]]),
        ('id,text\n"1\n2",a\n3,b\n', [["1\n2", "a"], ["3", "b"]]),
        ('id,text\n1,5" heel\n2,"Puma" shoe\n3,"a ""b"""\n', [["1", '5" heel'], ["2", "Puma shoe"], ["3", 'a "b"']]),
    ],
)
def test_quoted_fields_of_several_lines_are_read(tmp_path: Path, text: str, expected: list[list[str]]) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    table = tables.Csv(tmp_path / "a.csv", ("id", "text"))
    rows = list(table.rows(0))
    assert [list(row.values.values()) for row in rows] == expected and not any(row.fault for row in rows)
    assert [row.place for row in table.rows(1)] == [row.place for row in rows[1:]]


@pytest.mark.parametrize("publish", [published.kaggle_fashion, published.wands, published.muge])
def test_byte_order_marks_are_no_part_of_the_text(tmp_path: Path, publish: Callable[[Path], Path]) -> None:
    name = {"kaggle_fashion": "fashion"}.get(publish.__name__, publish.__name__)
    source = publish(tmp_path / "source")
    plain = imported(tmp_path / "plain", name, source)
    for file in [file for file in source.rglob("*") if file.suffix in (".csv", ".tsv", ".json", ".jsonl")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    marked = imported(tmp_path / "marked", name, source)
    assert (marked.products, marked.queries, marked.clicks) == (plain.products, plain.queries, plain.clicks)
    for file in ("products.jsonl", "queries.jsonl", "clicks.jsonl", "catalog.json"):
        path = tmp_path / "marked" / file
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Catalog.load(tmp_path / "marked").products == plain.products


def test_a_byte_order_mark_may_begin_a_large_object(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b'\xef\xbb\xbf{"k": {"n": 1}}')
    assert [row.values for row in tables.JsonMembers(tmp_path / "large.json").rows(0)] == [{"n": 1, "key": "k"}]
