"""The ranks and scores of FlatEngine are those of eval.py, bit for bit; memory is bounded; updates are atomic."""

import threading

import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.evaluation.baselines import BM25Fusion, TitleBM25
from make_jax.evaluation.bm25_terms import BM25Parameters
from make_jax.retrieval import top_k as top_k_module
from make_jax.retrieval.top_k import TopK, top_k
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.serving.engines import EngineQuery, EngineResult, Rows
from make_jax.serving.engines import flat as flat_module
from make_jax.serving.engines.flat import FlatEngine
from make_jax.serving.filters import Compare
from tests.serving.engines.small_index import COUNT, small_rows
from tests.serving.engines.small_index import queries as query_vectors

TEXTS = ("red shoes", "t-shirts", "红色 连衣裙", "nothing of it", "women's watch 2024", "blue")


@pytest.fixture(scope="module")
def rows() -> Rows:
    return small_rows()


@pytest.fixture(scope="module")
def engine(rows: Rows) -> FlatEngine:
    return FlatEngine([rows])


def assert_equals_top_k(results: list[EngineResult], expected: TopK) -> None:
    for result, scores, indices in zip(results, *expected, strict=True):
        found = indices >= 0
        np.testing.assert_array_equal(result.rows, indices[found])
        assert result.scores.tobytes() == scores[found].tobytes()


def test_ranks_and_scores_of_vectors_are_bitwise_those_of_top_k(engine: FlatEngine, rows: Rows) -> None:
    vectors = query_vectors(5)
    expected = top_k(vectors, rows.vectors, COUNT, absent=~rows.vectors.any(axis=1))
    results = engine.search([EngineQuery(vector, limit=COUNT) for vector in vectors])
    assert_equals_top_k(results, expected)
    assert len(np.unique(results[0].scores)) < len(results[0].scores), "the index has no ties"
    assert all(result.total == np.sum(rows.vectors.any(axis=1)) for result in results)


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("filtered", [False, True])
def test_ranks_and_scores_with_bm25_are_bitwise_those_of_fusion(
    engine: FlatEngine, rows: Rows, weight: float, filtered: bool
) -> None:
    vectors = query_vectors(len(TEXTS))
    condition = Compare("year", ">", 2011) if filtered else None
    mask = engine.matching(condition)
    assert 0 < mask.sum() < COUNT or not filtered
    weights = np.repeat(rows.vectors.any(axis=1, keepdims=True), 2, axis=1).astype(np.float32) / 2
    fusion = BM25Fusion(
        TEXTS,
        vectors,
        ProductEmbeddings(rows.vectors, weights),
        TitleBM25(rows.titles),
        lambda part: np.repeat(mask[None], part.stop - part.start, axis=0),
    )
    (expected,) = fusion.rankings([weight], COUNT)
    results = engine.search(
        [
            EngineQuery(vector, text, weight, filter=condition, limit=COUNT)
            for vector, text in zip(vectors, TEXTS, strict=True)
        ]
    )
    assert_equals_top_k(results, expected)


def test_a_text_alone_ranks_titles_with_a_term_of_it_by_bm25(engine: FlatEngine, rows: Rows) -> None:
    bm25 = TitleBM25(rows.titles)
    expected = bm25.search(TEXTS, COUNT)
    for result, text, indices in zip(
        engine.search([EngineQuery(None, text, limit=COUNT) for text in TEXTS]), TEXTS, expected.indices, strict=True
    ):
        np.testing.assert_array_equal(result.rows, indices[indices >= 0])
        assert result.total == np.sum(bm25.scores([text]) > 0)
        assert result.total == 0 or result.scores[0] == 1
        assert np.isnan(result.dense).all()


def test_bm25_parameters_are_used(rows: Rows) -> None:
    parameters = BM25Parameters(0.4, 0.25)
    bm25 = TitleBM25(rows.titles)
    bm25.set_parameters(parameters)
    expected = bm25.search(["red shoes watch"], COUNT)
    assert not np.array_equal(expected.indices, TitleBM25(rows.titles).search(["red shoes watch"], COUNT).indices)
    (result,) = FlatEngine([rows], parameters).search([EngineQuery(None, "red shoes watch", limit=COUNT)])
    np.testing.assert_array_equal(result.rows, expected.indices[0][expected.indices[0] >= 0])


def test_a_query_alone_scores_as_in_a_batch_within_rounding(engine: FlatEngine) -> None:
    vectors = query_vectors(3)
    together = engine.search([EngineQuery(vector, limit=COUNT) for vector in vectors])
    for vector, expected in zip(vectors, together, strict=True):
        (alone,) = engine.search([EngineQuery(vector, limit=COUNT)])
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-6)


def test_memory_is_bounded_by_chunks_of_queries(engine: FlatEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [EngineQuery(vector, text, 0.5) for vector, text in zip(query_vectors(6), TEXTS, strict=True)]
    expected = engine.search(wanted)
    sizes: list[int] = []
    original = flat_module._cosines

    def counted(state: flat_module._State, queries: np.ndarray) -> np.ndarray:
        sizes.append(len(queries))
        return original(state, queries)

    monkeypatch.setattr(flat_module, "_cosines", counted)
    monkeypatch.setattr(top_k_module, "_MAX_SCORES", 4 * COUNT)
    for result, one_chunk in zip(engine.search(wanted), expected, strict=True):
        np.testing.assert_array_equal(result.rows, one_chunk.rows)
    assert sizes == [4, 2]


def test_a_search_during_updates_sees_one_state() -> None:
    rows = small_rows(40)
    replacement = rows._replace(attributes=[{"new": True}] * 40)
    original = rows._replace(attributes=[{"new": False}] * 40)
    engine = FlatEngine([original])
    query = EngineQuery(query_vectors(1)[0], facets=("new",))
    stop = threading.Event()

    def update() -> None:
        while not stop.is_set():
            engine.update(replacement, np.zeros(0, np.int64))
            engine.update(original, np.zeros(0, np.int64))

    thread = threading.Thread(target=update)
    thread.start()
    try:
        found = [engine.search([query])[0].facets["new"] for _ in range(50)]
    finally:
        stop.set()
        thread.join()
    assert all(len(facet) == 1 for facet in found)


@pytest.mark.parametrize(
    ("vector", "message"),
    [(np.zeros(3, np.float32), r"shape \(3,\), expected \(16,\)"), (np.full(16, np.nan, np.float32), "not finite")],
)
def test_bad_query_vectors_are_rejected(engine: FlatEngine, vector: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine.search([EngineQuery(vector)])


def test_an_index_without_products_is_rejected() -> None:
    with pytest.raises(InputError, match="no products"):
        FlatEngine([])
