"""Vectors that stay on the devices: no second copy, equal results, bounded memory, no stale vectors."""

import pickle
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from make_jax.retrieval import device_vectors
from make_jax.retrieval.device_vectors import DeviceVectors, free_memory
from make_jax.retrieval.top_k import top_k
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.runs.mesh import make_mesh

N, D = 300, 24  # a width that nothing else in these programs has


def embeddings(seed: int = 0) -> ProductEmbeddings:
    rng = np.random.default_rng(seed)
    weights = np.full((N, 2), 0.5, np.float32)
    weights[::7] = 0.0  # absent
    return ProductEmbeddings(rng.normal(size=(N, D)).astype(np.float32), weights)


def queries(count: int = 3) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, D)).astype(np.float32)


def copies(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The host-to-device transfers since the last call; jax leaves the shape out of some."""
    lines = [line for line in capfd.readouterr().err.splitlines() if "host-to-device transfer" in line]
    return [line.partition("ShapedArray(")[2].partition(")")[0] for line in lines]


def test_a_second_search_copies_no_vectors_and_is_equal(capfd: pytest.CaptureFixture[str]) -> None:
    products, plain = embeddings(), embeddings()
    with jax.transfer_guard_host_to_device("log_explicit"):
        first = products.search(queries(), 10)
        assert copies(capfd).count(f"float32[{N},{D}]") == 1
        second = products.search(queries(), 10)
        assert copies(capfd) == [f"float32[3,{D}]", "float32[3,10]", "int32[3,10]"]  # queries, empty results
        more = products.search(queries(5), 20)
        assert copies(capfd) == [f"float32[5,{D}]", "float32[5,20]", "int32[5,20]"]
        scores = products.scores(queries())
        assert len(copies(capfd)) == 2
        again = products.scores(queries())
        assert len(copies(capfd)) == 1  # queries
        even = np.tile(np.arange(N) % 2 == 0, (3, 1))
        filtered = products.search(queries(), 10, allowed=lambda rows: even[rows])
        assert len(copies(capfd)) == 2  # queries, masked scores
    for a, b in [(first, second), (first, top_k(queries(), plain.vectors, 10, absent=plain.absent))]:
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(more.indices, top_k(queries(5), plain.vectors, 20, absent=plain.absent).indices)
    np.testing.assert_array_equal(scores, again)
    assert (filtered.indices % 2 == 0).all() and not np.isin(filtered.indices, np.flatnonzero(plain.absent)).any()


def test_vectors_split_over_devices_are_kept_for_their_mesh_alone() -> None:
    source, vectors, mesh = DeviceVectors(embeddings().vectors, np.zeros(N, bool)), embeddings().vectors, make_mesh()
    blocks = list(source.blocks(mesh, 64))
    assert list(source.blocks(mesh, 64)) == blocks and [block.end for block in blocks] == [64, 128, 192, 256, N]
    other = list(source.blocks(make_mesh(fsdp=2), 64))
    assert [block.arrays["vectors"] is kept.arrays["vectors"] for block, kept in zip(other, blocks, strict=True)] == [
        False
    ] * 5
    found = [top_k(queries(), source, 7, mesh=mesh, block_size=8) for _ in range(2)]
    for each in found:
        np.testing.assert_array_equal(each.indices, top_k(queries(), vectors, 7).indices)


def test_a_search_that_ends_early_keeps_no_part() -> None:
    source, mesh = DeviceVectors(embeddings().vectors, np.zeros(N, bool)), make_mesh()
    next(source.blocks(mesh, 64))
    assert [block.end for block in source.blocks(mesh, 64)] == [64, 128, 192, 256, N]


def test_vectors_larger_than_half_of_the_free_memory_are_copied_by_every_search(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embeddings().search(queries(), 10)
    monkeypatch.setattr(device_vectors, "free_memory", lambda device: 2 * N * D * 4 - 1)
    products = embeddings()
    with jax.transfer_guard_host_to_device("log_explicit"):
        found = [products.search(queries(), 10) for _ in range(2)]
        assert copies(capfd).count(f"float32[{N},{D}]") == 2
        np.testing.assert_array_equal(*(products.scores(queries()) for _ in range(2)))
        assert len(copies(capfd)) == 4
    for each in found:
        np.testing.assert_array_equal(each.indices, expected.indices)
    assert free_memory(jax.local_devices()[0]) > 0


def test_vectors_cannot_change_under_their_copy_on_the_device() -> None:
    products = embeddings()
    best = products.search(queries(), 1).indices[:, 0]
    with pytest.raises(ValueError, match="read-only"):
        products.vectors[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        products.weights[0] = 1
    vectors = products.vectors.copy()
    vectors[best] = 0
    replaced = ProductEmbeddings(vectors, products.weights)
    assert not np.isin(replaced.search(queries(), 1).indices[:, 0], best).any()
    again = pickle.loads(pickle.dumps(products))
    np.testing.assert_array_equal(again.search(queries(), 1).indices[:, 0], best)


def test_free_memory_is_that_of_linux_within_the_limit_of_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    free = partial(device_vectors._free_main_memory, meminfo, tmp_path)
    assert free() == 0
    meminfo.write_text("MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:    4000 kB\nHugePages_Total: 0\n")
    assert free() == 4000 * 1024
    (tmp_path / "memory.current").write_text("1000000\n")
    for limit, expected in (("max", 4000 * 1024), ("1500000", 500_000), ("99000000", 4000 * 1024)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free() == expected
