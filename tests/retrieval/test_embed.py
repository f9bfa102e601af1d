from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Query
from make_jax.errors import InputError
from make_jax.retrieval import embed
from make_jax.retrieval.embed import embed_products, embed_queries
from make_jax.retrieval.vector_index import ProductEmbeddings
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.load(write_catalog(tmp_path / "tiny"))


def test_products_are_embedded_in_chunks_and_in_order(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = embed_products(FakeEncoder(), catalog, catalog.products)
    monkeypatch.setattr(embed, "_CHUNK_SIZE", 5)
    encoder, steps = FakeEncoder(), []
    chunked = embed_products(encoder, catalog, catalog.products, progress=lambda *step: steps.append(step))
    np.testing.assert_array_equal(chunked.vectors, at_once.vectors)
    np.testing.assert_array_equal(chunked.weights, at_once.weights)
    assert [len(titles) for titles, _ in encoder.seen] == [5, 5, 5, 5, 4]
    assert steps[-1] == ("products (both)", 24, 24)


def test_title_only_passes_no_image_and_image_only_no_title(catalog: Catalog) -> None:
    encoder = FakeEncoder()
    title = embed_products(encoder, catalog, catalog.products, "title")
    image = embed_products(encoder, catalog, catalog.products, "image")
    (titles, no_images), (no_titles, images) = encoder.seen
    assert all(titles) and set(no_images) == {None}
    assert set(no_titles) == {""} and None not in images
    assert title.absent.tolist() == [not product.title for product in catalog.products]
    assert image.absent.tolist() == [product.image is None for product in catalog.products]
    assert title.absent.any() and image.absent.any()
    assert not title.vectors[title.absent].any()


def test_hidden_titles_are_not_given_to_the_encoder(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", missing=False)
    info = (path / "catalog.json").read_text().replace('"relevant": 3', '"relevant": 3, "hide_title": true')
    (path / "catalog.json").write_text(info)
    hidden = Catalog.load(path)
    encoder = FakeEncoder()
    embed_products(encoder, hidden, hidden.products)
    assert set(encoder.seen[0][0]) == {""}
    with pytest.raises(InputError, match="hide_title"):
        embed_products(encoder, hidden, hidden.products, "title")


def test_vectors_that_are_not_finite_are_an_input_error(catalog: Catalog) -> None:
    class Diverged(FakeEncoder):
        def encode_queries(self, texts: object) -> np.ndarray:
            return np.full((1, 8), np.nan, np.float32)

        def encode_products(self, titles: object, images: object) -> ProductEmbeddings:
            return ProductEmbeddings(np.full((24, 8), np.inf, np.float32), np.full((24, 2), 0.5, np.float32))

    with pytest.raises(InputError, match="not finite"):
        embed_queries(Diverged(), [Query("q", "red", "test", {})])
    with pytest.raises(InputError, match="not finite"):
        embed_products(Diverged(), catalog, catalog.products)
