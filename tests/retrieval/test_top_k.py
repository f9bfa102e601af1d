"""top_k of vectors in memory equals brute force, in the order of the rules, within the stated memory."""

import numpy as np
import pytest

from make_jax.retrieval.top_k import TopK, inner_products, merge_block, top_k, top_k_of_scores


def brute_force(queries: np.ndarray, products: np.ndarray, k: int, absent: np.ndarray) -> TopK:
    scores = queries.astype(np.float64) @ products.astype(np.float64).T
    scores[:, absent] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    found = np.take_along_axis(scores, order, axis=1).astype(np.float32)
    return TopK(found, np.where(np.isneginf(found), -1, order).astype(np.int32))


def small_integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-1, 2, size=shape).astype(np.float32)  # exact sums, and so many ties


@pytest.mark.parametrize(("queries_per_group", "block_size"), [(1024, 8192), (3, 4), (7, 50), (4, 1)])
@pytest.mark.parametrize("k", [1, 10, 50])
def test_top_k_equals_numpy_brute_force_with_ties_by_ascending_index(
    k: int, queries_per_group: int, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("make_jax.retrieval.top_k._QUERIES_PER_GROUP", queries_per_group)
    rng = np.random.default_rng(k)
    queries, products = small_integers(rng, 7, 4), small_integers(rng, 50, 4)
    absent = rng.random(50) < 0.2
    found = top_k(queries, products, k, absent=absent, block_size=block_size)
    expected = brute_force(queries, products, k, absent)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_top_k_of_real_vectors_is_within_f32_rounding() -> None:
    rng = np.random.default_rng(0)
    queries, products = (rng.normal(size=(n, 64)).astype(np.float32) for n in (9, 300))
    found = top_k(queries, products, 20, block_size=128)
    np.testing.assert_allclose(found.scores, brute_force(queries, products, 20, np.zeros(300, bool)).scores, rtol=1e-5)
    np.testing.assert_allclose(inner_products(queries, products), queries @ products.T, rtol=1e-4, atol=1e-5)


def test_k_above_the_number_of_products_returns_each_once() -> None:
    products = np.eye(3, dtype=np.float32)
    found = top_k(np.ones((2, 3), np.float32), products, 10)
    assert found.indices.tolist() == [[0, 1, 2]] * 2


def test_absent_products_are_never_found() -> None:
    absent = np.array([True, False, True, False])
    found = top_k(np.ones((1, 2), np.float32), -np.ones((4, 2), np.float32), 4, absent=absent, block_size=2)
    assert found.indices.tolist() == [[1, 3, -1, -1]]
    assert np.isneginf(found.scores[0, 2:]).all()


def test_top_k_without_products_or_queries_is_empty() -> None:
    assert top_k(np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32), 5).indices.shape == (2, 0)
    assert top_k(np.zeros((0, 3), np.float32), np.ones((4, 3), np.float32), 2).indices.shape == (0, 2)


def test_ties_of_both_zeros_are_by_ascending_index() -> None:
    assert top_k_of_scores(np.array([[-0.0, 0.0, -1.0, -0.0, 0.0]]), 4).indices.tolist() == [[0, 1, 3, 4]]
    products = np.array([[-0.0], [0.0], [-0.0]], np.float32)
    assert top_k(np.ones((1, 1), np.float32), products, 3, block_size=1).indices.tolist() == [[0, 1, 2]]


def test_top_k_of_scores_never_returns_minus_infinity() -> None:
    assert top_k_of_scores(np.array([[1.0, -np.inf, 2.0]]), 3).indices.tolist() == [[2, 0, -1]]


def test_device_memory_is_that_of_one_block_of_scores() -> None:
    k, rows, columns = 10, 64, 512
    arguments = (
        (np.zeros((rows, k), np.float32), np.zeros((rows, k), np.int32)),
        np.zeros((rows, 8), np.float32),
        np.zeros((columns, 8), np.float32),
        np.zeros(columns, bool),
        np.int32(0),
    )
    analysis = merge_block.lower(*arguments).compile().memory_analysis()
    assert analysis.temp_size_in_bytes <= 4 * rows * columns * 4
