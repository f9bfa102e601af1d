"""Embedding to disk gives the vectors of embedding in memory, after any interruption and by any number of processes."""

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.evaluation.evaluate import embed_all, evaluate
from make_jax.retrieval import embed_to_disk as module
from make_jax.retrieval.embed import embed_products
from make_jax.retrieval.embed_to_disk import embed_to_disk
from tests.conftest import ROOT
from tests.retrieval.fake_encoder import FakeEncoder
from tests.retrieval.killed_embeddings import contents
from tests.retrieval.other_processes import embed_slowly, hold, ready
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16)


@pytest.fixture
def catalog(path: Path) -> Catalog:
    return Catalog.load(path)


def test_vectors_on_disk_equal_those_in_memory_in_float16(catalog: Catalog, tmp_path: Path) -> None:
    encoder, queries = FakeEncoder(), FakeEncoder().encode_queries(["red circle", "blue"])
    steps: list[tuple[str, int, int]] = []

    def record(*step: object) -> None:
        steps.append(step)

    for modality in ("both", "title", "image"):
        memory = embed_products(encoder, catalog, catalog.products, modality)
        disk = embed_to_disk(
            encoder, catalog, catalog.products, tmp_path / modality, "all", modality, record, per_shard=7
        )
        assert steps[-1] == (f"products ({modality})", 60, 60)
        assert disk.vectors.ids() == [product.id for product in catalog.products]
        half = memory.vectors.astype(np.float16)
        np.testing.assert_array_equal(np.concatenate([vectors for _, vectors in disk.vectors.blocks()]), half)
        np.testing.assert_array_equal(disk.weights, memory.weights)
        np.testing.assert_array_equal(disk.absent, memory.absent)
        np.testing.assert_allclose(disk.scores(queries), memory.scores(queries), rtol=0, atol=1e-3)
        expected = replace(memory, vectors=half.astype(np.float32)).search(queries, 60)
        found = disk.search(queries, 60)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.scores[found.indices >= 0], expected.scores[found.indices >= 0], atol=1e-6)
        assert not np.isin(np.flatnonzero(memory.absent), found.indices).any()


def test_an_embedding_killed_at_any_line_ends_byte_equal(tmp_path: Path) -> None:
    small = write_catalog(tmp_path / "small", products=14)
    command = [sys.executable, "-m", "tests.retrieval.killed_embeddings", str(small), str(tmp_path), "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] >= 60, found
    assert (found["partial"], found["different"]) == (0, 0), found


def test_existing_shards_are_not_embedded_again(catalog: Catalog, tmp_path: Path) -> None:
    first = embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path / "f", "all", per_shard=7)
    before = contents(tmp_path / "f")
    encoder = FakeEncoder()
    embed_to_disk(encoder, catalog, catalog.products, tmp_path / "f", "all", per_shard=7)
    assert not encoder.seen
    header = first.vectors.header
    header.path(tmp_path / "f", 3).unlink()
    embed_to_disk(encoder, catalog, catalog.products, tmp_path / "f", "all", per_shard=7)
    assert [len(titles) for titles, _ in encoder.seen] == [7]
    assert contents(tmp_path / "f") == before


def test_two_processes_share_the_shards_and_end_byte_equal_to_one(path: Path, catalog: Catalog, tmp_path: Path) -> None:
    embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path / "one", "all", per_shard=4)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(ready, range(2), 1)  # both are started
        made = pool.starmap(embed_slowly, [(path, tmp_path / "two")] * 2, 1)
    assert sum(made) == 15 and min(made) >= 3
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_damaged_shard_is_named_before_anything_is_embedded(catalog: Catalog, tmp_path: Path) -> None:
    header = embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path, "all", per_shard=7).vectors.header
    header.path(tmp_path, 0).unlink()
    shard = header.path(tmp_path, 4)
    shard.write_bytes(shard.read_bytes()[:-9])
    encoder = FakeEncoder()
    with pytest.raises(InputError, match=r"00004-of-00009\.parquet: damaged or cut short"):
        embed_to_disk(encoder, catalog, catalog.products, tmp_path, "all", per_shard=7)
    assert not encoder.seen


def test_vectors_of_another_model_or_catalog_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path / "f", "all")
    other = FakeEncoder()
    other.digest = "another"
    with pytest.raises(InputError, match=r"vectors\.json: model is 'fake', expected 'another' for the vectors"):
        embed_to_disk(other, catalog, catalog.products, tmp_path / "f", "all")
    changed = Catalog.load(write_catalog(tmp_path / "changed", products=60, queries=2))
    with pytest.raises(InputError, match=r"vectors\.json: catalog is "):
        embed_to_disk(FakeEncoder(), changed, changed.products, tmp_path / "f", "all")
    with pytest.raises(InputError, match=r"vectors\.json: part is 'all by both', expected 'all by title'"):
        embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path / "f", "all", "title")
    with pytest.raises(InputError, match="has no `digest`"):
        embed_to_disk(_Nameless(), catalog, catalog.products, tmp_path / "g", "all")


class _Nameless:
    modalities = "both"

    def encode_queries(self, texts: object) -> None: ...

    def encode_products(self, titles: object, images: object) -> None: ...


def test_products_that_are_all_absent_are_an_input_error(tmp_path: Path) -> None:
    catalog = Catalog.load(write_catalog(tmp_path / "tiny"))
    pictures = [product for product in catalog.products if not product.title]
    with pytest.raises(InputError, match=r"none of the 3 products has what the model reads \(title\)"):
        embed_to_disk(FakeEncoder(), catalog, pictures, tmp_path / "f", "all", "title", per_shard=2)


def test_evaluation_on_disk_equals_evaluation_in_memory(catalog: Catalog, tmp_path: Path) -> None:
    embed_all(FakeEncoder(), catalog, "test", tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["test-both", "test-image", "test-title", "val-both"]
    encoder = FakeEncoder()
    disk, memory = (evaluate(encoder, catalog, "test", vectors_folder=where) for where in (tmp_path, None))
    assert len(encoder.seen) == 4  # those of `memory`
    assert list(disk.rankings) == list(memory.rankings)
    assert disk.parameters == memory.parameters
    for system, values in memory.values.items():
        for metric, expected in values.items():
            np.testing.assert_allclose(disk.values[system][metric].mean(), expected.mean(), atol=0.02)
    assert any("float16" in note for note in disk.notes)
    assert not any("float16" in note for note in memory.notes)


def test_a_process_waits_for_the_shards_of_others(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = embed_to_disk(FakeEncoder(), catalog, catalog.products, tmp_path, "all", per_shard=7).vectors.header
    shard = header.path(tmp_path, 2)
    made = shard.read_bytes()
    shard.unlink()
    waited: list[float] = []

    def elsewhere(seconds: float) -> None:
        waited.append(seconds)
        shard.write_bytes(made)

    monkeypatch.setattr(module.time, "sleep", elsewhere)
    with multiprocessing.get_context("spawn").Pool(1) as other:
        assert other.apply(hold, (tmp_path, 2))
        encoder = FakeEncoder()
        embed_to_disk(encoder, catalog, catalog.products, tmp_path, "all", per_shard=7)
    assert len(waited) == 1 and not encoder.seen
