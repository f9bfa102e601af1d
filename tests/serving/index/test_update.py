"""An updated index equals one that is built from the resulting products, row by row."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.retrieval.embed import embed_products
from make_jax.serving.index.check import check_index
from make_jax.serving.index.manifest import Manifest, UpdateEntry
from make_jax.serving.index.model import IndexModel
from make_jax.serving.index.reader import OpenIndex, index_state, open_index
from make_jax.serving.index.update import update_index
from make_jax.serving.index.writer import IndexSettings, build_index
from tests.retrieval.fake_encoder import FakeEncoder
from tests.serving.index.tiny_index import fake_model
from tests.tiny_catalog import write_catalog, write_lines


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    """A copy of the index."""
    return shutil.copytree(built, tmp_path / "index")


class _Opened:
    """Counts how often the model is opened, and which titles it encodes."""

    def __init__(self) -> None:
        self.encoder = FakeEncoder()
        self.count = 0

    def __call__(self, manifest: Manifest) -> IndexModel:
        self.count += 1
        return fake_model(self.encoder)

    @property
    def titles(self) -> list[str]:
        return [title for titles, _ in self.encoder.seen for title in titles]


def changed_catalog(path: Path) -> Catalog:
    """The catalog with other products: p0 has another title, p1 another picture, p2 another color attribute only, p60
    to p62 are new, p61 without a title and p62 without a picture, and p3 to p9 are unchanged."""
    write_catalog(path, products=63, queries=2)
    rows: list[dict[str, Any]] = [json.loads(line) for line in (path / "products.jsonl").read_text().splitlines()]
    rows[0]["title"] = "black circle"
    Image.new("RGB", (700, 350), (0, 0, 255)).save(path / "images" / "p1.png")
    rows[2]["colour"] = "crimson"
    rows[61]["title"] = ""
    write_lines(path / "products.jsonl", rows[:10] + rows[60:])
    write_lines(path / "queries.jsonl", [])
    kept = [line for line in (path / "clicks.jsonl").read_text().splitlines() if json.loads(line)["product"] in "p0 p1"]
    (path / "clicks.jsonl").write_text("\n".join(kept))
    return Catalog.load(path)


def check_rows(index: OpenIndex, catalog: Catalog) -> None:
    """Checks the rows of the catalog's products against the catalog."""
    products = list(catalog.products)
    rows = [index.row(product.id) for product in products]
    assert None not in rows
    expected = embed_products(FakeEncoder(), catalog, catalog.products)
    assert [index.products[row] for row in rows] == products
    np.testing.assert_array_equal(index.vectors[rows], expected.vectors)
    np.testing.assert_array_equal(index.weights[rows], expected.weights)
    for product, row in zip(products, rows, strict=True):
        assert (index.thumbnail(row) is None) == (product.image is None)


def test_an_update_replaces_adds_and_deletes_and_leaves_the_rest(index: Path, catalog: Catalog, tmp_path: Path) -> None:
    before, changed, opened = open_index(index), changed_catalog(tmp_path / "changed"), _Opened()
    done = update_index(index, opened, changed, ["p20", "p21", "p20"])
    assert done is not None
    assert (done.number, done.added, done.replaced, done.unchanged, done.deleted) == (1, 3, 3, 7, 2)
    assert sorted(opened.titles) == sorted(["black circle", *(changed.products[i].title for i in (1, 10, 11, 12))])
    after = open_index(index)
    assert index_state(index) == after.state != before.state
    assert after.continues(before) and not before.continues(after)
    check_rows(after, changed)
    assert [after.row(f"p{i}") for i in (0, 19, 20, 21, 22, 60, 61, 62)] == [0, 19, None, None, 22, 60, 61, 62]
    assert (after.manifest.count, after.manifest.rows, after.manifest.base_rows) == (61, 63, 60)
    kept = np.array([row for row in range(60) if row not in (0, 1, 2)])
    np.testing.assert_array_equal(after.vectors[kept], before.vectors[kept])
    assert list(after.products.select(kept)) == list(before.products.select(kept))
    assert [after.thumbnail(row) for row in (3, 4)] == [before.thumbnail(row) for row in (3, 4)]
    replaced, deleted = after.changes(0)
    assert (replaced.tolist(), deleted.tolist()) == ([0, 1, 2, 60, 61, 62], [20, 21])
    assert np.concatenate([rows.rows for rows in after.engine_rows(7)]).tolist() == [
        row for row in range(63) if row not in (20, 21)
    ]
    assert check_index(index).problems == []
    assert before.row("p20") == 20 and not before.deleted.any()  # a reader keeps the state that it opened


def test_products_that_the_catalog_lacks_are_deleted_on_request(index: Path, tmp_path: Path) -> None:
    changed = changed_catalog(tmp_path / "changed")
    assert _numbers(update_index(index, _Opened(), changed, delete_missing=True)) == (3, 3, 50)
    after = open_index(index)
    check_rows(after, changed)
    assert {product.id for rows in after.engine_rows(99) for product in after.products.select(rows.rows)} == {
        product.id for product in changed.products
    }
    assert update_index(index, _Opened(), changed, delete_missing=True) is None


def test_an_update_of_what_the_index_has_changes_nothing_and_opens_no_model(index: Path, catalog: Catalog) -> None:
    opened = _Opened()
    before = {path: path.read_bytes() for path in index.rglob("*") if path.is_file()}
    assert update_index(index, opened, catalog) is None
    assert opened.count == 0
    assert {path: path.read_bytes() for path in index.rglob("*") if path.is_file()} == before


def test_other_attributes_alone_need_no_model(index: Path, catalog: Catalog, tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, queries=16)
    info = json.loads((path / "catalog.json").read_text())
    (path / "catalog.json").write_text(json.dumps(info | {"attributes": ["colour", "shape"]}))
    opened, other = _Opened(), Catalog.load(path)
    done = update_index(index, opened, other)
    assert done is not None and (done.replaced, opened.count) == (60, 0)
    after = open_index(index)
    check_rows(after, other)
    assert after.manifest.catalog.attributes == ("colour", "category", "shape")


def test_a_product_that_is_added_again_has_its_old_row(index: Path, catalog: Catalog) -> None:
    opened = _Opened()
    assert _numbers(update_index(index, opened, None, ["p5", "p6"])) == (0, 0, 2)
    assert _numbers(update_index(index, opened, None, ["p7"])) == (0, 0, 1)
    assert _numbers(update_index(index, opened, catalog)) == (3, 0, 0)
    assert opened.count == 0  # their vectors are still there
    after = open_index(index)
    check_rows(after, catalog)
    assert not after.deleted.any() and after.manifest.count == 60
    assert [update.number for update in after.updates] == [1, 2, 3]
    assert after.changes(1).replaced.tolist() == [5, 6, 7]
    assert after.changes(3) is not None and not len(after.changes(3).replaced)


def _numbers(done: UpdateEntry | None) -> tuple[int, int, int]:
    assert done is not None
    return done.added, done.replaced, done.deleted


def test_wrong_ids_and_another_model_are_refused_and_nothing_is_written(
    index: Path, catalog: Catalog, tmp_path: Path
) -> None:
    changed = changed_catalog(tmp_path / "changed")
    with pytest.raises(InputError, match=r"--delete 'p98' and 1 more: no product of this index"):
        update_index(index, _Opened(), None, ["p1", "p98", "p99"])
    with pytest.raises(InputError, match=r"--delete 'p61': no product of this index"):
        update_index(index, _Opened(), changed, ["p61"])
    with pytest.raises(InputError, match=r"--delete 'p3': a product of .*changed, expected ids that are not in it"):
        update_index(index, _Opened(), changed, ["p3"])
    encoder = FakeEncoder()
    encoder.digest = "another"
    with pytest.raises(InputError, match=r"fake\.py: its digest is another, expected fake, that of the index's vect"):
        update_index(index, lambda _: fake_model(encoder), changed)
    with pytest.raises(InputError, match=r"the update would delete all 60 products, expected some to stay"):
        update_index(index, _Opened(), None, [f"p{i}" for i in range(60)])
    assert open_index(index).updates == () and check_index(index).problems == []


def test_a_product_without_what_the_model_reads_is_added_with_a_zero_vector(tmp_path: Path, index: Path) -> None:
    path = write_catalog(tmp_path / "titles", products=62, queries=2, missing=False)
    rows = [json.loads(line) for line in (path / "products.jsonl").read_text().splitlines()]
    write_lines(path / "products.jsonl", [row | {"image": None} for row in rows[60:]])
    for name in ("queries.jsonl", "clicks.jsonl"):
        write_lines(path / name, [])
    manifest = open_index(index).manifest
    pictures_only = fake_model(FakeEncoder("image"))
    update = update_index(index, lambda _: pictures_only, Catalog.load(path))
    assert update is not None and update.added == 2 and manifest.model.modality == "both"
    after = open_index(index)
    assert not after.vectors[60:].any() and not after.weights[60:].any()
    assert after.products[60].title


def test_an_index_of_one_split_takes_products_of_that_split_alone(tmp_path: Path, catalog: Catalog) -> None:
    build_index(tmp_path / "index", fake_model(), catalog, IndexSettings(split="test"))
    assert update_index(tmp_path / "index", _Opened(), catalog, delete_missing=True) is None
    path = write_catalog(tmp_path / "train", products=3, queries=0)  # all of split train
    with pytest.raises(InputError, match=r"train: no product of split 'test', which the index is of"):
        update_index(tmp_path / "index", _Opened(), Catalog.load(path), delete_missing=True)
