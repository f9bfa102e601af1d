"""The record of training data: what counts as trained on, what a run began with, damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.runs.training_data import NAME, Overlap, TrainingData, TrainingRecord, read_record, write_record
from tests.tiny_catalog import write_catalog, write_lines


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=8))


def changed(catalog: Catalog, folder: Path, **values: object) -> Catalog:
    """Another catalog with the same images, in which all products have other values."""
    path = write_catalog(folder, products=60, queries=8)
    rows = [json.loads(line) for line in (path / "products.jsonl").read_text("utf-8").splitlines()]
    write_lines(path / "products.jsonl", [row | values for row in rows])
    (path / "clicks.jsonl").write_text("")
    return Catalog.load(path)


def overlap(record: TrainingRecord, catalog: Catalog) -> Overlap:
    return record.overlap(catalog, catalog.products, catalog.queries)


def test_training_products_and_clicked_queries_are_counted_in_other_splits(catalog: Catalog, tmp_path: Path) -> None:
    record = TrainingRecord.of(catalog)
    assert overlap(record, catalog) == (36, 0, 8)
    assert record.overlap(catalog, catalog.split_products("test"), []) == (0, 0, 0)
    again = changed(catalog, tmp_path / "again", split="test")
    assert overlap(record, again) == (36, 0, 8)
    assert again.digest != catalog.digest == record.catalogs[-1]


def test_equal_ids_with_other_titles_are_counted_apart_and_other_ids_not_at_all(
    catalog: Catalog, tmp_path: Path
) -> None:
    record = TrainingRecord.of(catalog)
    untitled = sum(not product.title for product in catalog.split_products("train"))
    assert overlap(record, changed(catalog, tmp_path / "titles", title="other"))[:2] == (0, 36)
    pictures = changed(catalog, tmp_path / "untitled", title="", image="images/p0.png")
    assert overlap(record, pictures)[:2] == (0, 36) and untitled > 0  # known by their own images
    path = write_catalog(tmp_path / "ids", products=60)
    rows = [json.loads(line) for line in (path / "products.jsonl").read_text("utf-8").splitlines()]
    write_lines(path / "products.jsonl", [row | {"id": f"x{row['id']}"} for row in rows])
    (path / "clicks.jsonl").write_text("")
    (path / "queries.jsonl").write_text('{"qid": "q", "text": "RED\\u3000 circle", "split": "test", "rel": {}}\n')
    assert overlap(record, Catalog.load(path)) == (0, 0, 1)  # in the normal form of training


def test_a_record_has_sixteen_bytes_a_product_and_reads_as_written(catalog: Catalog, tmp_path: Path) -> None:
    write_record(tmp_path, catalog, None, resumed=False)
    found, record = read_record(tmp_path), TrainingRecord.of(catalog)
    assert found is not None and found.catalogs == (catalog.digest,) and found.complete
    for name in ("products", "ids", "queries"):
        np.testing.assert_array_equal(getattr(found, name), getattr(record, name))
    assert found.products.nbytes + found.ids.nbytes == 16 * 36
    assert (tmp_path / NAME).stat().st_size < 16 * 36 + 8 * len(found.queries) + 500
    assert len(found.queries) == len({click.query for click in catalog.clicks})


def test_a_run_that_began_with_another_knows_the_products_of_both(catalog: Catalog, tmp_path: Path) -> None:
    other = changed(catalog, tmp_path / "other", split="train", title="other")
    write_record(tmp_path / "first", other, None, resumed=False)
    began = {"checkpoint": str(tmp_path / "first/checkpoints/best/000100")}
    write_record(tmp_path / "second", catalog, began, resumed=False)
    record = read_record(tmp_path / "second")
    assert record is not None and record.complete and record.catalogs == (other.digest, catalog.digest)
    assert overlap(record, other)[0] == 60 and overlap(record, catalog)[0] == 36
    assert TrainingData(tmp_path / "second", "ignored").catalog_digest == catalog.digest
    for unknown in ({"checkpoint": "000100"}, {"catalog_digest": None}):
        write_record(tmp_path / "third", catalog, unknown, resumed=False)
        record = read_record(tmp_path / "third")
        assert record is not None and not record.complete


def test_a_resumed_run_keeps_its_record_and_an_older_one_gets_it(catalog: Catalog, tmp_path: Path) -> None:
    write_record(tmp_path, catalog, None, resumed=True)
    first = (tmp_path / NAME).read_bytes()
    write_record(tmp_path, changed(catalog, tmp_path / "other", title="x"), None, resumed=True)
    assert (tmp_path / NAME).read_bytes() == first
    assert TrainingData(tmp_path / "none").record is None
    assert [TrainingData(tmp_path / "none", digest).catalog_digest for digest in ("a", None, 7)] == ["a", None, None]


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_record_is_named(content: bytes | None, catalog: Catalog, tmp_path: Path) -> None:
    write_record(tmp_path, catalog, None, resumed=False)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    with pytest.raises(InputError, match=rf"{NAME}: damaged, expected the hashes of training products"):
        read_record(tmp_path)
