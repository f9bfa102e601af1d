"""What `check` reports about valid catalogs: what they cannot be used for, and warnings."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from make_jax.catalog.__main__ import main
from make_jax.catalog.check import check
from make_jax.catalog.plausibility import limits
from make_jax.catalog.reader import Catalog
from tests.tiny_catalog import write_catalog, write_lines

Rows = list[dict[str, Any]]


def rows_of(folder: Path, name: str) -> Rows:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty products with different titles and pictures, no warning."""
    return write_catalog(tmp_path / "tiny", products=30, missing=False)


def product(id: str, **keys: Any) -> dict[str, Any]:
    return {"id": id, "title": f"shoe {id}", "split": "train"} | keys


def query(qid: str, text: str, rel: dict[str, int], split: str = "test") -> dict[str, Any]:
    return {"qid": qid, "text": text, "split": split, "rel": rel}


def warnings_of(folder: Path, products: Rows, queries: Rows = (), clicks: Rows = (), **info: Any) -> list[str]:  # type: ignore[assignment]
    write_lines(folder / "products.jsonl", products)
    write_lines(folder / "queries.jsonl", list(queries))
    write_lines(folder / "clicks.jsonl", list(clicks))
    (folder / "catalog.json").write_text(json.dumps(info))
    checked = check(folder)
    assert checked.problems.messages == []
    return checked.warnings.grouped()


def test_a_complete_catalog_has_no_limits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limits(Catalog.load(folder)) == []
    assert main(["check", str(folder)]) == 0
    assert "cannot" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("removed", "split", "expected"),
    [
        (
            "clicks.jsonl",
            None,
            "cannot train on clicks: none on training products; write pairs of query and product",
        ),
        (
            "queries.jsonl",
            None,
            "cannot be evaluated, and training does not validate: no judged queries; write some to",
        ),
        ("", ("products.jsonl", "test"), 'cannot train: no product has "split": "train"; set it in products.jsonl'),
        ("", ("queries.jsonl", "test"), 'training does not validate: no query has "split": "val"'),
        ("", ("queries.jsonl", "val"), 'eval.py needs --split: no query has "split": "test"'),
        ("", ("products.jsonl", None), "cannot train: no product has a split, which search does not need; set"),
    ],
)
def test_check_says_what_cannot_be_done_and_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], removed: str, split: Any, expected: str
) -> None:
    if removed:
        (folder / removed).unlink()
    else:
        write_lines(folder / split[0], [row | {"split": split[1]} for row in rows_of(folder, split[0])])
    assert main(["check", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line.startswith(("cannot", "no product", "training", "eval.py"))]
    assert found[0].startswith(expected)
    without_splits = ['cannot be evaluated: no product has a split; set it, or "pool": "all" in catalog.json']
    assert found[1:] == (without_splits if split and split[1] is None else [])


def test_grades_below_the_relevant_one_are_no_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(folder, "queries.jsonl")
    write_lines(folder / "queries.jsonl", [row | {"rel": dict.fromkeys(row["rel"], 1)} for row in rows])
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert 'cannot be evaluated: no judgement has grade 3 or more, the highest is 1; set "relevant" in' in out
    count = sum(bool(row["rel"]) for row in rows)
    assert f"rel: no grade of 3 or more, so evaluation leaves the query out ({count} lines" in out


def test_problems_hide_the_limits_they_may_explain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(folder / "clicks.jsonl", [{"query": "", "product": "p0"}])
    assert main(["check", str(folder)]) == 2
    assert "cannot train" not in capsys.readouterr().out


def test_an_attribute_that_no_product_has(tmp_path: Path) -> None:
    products = [product("a", color="red", size=None), product("b", color="blue", size="")]
    attributes = ["colour", "size", "category", "zzz", "sizes"]
    assert warnings_of(tmp_path, products, attributes=attributes) == [
        'catalog.json: attributes: no product has the key "colour"; did you mean "color"?',
        *(f'catalog.json: attributes: no product has a value of "{key}"' for key in ("size", "category")),
        *(
            f'catalog.json: attributes: no product has the key "{key}"; expected a key of products.jsonl'
            for key in ("zzz", "sizes")  # "size" is named already
        ),
    ]


def test_an_attribute_of_numbers_and_texts(tmp_path: Path) -> None:
    products = [product("a", price=1, size="S"), product("b", price="1,50", size=["S", "M"]), product("c", price=2.5)]
    assert warnings_of(tmp_path, products, attributes=["price", "size"]) == [
        'catalog.json: attributes: "price" is a number in 2 products and text in 1; expected one of them'
    ]


def test_a_key_that_looks_like_a_key_of_the_format(tmp_path: Path) -> None:
    products = [product("a", catagory=["x"], groups="g", images=[], titles="t", other=1)]
    assert warnings_of(tmp_path, products) == [
        'products.jsonl: "catagory" is ignored; did you mean "category"?',
        'products.jsonl: "groups" is ignored; did you mean "group"?',
        'products.jsonl: "images" is ignored; did you mean "image"?',
    ]
    products[0] |= {"category": ["x"], "group": "g"}
    assert len(warnings_of(tmp_path, products, attributes=["images"])) == 1  # an attribute without a value


def test_queries_without_a_judgement_or_a_relevant_product(tmp_path: Path) -> None:
    products = [product("a", split="test")]
    queries = [query("1", "x", {}), query("2", "y", {"a": 2}), query("3", "z", {"a": 3}), query("4", "w", {})]
    assert warnings_of(tmp_path, products, queries) == [
        "queries.jsonl:1: rel: empty, so evaluation leaves the query out (2 lines: 1, 4)",
        "queries.jsonl:2: rel: no grade of 3 or more, so evaluation leaves the query out",
    ]


def test_contradicting_judgements_of_one_text(tmp_path: Path) -> None:
    products = [product(id, split="test") for id in ("a", "b", "c")]
    queries = [
        query("1", "Red  Shoe", {"a": 3, "b": 1}),
        query("2", "ｒed shoe", {"b": 3}, "val"),  # full width
        query("3", "red shoe", {"c": 3, "a": 3}),  # agrees, but is counted twice
        query("4", "red shoes", {"a": 3, "b": 0}),
        query("5", "RED\u00a0SHOE", {"a": 0, "b": 3}, "val"),
    ]
    found = warnings_of(tmp_path, products, queries, pool="all")
    assert found == [
        'queries.jsonl:2: rel: grade 3 of "b", but 1 in line 1 for the same text',
        'queries.jsonl:5: rel: grade 0 of "a", but 3 in line 1 for the same text',
        "queries.jsonl:3: text: the same as in line 1 of the same split; judge one query per text",
    ]


def test_judgements_that_the_pool_excludes(tmp_path: Path) -> None:
    products = [product("a", split="test"), product("b"), product("c", split="val")]
    queries = [query("1", "x", {"a": 3, "b": 3}), query("2", "y", {"b": 3, "c": 1, "a": 1}), query("3", "z", {"a": 3})]
    assert warnings_of(tmp_path, products, queries) == [
        'catalog.json: pool: "split" excludes 3 judgements of products of other splits, and 1 of 3 queries, which keep '
        'no relevant product; "all" searches all products'
    ]
    assert warnings_of(tmp_path, products, queries, pool="all") == []


def test_repeated_products_and_pictures(folder: Path) -> None:
    rows = rows_of(folder, "products.jsonl")
    for i in range(len(rows)):
        number = 0 if i in (1, 4, 5, 6) else i
        Image.new("RGB", (1, 1), (number, 0, 0)).save(folder / f"images/p{i}.png")
    rows[1] |= {"title": rows[0]["title"]}  # all of row 0 under another id
    rows[4] |= {"title": rows[0]["title"]}  # the same in the test split
    rows[5] |= {"title": "another"}
    rows[6] |= {"title": rows[0]["title"], "group": rows[0]["group"], "category": rows[0]["category"]}  # a variant
    rows[7] |= {"image": rows[8]["image"]}
    (folder / "queries.jsonl").unlink()
    (folder / "clicks.jsonl").unlink()
    assert warnings_of(folder, rows, attributes=["colour"]) == [
        "products.jsonl:2: the same product as line 1 under another id",
        'products.jsonl:5: the same product as line 1 under another id, there in the split "train", here in "test"',
        "products.jsonl:6: image: the same picture as line 1",
        "products.jsonl:9: image: the same picture as line 8",
    ]


def test_a_group_in_several_splits(tmp_path: Path) -> None:
    products = [product("a", group="g"), product("b", group="g"), product("c", group="g", split="test"), product("d")]
    assert warnings_of(tmp_path, products) == [
        'products.jsonl:3: group: "g" is in the splits "train" and "test"; variants belong in one'
    ]


def test_ignored_clicks_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    products = [product("a"), product("b", split="val"), product("c", split="test")]
    clicks = [{"query": f"x{i}", "product": "abc"[i % 3]} for i in range(12)]
    assert warnings_of(tmp_path, products, clicks=clicks) == [
        'clicks.jsonl:2: product: "b" is in the split "val", so training ignores the click',
        'clicks.jsonl:3: product: "c" is in the split "test", so training ignores the click',
        'clicks.jsonl:5: product: "b" is in the split "val", so training ignores the click',
        "clicks.jsonl: ... 5 more like these, 8 in all",
    ]
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("warning: clicks.jsonl:2: ")
    assert "4 clicks\n" in out and f"{tmp_path}: no problems, 8 warnings" in out
    assert main(["check", str(tmp_path), "--all"]) == 0
    assert capsys.readouterr().out.count("warning: clicks.jsonl:") == 8


def test_describe_shows_limits_and_counts_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "products.jsonl", [product("a"), product("b", title="shoe a")])
    assert main(["describe", str(tmp_path), "--out", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    assert "cannot train on clicks: none" in out and "warnings: 1; `check` lists them" in out
