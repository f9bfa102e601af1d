"""An index holds a catalog's products with the vectors of the encoder, bit for bit."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.retrieval.embed import embed_products
from make_jax.serving.index.reader import index_state, open_index
from make_jax.serving.index.writer import IndexSettings, build_index
from tests.retrieval.fake_encoder import FakeEncoder
from tests.serving.index.tiny_index import fake_model


def test_rows_are_the_products_of_all_splits_with_float32_vectors_of_the_encoder(built: Path, catalog: Catalog) -> None:
    index, expected = open_index(built), embed_products(FakeEncoder(), catalog, catalog.products)
    assert list(index.products) == list(catalog.products)
    assert index.vectors.dtype == np.float32
    np.testing.assert_array_equal(index.vectors, expected.vectors)
    np.testing.assert_array_equal(index.weights, expected.weights)
    assert not index.deleted.any() and index.updates == ()
    assert (index.row("p7"), index.row("unknown")) == (7, None)
    assert (index.manifest.count, index.manifest.width) == (60, 8)
    assert index.manifest.model.digest == "fake" and index.manifest.catalog.digest == catalog.digest
    assert index.manifest.catalog.attributes == ("colour", "category")
    assert index_state(built) == index.state and index.state.version == "v1"


def test_engine_rows_are_all_products_in_parts(built: Path) -> None:
    index = open_index(built)
    parts = list(index.engine_rows(25))
    assert [len(part.rows) for part in parts] == [25, 25, 10]
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), np.arange(60))
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), index.vectors)
    assert all(np.shares_memory(part.vectors, index.vectors) for part in parts)  # no second copy of a large index
    assert parts[1].titles[0] == index.products[25].title
    assert parts[1].attributes[0] == {"colour": "green", "category": "triangle"}


def test_one_split_can_be_indexed(tmp_path: Path, catalog: Catalog) -> None:
    build_index(tmp_path / "index", fake_model(), catalog, IndexSettings(split="test"))
    assert list(open_index(tmp_path / "index").products) == list(catalog.split_products("test"))


def test_thumbnails_are_webp_and_missing_without_an_image(built: Path) -> None:
    index = open_index(built)
    picture = index.thumbnail(0)
    assert picture is not None and index.thumbnail(6) is None
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.size) == ("WEBP", (24, 32))


def test_a_file_of_another_size_or_a_missing_one_is_named_at_open(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "index")
    file = next((tmp_path / "index" / "versions" / "v1" / "vectors").glob("*.parquet"))
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(InputError, match=rf"{file.name}: {len(data) - 1:,} bytes, expected {len(data):,}"):
        open_index(tmp_path / "index")
    file.unlink()
    with pytest.raises(InputError, match=rf"{file.name}: No such file"):
        open_index(tmp_path / "index")


def test_a_folder_that_is_no_index_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not an index, expected a folder that `search.py index` wrote"):
        open_index(tmp_path)
    (tmp_path / "other.txt").touch()
    with pytest.raises(InputError, match=r"holds other\.txt and is no index, expected a new folder or an index"):
        build_index(tmp_path, fake_model(), Catalog.load())


def test_a_version_that_is_removed_stays_readable_for_those_that_use_it(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "index")
    index, kept = open_index(tmp_path / "index"), open_index(built)
    np.testing.assert_array_equal(index.vectors, kept.vectors)
    shutil.rmtree(tmp_path / "index")
    assert list(index.products) == list(kept.products)
    assert [index.thumbnail(row) for row in range(60)] == [kept.thumbnail(row) for row in range(60)]
    np.testing.assert_array_equal(index.weights, kept.weights)


def test_a_version_that_is_removed_while_it_is_opened_is_followed_by_the_next(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (open_index, index_state):
        names = iter(["v7", "v1", "v1", "v1"])  # v7 was current when the file was read, and is gone
        monkeypatch.setattr("make_jax.serving.index.reader.current_version", lambda _, names=names: next(names))
        assert function(built).version == "v1"
