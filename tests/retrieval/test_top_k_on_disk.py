"""top_k of vectors on disk equals brute force, on the host and on eight devices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.planning.hlo_collectives import compiled_collectives
from make_jax.retrieval.top_k import TopK, _device_programs, source_inner_products, top_k
from make_jax.retrieval.vectors.shards import Header, VectorFolder, prepare_folder, write_shard
from make_jax.runs.mesh import make_mesh
from tests.conftest import ROOT

N, D, PER_SHARD = 300, 16, 77


def written(folder: Path, vectors: np.ndarray, per_shard: int = PER_SHARD) -> VectorFolder:
    header = Header("m", "c", "p", *vectors.shape, per_shard)
    for shard in prepare_folder(folder, header):
        at = header.rows(shard)
        write_shard(folder, header, shard, [f"p{i}" for i in at], vectors[at.start : at.stop])
    return VectorFolder(folder)


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> TopK:
    """NumPy, in float64, rounded to float32; ties by ascending position; zeros are never found."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    scores[:, ~vectors.any(axis=1)] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    found = np.take_along_axis(scores, order, axis=1)
    return TopK(found, np.where(np.isneginf(found), -1, order).astype(np.int32))


def small_integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-1, 2, size=shape).astype(np.float32)  # exact sums, and so many ties


def with_ties_and_zeros(vectors: np.ndarray) -> np.ndarray:
    """The vectors with one repeated in all shards, and some zero vectors."""
    vectors = vectors.astype(np.float16)
    vectors[[3, 76, 77, 78, 153, 154, 200, 231, 299]] = vectors[3]
    vectors[[0, 77, 298]] = 0
    return vectors


def same(found: TopK, expected: TopK) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, VectorFolder]:
    """Queries, vectors, and the vectors on disk."""
    rng = np.random.default_rng(0)
    vectors = with_ties_and_zeros(small_integers(rng, N, D))
    return small_integers(rng, 21, D), vectors, written(tmp_path_factory.mktemp("integers") / "f", vectors)


@pytest.fixture(scope="module")
def reals(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, VectorFolder]:
    """Unit queries and vectors."""
    rng = np.random.default_rng(1)
    queries, vectors = (rng.normal(size=(n, D)) for n in (21, N))
    queries, vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, vectors))
    vectors = with_ties_and_zeros(vectors)
    return queries.astype(np.float32), vectors, written(tmp_path_factory.mktemp("reals") / "f", vectors)


@pytest.mark.parametrize("block", [8192, 77, 50, 1])
@pytest.mark.parametrize("k", [1, 10, 299, 1000])
@pytest.mark.parametrize("kind", ["integers", "reals"])
def test_top_k_equals_numpy_brute_force_with_ties_by_ascending_position_across_shards(
    request: pytest.FixtureRequest, kind: str, k: int, block: int
) -> None:
    queries, vectors, folder = request.getfixturevalue(kind)
    same(top_k(queries, folder, k, block_size=block), brute_force(queries, vectors, k))


def test_on_cpu_the_host_kernel_is_used_and_progress_reported(
    reals: tuple[np.ndarray, np.ndarray, VectorFolder],
) -> None:
    queries, vectors, folder = reals
    steps: list[tuple[str, int, int]] = []
    same(top_k(queries, folder, 5, progress=lambda *step: steps.append(step)), brute_force(queries, vectors, 5))
    assert steps[-1] == ("vectors searched", N, N)


def test_ascending_and_equal_vectors_are_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    queries, vectors = rng.normal(size=(9, D)).astype(np.float32), rng.normal(size=(N, D)).astype(np.float16)
    order = np.argsort(vectors.astype(np.float32) @ queries[0])  # each block displaces the best of query 0
    for name, rows in (("rising", vectors[order]), ("equal", np.repeat(vectors[:1], N, axis=0))):
        folder = written(tmp_path / name, rows)
        same(top_k(queries, folder, 7, block_size=20), brute_force(queries, rows, 7))


def test_near_ties_below_float32_are_ordered_exactly(tmp_path: Path) -> None:
    """Sums whose deciding term is lost in float32: 2^22 + tiny - 2^22."""
    vectors = np.zeros((600, 4), np.float16)
    vectors[:, 0] = vectors[:, 2] = 2048
    vectors[:, 1] = np.arange(600) // 3 * 2.0**-14  # the best come last, when there is a best to displace
    queries = np.array([[2048, 1, -2048, 0], [0, 0, 0, 1]], np.float32)
    folder = written(tmp_path, vectors, 90)
    for k in (1, 5, 400):
        same(top_k(queries, folder, k, block_size=16), brute_force(queries, vectors, k))


def test_many_queries_are_searched_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("make_jax.retrieval.top_k._QUERIES_PER_GROUP", 8)
    rng = np.random.default_rng(3)
    queries, vectors = small_integers(rng, 21, D), with_ties_and_zeros(small_integers(rng, N, D))
    folder = written(tmp_path, vectors)
    same(top_k(queries, folder, 10), brute_force(queries, vectors, 10))
    same(top_k(queries, folder, 10, mesh=make_mesh(), block_size=10), brute_force(queries, vectors, 10))


def test_no_query_gives_an_empty_result(reals: tuple[np.ndarray, np.ndarray, VectorFolder]) -> None:
    _, _, folder = reals
    assert top_k(np.zeros((0, D), np.float32), folder, 5).indices.shape == (0, 5)
    assert top_k(np.zeros((0, D), np.float32), folder, 5, mesh=make_mesh()).indices.shape == (0, 5)


def test_source_inner_products_are_those_of_numpy(reals: tuple[np.ndarray, np.ndarray, VectorFolder]) -> None:
    queries, vectors, folder = reals
    expected = queries.astype(np.float64) @ vectors.astype(np.float64).T
    np.testing.assert_allclose(source_inner_products(queries, folder), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fsdp", [1, 4])
@pytest.mark.parametrize("rows", [8, 16])  # of a device in a block: blocks end within shards, and with them
@pytest.mark.parametrize("k", [10, 299])
def test_eight_devices_equal_brute_force_with_ties_across_devices_and_shards(
    integers: tuple[np.ndarray, np.ndarray, VectorFolder], k: int, rows: int, fsdp: int
) -> None:
    queries, vectors, folder = integers
    same(top_k(queries, folder, k, mesh=make_mesh(fsdp), block_size=rows), brute_force(queries, vectors, k))


def test_eight_devices_find_reals_within_f32_rounding(reals: tuple[np.ndarray, np.ndarray, VectorFolder]) -> None:
    queries, vectors, folder = reals
    found, expected = top_k(queries, folder, 20, mesh=make_mesh(), block_size=16), brute_force(queries, vectors, 20)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
    gaps = -np.diff(brute_force(queries, vectors, 21).scores, axis=1)
    clear = np.minimum(gaps, np.pad(gaps[:, :-1], ((0, 0), (1, 0)), constant_values=1)) > 1e-6
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(found.indices[clear], expected.indices[clear])


def test_devices_exchange_nothing_before_the_last_block() -> None:
    mesh = make_mesh()
    add_block, merge_devices = _device_programs(mesh, 10)
    best = np.zeros((8 * 16, 10), np.float32), np.zeros((8 * 16, 10), np.int32)
    block = {
        "vectors": np.zeros((64, D), np.float16),
        "absent": np.zeros(64, bool),
        "first": np.zeros(8, np.int32),
        "zeros_are_absent": True,
    }
    queries = np.zeros((16, D), np.float32)
    assert not compiled_collectives(add_block.lower(*best, queries, **block).compile().as_text())
    operations = {each.operation for each in compiled_collectives(merge_devices.lower(*best).compile().as_text())}
    assert operations == {"all-to-all"}


MEASURED = """
import json, sys
from pathlib import Path
import numpy as np
from make_jax.retrieval.top_k import top_k
from make_jax.retrieval.vectors.shards import VectorFolder

def peak():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

small, large = (VectorFolder(name) for name in sys.argv[1:])
queries = np.random.default_rng(0).normal(size=(8, small.header.width)).astype(np.float32)
top_k(queries, small, 10)
before = peak()
top_k(queries, large, 10)
print(json.dumps(peak() - before))
"""


def test_memory_is_that_of_a_few_blocks_however_many_vectors_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1 << 15, 256)).astype(np.float16)
    for name, shards in (("small", 1), ("large", 6)):
        header = Header("m", "c", "p", shards * len(rows), 256, len(rows))
        for shard in prepare_folder(tmp_path / name, header):
            write_shard(tmp_path / name, header, shard, [f"p{i}" for i in header.rows(shard)], rows)
    assert sum(path.stat().st_size for path in (tmp_path / "large").iterdir()) > 96 << 20
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < 24 << 20


def test_a_shard_damaged_during_the_search_is_an_input_error(tmp_path: Path) -> None:
    folder = written(tmp_path, np.ones((N, 256), np.float16))
    shard = folder.header.path(tmp_path, 2)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"00002-of-00004\.parquet: damaged"):
        top_k(np.ones((2, 256), np.float32), folder, 5)
