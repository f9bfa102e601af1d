"""Columns of search queries: clicks of training products, and one product for the rows of one."""

import json
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.importers import import_state
from make_jax.catalog.importers.columns import guess
from make_jax.catalog.importers.rows import Row
from tests.catalog.importers.contents import contents
from tests.catalog.importers.imports import imported
from tests.catalog.importers.published import encoded_image, write_parquet
from tests.catalog.importers.samples import img2dataset_folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def role(name: str, values: list[Any]) -> str:
    rows = [Row(str(n), {"title": "t", name: value}) for n, value in enumerate(values)]
    return guess(Path("t.csv"), ["title", name], rows, {})[1].role


@pytest.mark.parametrize("name", ["query", "Search Query", "search_term", "搜索词"])
def test_queries_are_guessed_from_names(name: str) -> None:
    assert role(name, ["red boots", "hat"]) == "query"
    assert role(name, [["red boots", "boots"], []]) == "query"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("keywords", ["a, b", "c"]),  # a list of attributes
        ("keyword", ["boots", "hat"]),  # a shop's own word for search engines
        ("query", [1, 2]),
        ("query", ["", None]),
        ("query", ["x" * 300, "hat"]),
        ("query", ["https://example.com/?q=a", "hat"]),
    ],
)
def test_other_columns_are_no_queries(name: str, values: list[Any]) -> None:
    assert role(name, values) != "query"


ROWS = [
    {"sku": "a", "title": "Red boots", "split": "train", "query": "red  boots", "rank": 2},
    {"sku": "b", "title": "Blue hat", "split": "val", "query": "hat", "rank": 1},
    {"sku": "a", "title": "Red boots", "split": "train", "query": "winter boots", "rank": 1},
    {"sku": "a", "title": "Red winter boots", "split": "test", "query": "secret", "rank": 1},
    {"sku": "c", "title": "Green scarf", "split": "train", "query": "", "rank": 1},
    {"sku": "d", "title": "Black scarf", "split": "test", "query": "scarf", "rank": 1},
]


def test_queries_of_training_products_become_clicks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    catalog = imported(tmp_path / "out", "table", source)
    assert [(product.id, product.title) for product in catalog.products] == [
        ("a", "Red boots"), ("b", "Blue hat"), ("c", "Green scarf"), ("d", "Black scarf"),
    ]  # fmt: skip
    assert lines(tmp_path / "out/clicks.jsonl") == [
        {"query": "red boots", "product": "a"},
        {"query": "winter boots", "product": "a"},
    ]
    assert not catalog.queries
    report = capsys.readouterr().out
    assert "joined 2: rows of one product, each with its query" in report
    assert "taken 2: queries of training products, as clicks" in report
    for dropped in ("val products", "test products", "test rows of training products"):
        assert f"dropped 1: queries of {dropped}: clicks are training pairs and no judgements" in report
    assert "noted 1: rows of one product have different titles; the first is used" in report
    assert report.count("rows without a query") == 1
    assert "queries of test products" in (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")


def test_rows_without_an_id_are_one_product_if_title_and_image_are_equal(tmp_path: Path) -> None:
    rows = [
        {"title": "Red boots", "image": encoded_image(1), "query": ["boots", "red boots"], "split": "train"},
        {"title": "Red boots", "image": encoded_image(2), "query": ["shoes"], "split": "train"},
        {"title": "Red boots", "image": encoded_image(1), "query": ["winter boots"], "split": "train"},
    ]
    write_parquet(tmp_path / "pairs.parquet", rows)
    catalog = imported(tmp_path / "out", "table", tmp_path / "pairs.parquet")
    assert [catalog.image_bytes(product) for product in catalog.products] == [encoded_image(1), encoded_image(2)]
    first, second = (product.id for product in catalog.products)
    found = [(click["query"], click["product"]) for click in lines(tmp_path / "out/clicks.jsonl")]
    assert found == [("boots", first), ("red boots", first), ("winter boots", first), ("shoes", second)]


def test_an_import_with_queries_resumes_byte_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_state, "BATCH", 2)
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    imported(tmp_path / "complete/out", "table", source)
    note = import_state.ImportState.note

    def fail(state: Any, outcome: Any, reason: str, place: str, count: int = 1) -> None:
        if "test products" in reason:
            raise KeyboardInterrupt
        note(state, outcome, reason, place, count)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(import_state.ImportState, "note", fail)
        imported(tmp_path / "out", "table", source)
    imported(tmp_path / "out", "table", source)
    assert contents(tmp_path / "out") == contents(tmp_path / "complete/out")


def test_a_query_column_of_img2dataset_is_taken_only_if_named(tmp_path: Path) -> None:
    source = img2dataset_folder(tmp_path / "pairs", "parquet")
    for path in source.glob("*.parquet"):
        import pyarrow.parquet as parquet

        table = parquet.read_table(path)
        parquet.write_table(table.rename_columns({"brand": "query"}), path)
    assert not imported(tmp_path / "out", "img2dataset", source).clicks
    assert imported(tmp_path / "named", "img2dataset", source, "--columns", "title=caption", "query=query").clicks
