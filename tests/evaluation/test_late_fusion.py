import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.evaluation.eval_split import EvalSplit
from make_jax.evaluation.evaluate import evaluate
from make_jax.evaluation.late_fusion import DEFAULT_WEIGHT, WEIGHTS, LateFusion, fuse, fuse_on_disk
from make_jax.evaluation.search_pool import SearchPool
from make_jax.retrieval.embed import Modality, embed_products
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.top_k import no_progress, top_k
from make_jax.retrieval.vector_index import DiskEmbeddings, ProductEmbeddings
from tests.retrieval.fake_encoder import FakeEncoder
from tests.tiny_catalog import write_catalog


class FakeTowers:
    """Titles are uninformative where `blind`; images give the color."""

    def __init__(self, blind: bool = False) -> None:
        self.blind, self.encoded = blind, {"texts": 0, "images": 0}

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded["texts"] += len(texts)
        titled = [text if not (self.blind and "number" in text) else "nothing" for text in texts]
        return FakeEncoder().encode_queries(titled)

    encode_titles = encode_queries

    def encode_images(self, images: Sequence[bytes]) -> np.ndarray:
        self.encoded["images"] += len(images)
        return FakeEncoder().encode_products([""] * len(images), list(images)).vectors


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


def test_fused_vectors_are_the_weighted_mean_in_unit_length_and_one_alone_stays() -> None:
    title = ProductEmbeddings(
        np.array([[1, 0], [0, 1], [0, 0], [0, 0]], np.float32), np.array([[1, 0], [1, 0], [0, 0], [0, 0]], np.float32)
    )
    image = ProductEmbeddings(
        np.array([[0, 1], [0, 0], [1, 0], [0, 0]], np.float32), np.array([[0, 1], [0, 0], [0, 1], [0, 0]], np.float32)
    )
    out = fuse(title, image, 0.75)
    expected = np.array([0.75, 0.25]) / np.hypot(0.75, 0.25)
    np.testing.assert_allclose(out.vectors, [expected, [0, 1], [1, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(out.weights, [[0.75, 0.25], [1, 0], [0, 1], [0, 0]])
    assert out.absent.tolist() == [False, False, False, True]
    only = fuse(title, image, 0.0)  # weight 0 of titles takes them from products that have an image, not from others
    np.testing.assert_allclose(only.vectors, [[0, 1], [0, 1], [1, 0], [0, 0]])


def test_the_encoder_equals_fuse(catalog: Catalog) -> None:
    some = catalog.products[:24]
    titles = [product.title for product in some]
    images = [catalog.image_bytes(product) for product in some]
    encoder = LateFusion(FakeTowers(), 0.3)
    both = encoder.encode_products(titles, images)
    alone = [encoder.encode_products(titles, [None] * 24), encoder.encode_products([""] * 24, images)]
    np.testing.assert_allclose(both.vectors, fuse(*alone, 0.3).vectors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both.vectors, axis=1), 1, atol=1e-6)


def test_the_weight_of_titles_is_chosen_on_validation_and_each_product_is_encoded_once(catalog: Catalog) -> None:
    towers = FakeTowers()
    result = evaluate(LateFusion(towers), catalog, "test")
    chosen = result.parameters["late_fusion"]
    assert list(result.rankings) == ["random", "bm25", "title", "image", "joint", "joint+bm25"]
    curve = chosen["validation nDCG@10 by weight"]
    assert list(curve) == [f"{weight:g}" for weight in WEIGHTS]
    best = max(curve.values())
    assert chosen["weight"] == min(weight for weight in WEIGHTS if curve[f"{weight:g}"] == best)
    held = [product for product in catalog.products if product.split != "train"]
    assert towers.encoded["images"] == sum(product.image is not None for product in held)
    expected = evaluate(Plain(LateFusion(FakeTowers(), chosen["weight"])), catalog, "test")
    np.testing.assert_array_equal(result.rankings["joint"].indices, expected.rankings["joint"].indices)


class Plain:
    """The same towers as an encoder without a tunable weight."""

    modalities = "both"

    def __init__(self, inner: LateFusion) -> None:
        self.encode_queries, self.encode_products = inner.encode_queries, inner.encode_products


def test_vectors_on_disk_are_fused_as_in_memory_in_float16(catalog: Catalog, tmp_path: Path) -> None:
    encoder = LateFusion(StoredTowers(), 0.3)
    alone: dict[Modality, tuple[DiskEmbeddings, ProductEmbeddings]] = {}
    for modality in ("title", "image"):
        folder = tmp_path / modality
        disk = embed_to_disk(encoder, catalog, catalog.products, folder, "all", modality, per_shard=7)
        memory = embed_products(encoder, catalog, catalog.products, modality)
        alone[modality] = disk, replace(memory, vectors=memory.vectors.astype(np.float16).astype(np.float32))
    (title, title_memory), (image, image_memory) = alone["title"], alone["image"]
    found, expected = fuse_on_disk(title, image, 0.3), fuse(title_memory, image_memory, 0.3)
    for most in (3, 100):
        blocks = list(found.vectors.blocks(most))
        assert [block.first for block in blocks] == np.cumsum([0] + [len(b.vectors) for b in blocks[:-1]]).tolist()
        np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), expected.vectors)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert title.absent.any() and image.absent.any() and not found.absent.any()
    queries = encoder.encode_queries(["red circle", "blue"])
    np.testing.assert_array_equal(found.search(queries, 60).indices, expected.search(queries, 60).indices)
    assert found.vector_bytes == 2 * expected.width * 2


def test_the_weight_is_tuned_on_disk_without_encoding_again(catalog: Catalog, tmp_path: Path) -> None:
    memory = evaluate(LateFusion(StoredTowers()), catalog, "test")
    disk = evaluate(LateFusion(StoredTowers()), catalog, "test", vectors_folder=tmp_path)
    again = StoredTowers()
    repeated = evaluate(LateFusion(again), catalog, "test", vectors_folder=tmp_path)
    assert isinstance(disk.embeddings, DiskEmbeddings) and again.encoded["images"] == 0
    assert disk.parameters["late_fusion"]["weight"] == memory.parameters["late_fusion"]["weight"]
    np.testing.assert_array_equal(repeated.rankings["joint"].indices, disk.rankings["joint"].indices)


class StoredTowers(FakeTowers):
    """Towers with a digest."""

    digest = "fake towers"


def test_uninformative_titles_get_weight_0(catalog: Catalog) -> None:
    chosen = evaluate(LateFusion(FakeTowers(blind=True)), catalog, "test").parameters["late_fusion"]
    assert chosen["weight"] < 0.5


def test_the_default_is_used_and_noted_without_validation_queries(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, queries=16)
    lines = (path / "queries.jsonl").read_text("utf-8").splitlines(keepends=True)
    (path / "queries.jsonl").write_text("".join(line for line in lines if '"split": "test"' in line), encoding="utf-8")
    result = evaluate(LateFusion(FakeTowers(), title_weight=0.9), Catalog.load(path), "test")
    assert result.parameters["late_fusion"] == {"weight": DEFAULT_WEIGHT}
    assert any("titles have the default weight 0.5 in the late fusion" in note for note in result.notes)


def test_a_catalog_without_titles_is_searched_by_images(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, queries=16, missing=False)
    rows = [json.loads(line) | {"title": ""} for line in (path / "products.jsonl").read_text("utf-8").splitlines()]
    (path / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    towers = FakeTowers()
    catalog = Catalog.load(path)
    result = evaluate(LateFusion(towers), catalog, "test")
    images = result.rankings["image"]
    queries = towers.encode_queries([query.text for query in result.judgements.queries])
    vectors = towers.encode_images([catalog.image_bytes(product) or b"" for product in result.products])
    np.testing.assert_array_equal(images.indices, top_k(queries, vectors, 12).indices)


def test_the_fusion_of_a_weight_is_computed_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    split = EvalSplit(LateFusion(StoredTowers(), 0.3), catalog, SearchPool.of(catalog, "test"), no_progress)
    first = split.index()
    assert split.index() is first
    split.title_weight = 0.6
    assert split.index() is not first
    np.testing.assert_array_equal(split.index().weights, fuse(split.index("title"), split.index("image"), 0.6).weights)
