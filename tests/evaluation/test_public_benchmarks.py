"""Public benchmarks from their published files to a report: importer, pool, defaults without validation queries."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from make_jax.evaluation.evaluate import evaluate
from make_jax.retrieval.embed import Modality
from make_jax.retrieval.vector_index import ProductEmbeddings
from tests.catalog.importers import published
from tests.catalog.importers.imports import imported


class HashedPictures:
    """Vectors that are a hash of the bytes of images and texts."""

    modalities: Modality = "image"

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([hashed(text.encode("utf-8")) for text in texts])

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        vectors = np.stack([hashed(image or b"") for image in images])
        return ProductEmbeddings(vectors, np.tile(np.array([0, 1], np.float32), (len(images), 1)))


def hashed(data: bytes) -> np.ndarray:
    vector = np.random.default_rng(zlib.crc32(data)).normal(size=16).astype(np.float32)
    return vector / np.linalg.norm(vector)


def test_wands_searches_all_products_with_defaults(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "wands", published.wands(tmp_path / "WANDS"))
    result = evaluate(None, catalog, "test")
    assert result.pool == "all" and len(result.products) == len(catalog.products)
    assert result.parameters["chosen_on"] is None and any("nothing was tuned" in note for note in result.notes)
    assert "No image search: the products searched have no pictures." in result.notes


def test_shopping_queries_are_ordered_in_their_own_pools(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "esci", published.esci(tmp_path / "esci-data"))
    own, split = evaluate(None, catalog, "test"), evaluate(None, catalog, "test", pool="split")
    assert (own.pool, split.pool) == ("judged", "split")
    for query, row in zip(own.judgements.queries, own.rankings["bm25"].indices, strict=True):
        assert {own.products[i].id for i in row if i >= 0} == set(query.rel)
    assert own.judgements.gains == {0: 0, 1: 1, 2: 10, 3: 100}
    assert own.values["random"]["nDCG@10"].mean() > split.values["random"]["nDCG@10"].mean()


def test_muge_searches_the_pictures_of_its_split(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "muge", published.muge(tmp_path / "MUGE"))
    result = evaluate(HashedPictures(), catalog, "test")
    assert list(result.rankings) == ["random", "image"]
    assert {product.split for product in result.products} == {"test"}
    assert {"task:known-item", "task:category"} & set(result.slices)
