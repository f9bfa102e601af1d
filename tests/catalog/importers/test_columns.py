"""Guesses of columns, separators and encodings."""

from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.importers.columns import guess
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.text_tables import delimited


def roles(columns: dict[str, list[Any]], chosen: dict[str, list[str]] | None = None) -> dict[str, str]:
    """Role of each column of a table with a column "title"."""
    count = len(next(iter(columns.values())))
    columns = {"title": [f"t {n}" for n in range(count)], **columns}
    rows = [Row(str(n), {name: values[n] for name, values in columns.items()}) for n in range(count)]
    found = {column.name: column.role for column in guess(Path("t.csv"), list(columns), rows, chosen or {})}
    assert found.pop("title") == "title"
    return found


@pytest.mark.parametrize(
    ("name", "values", "role"),
    [
        ("Product ID", ["a", "b"], "id"),
        ("主图", ["a.jpg", ""], "image"),
        ("item_group_id", [f"g{n // 2}" for n in range(40)], "group"),
        ("group", ["women", "men"] * 20, "text"),  # no variants
        ("split", ["train", "val"], "split"),
        ("split", ["2 parts", "3 parts"], "text"),
        ("year", ["2011", "2012"], "number"),
        ("year", [2011, 2012.0], "number"),
        ("ean", [f"40063813339{n:02}" for n in range(40)], "ignored"),
        ("zip", ["01234", "56789"], "text"),
        ("new", [True, False], "boolean"),
        ("new", ["是", "否"], "boolean"),
        ("new", ["TRUE", "true"], "boolean"),
        ("country", ["NO", "no"], "text"),
        ("size", ["x", "y"], "text"),
        ("标签", ["a, b", "c"], "list"),
        ("sizes", [["S", "M"], ["L"]], "list"),
        ("meta", [{"a": 1}, {}], "ignored"),
        ("meta", [[{"a": 1}], []], "ignored"),
        ("link", ["https://x.example/1", ""], "ignored"),
        ("note", ["long " * 30, "short"], "ignored"),
        ("sku2", [f"s{n}" for n in range(40)], "ignored"),  # a different value in each row
        ("material", ["wool", "", None, float("nan")], "text"),
        ("nothing", ["", None], "ignored"),
    ],
)
def test_the_role_of_a_column(name: str, values: list[Any], role: str) -> None:
    assert roles({name: values}) == {name: role}


def test_the_most_specific_name_is_taken() -> None:
    found = roles({"sku": ["s1", "s2"], "id": ["1", "2"], "sale price": ["5", "6"], "price": ["7", "8"]})
    assert found == {"sku": "text", "id": "id", "sale price": "number", "price": "price"}
    found = roles({"sku": ["s1", "s2"], "id": ["1", "2"]}, {"id": ["sku"], "ignored": ["id"]})
    assert found == {"sku": "id", "id": "ignored"}


@pytest.mark.parametrize(
    ("name", "text", "how", "header"),
    [
        ("a.csv", "id;title\n1;Boots, red\n2;Shoes, blue\n", "UTF-8, separated by semicolon", ["id", "title"]),
        ("a.csv", 'id,title\n1,"a;b\tc"\n2,"d\ne"\n', "UTF-8, separated by comma", ["id", "title"]),
        ("a.tsv", "id\ttitle, color\n1\ta, b\n", "UTF-8, separated by tab", ["id", "title, color"]),
        ("a.txt", "id|title\n1|a\n", "UTF-8, separated by vertical bar", ["id", "title"]),
        ("a.csv", "title\nBoots\n", "UTF-8, separated by comma", ["title"]),
        ("a.csv", "sep=;\r\nid;title\r\n1;a\r\n", "UTF-8, separated by semicolon", ["id", "title"]),
    ],
)
def test_the_separator_is_guessed(tmp_path: Path, name: str, text: str, how: str, header: list[str]) -> None:
    (tmp_path / name).write_bytes(text.encode())
    table, found = delimited(tmp_path / name)
    assert (found, table.header()) == (how, header)
    assert not any(row.fault for row in table.rows(0))


@pytest.mark.parametrize(
    ("encoding", "option"), [("utf-8-sig", ""), ("utf-16", ""), ("gb18030", "gb18030"), ("utf-16-be", "utf-16-be")]
)
def test_encodings_with_a_mark_or_a_given_name_are_read(tmp_path: Path, encoding: str, option: str) -> None:
    (tmp_path / "a.csv").write_bytes("编号,标题\r\n1,红色靴子\r\n2,Café\r\n".encode(encoding, "replace"))
    table, _ = delimited(tmp_path / "a.csv", option)
    rows = list(table.rows(0))
    assert table.header() == ["编号", "标题"] and rows[0].values == {"编号": "1", "标题": "红色靴子"}
    assert [row.place for row in table.rows(1)] == ["a.csv:3"] == [rows[1].place]
