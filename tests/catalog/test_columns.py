"""Records behave like the lists they replace, and columns are found by the files they were made of."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog import columns, reader, stored_columns
from make_jax.catalog.build import build
from make_jax.catalog.reader import MAX_SAMPLE, Catalog
from make_jax.catalog.schema import Click
from tests.tiny_catalog import write_catalog


def test_records_are_indexed_sliced_and_selected_like_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_ROWS_AT_ONCE", 7)
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60))
    products = list(catalog.products)
    assert len(products) == 60 and [product.id for product in products] == [f"p{i}" for i in range(60)]
    val = [product for product in products if product.split == "val"]
    for records, expected in ((catalog.products, products), (catalog.split_products("val"), val)):
        assert records == expected and len(records) == len(expected)
        assert records[3] == expected[3] and records[-1] == expected[-1] and records[np.int32(2)] == expected[2]
        for index in (slice(2, 9), slice(None, None, 3), slice(-4, None), slice(5, 2)):
            assert records[index] == expected[index]
        chosen = [5, 0, 5, 9]
        assert records.select(np.array(chosen)) == [expected[i] for i in chosen]
        assert [id for ids in records.values("id") for id in ids] == [product.id for product in expected]
        assert pickle.loads(pickle.dumps(records)) == expected
        with pytest.raises(IndexError):
            records[len(expected)]


def test_a_catalog_is_mapped_from_its_build_until_a_file_changes(tmp_path: Path) -> None:
    path, cache = write_catalog(tmp_path / "tiny", products=60), str(tmp_path / "cache")
    parsed = Catalog.load(path, cache)
    assert parsed.columns is None
    build(path, cache)
    mapped = Catalog.load(path, cache)
    assert mapped.columns is not None and mapped.digest == parsed.digest and mapped.info == parsed.info
    assert mapped.products == parsed.products and mapped.queries == parsed.queries and mapped.clicks == parsed.clicks
    assert mapped.image_bytes(mapped.products[0]) == parsed.image_bytes(parsed.products[0])
    os.utime(path / "images/p0.png")  # its content may have changed
    assert Catalog.load(path, cache).columns is None
    build(path, cache)  # the content has not: the build is found again by the new times
    assert Catalog.load(path, cache).columns == mapped.columns
    (path / "clicks.jsonl").write_text("")
    assert len(Catalog.load(path, cache).clicks) == 0


def test_a_mapped_catalog_reads_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write_catalog(tmp_path / "tiny"), str(tmp_path / "cache")
    build(path, cache)
    monkeypatch.setattr(stored_columns, "read_valid", None)
    monkeypatch.setattr(reader, "read", None)
    assert len(Catalog.load(path, cache).products) == 24


def test_other_clicks_replace_or_follow_those_of_the_file(tmp_path: Path) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny"))
    clicks = [Click("q", "p5"), Click("r", "p0", "en"), Click("q", "p5")]
    replaced, added = catalog.with_clicks(clicks, "x"), catalog.with_clicks(clicks, "x", add=True)
    assert replaced.clicks == clicks and replaced.clicked.tolist() == [5, 0, 5] and replaced.derivation == "x"
    assert added.clicks == [*catalog.clicks, *clicks] and added.digest == catalog.digest
    assert len(catalog.with_clicks([], "x").clicks) == 0


def test_a_training_sample_is_every_nth_product_and_its_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny", products=60))
    assert MAX_SAMPLE >= 500_000
    products, clicks = catalog.training_sample()
    assert products == catalog.split_products("train") and clicks == catalog.clicks  # complete
    monkeypatch.setattr(reader, "MAX_SAMPLE", 20)
    sampled, of_sample = catalog.training_sample()
    assert sampled == list(products)[::2]
    ids = {product.id for product in sampled}
    assert of_sample == [click for click in clicks if click.product in ids]
