"""What is particular to Qdrant: HNSW, BM25 as sparse vectors, the threshold algorithm, and collections of a cluster."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient

from make_jax.errors import InputError
from make_jax.evaluation.baselines import TitleBM25
from make_jax.evaluation.bm25_terms import BM25Parameters
from make_jax.serving.engines import EngineQuery, Rows, edge_store, qdrant_ranking
from make_jax.serving.engines.cluster import aliased, connect_cluster, open_cluster, switch_alias
from make_jax.serving.engines.edge_store import EdgeStore
from make_jax.serving.engines.flat import FlatEngine
from make_jax.serving.engines.qdrant import QdrantEngine, QdrantSettings
from make_jax.serving.engines.store import LEXICAL, PointQuery, Scored, Sparse
from make_jax.serving.filters import Compare
from tests.serving.engines.reference import Reference
from tests.serving.engines.small_index import COUNT, WIDTH, WORDS, assert_same, queries, small_rows

NONE = np.zeros(0, np.int64)


class CountingStore(EdgeStore):
    """Remembers how many points were requested; Edge runs in the process of the test."""

    def __init__(self, folder: Path, width: int) -> None:
        super().__init__(folder, width)
        self.limits: list[list[int]] = []

    def query(self, queries: Sequence[PointQuery]) -> list[Scored]:
        self.limits.append([query.limit for query in queries])
        return super().query(queries)


# --- HNSW ---


@pytest.fixture(scope="module")
def clustered() -> Rows:
    """3,000 vectors around 60 centers."""
    rng = np.random.default_rng(3)
    centers = rng.standard_normal((60, WIDTH))
    vectors = centers[rng.integers(60, size=3000)] + 0.5 * rng.standard_normal((3000, WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    titles = [" ".join(rng.choice(WORDS, 4)) for _ in range(3000)]
    attributes = [{"percent": row % 100, "number": row} for row in range(3000)]
    return Rows(np.arange(3000), vectors, titles, attributes)


@pytest.fixture(scope="module")
def hnsw(clustered: Rows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_store, "_EXACT_KILOBYTES", 1)  # a graph for few vectors too
        store = CountingStore(tmp_path_factory.mktemp("hnsw"), WIDTH)
        engine = QdrantEngine.load(store, QdrantSettings(WIDTH), lambda: [clustered])
    yield engine
    engine.close()


@pytest.mark.parametrize("text", ["", "red shoes"])
@pytest.mark.parametrize("kept", [100, 50, 5, 1])
def test_recall_of_hnsw_with_filters(hnsw: QdrantEngine, clustered: Rows, kept: int, text: str) -> None:
    assert hnsw._store._shard.info().indexed_vectors_count >= 3000, "there is no graph"  # type: ignore[attr-defined]
    wanted = [EngineQuery(vector, text, 0.3, Compare("percent", "<", float(kept)), limit=10) for vector in queries(50)]
    exact = FlatEngine([clustered]).search(wanted)
    found = hnsw.search(wanted)
    recall = [len(np.intersect1d(a.rows, b.rows)) / 10 for a, b in zip(found, exact, strict=True)]
    assert np.mean(recall) >= 0.98
    assert [result.total for result in found] == [30 * kept] * 50


def test_a_filter_that_keeps_one_product_finds_it(hnsw: QdrantEngine) -> None:
    (result,) = hnsw.search([EngineQuery(queries(1)[0], filter=Compare("number", "=", 1234))])
    assert result.rows.tolist() == [1234]


def test_a_page_reads_few_points(hnsw: QdrantEngine, clustered: Rows) -> None:
    store = hnsw._store
    assert isinstance(store, CountingStore)
    store.limits.clear()
    hnsw.search([EngineQuery(queries(1)[0], limit=10, facets=("*",))])
    assert sum(map(sum, store.limits)) < 100
    store.limits.clear()
    hnsw.search([EngineQuery(queries(1)[0], limit=0, facets=("*",))])
    assert store.limits == []
    store.limits.clear()
    hnsw.search([EngineQuery(vector, "red shoes", 0.3, limit=10) for vector in queries(20)])
    assert len(store.limits) <= 6, "rounds of requests"
    assert sum(map(sum, store.limits)) < 20 * 3000


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 3.0])
def test_the_threshold_algorithm_reads_deep_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    """Without the points that are read beyond a page, and with products that only their text can find."""
    monkeypatch.setattr(qdrant_ranking, "_SLACK", 0)
    rows = small_rows()
    store = CountingStore(tmp_path, WIDTH)
    engine = QdrantEngine.load(store, QdrantSettings(WIDTH, candidates=None), lambda: [rows])
    reference = Reference(rows)
    texts = [("red", ""), ("running 红色", "brand"), ("watch 2024", "sizes"), ("women's", "")]
    wanted = [
        EngineQuery(vector, text, weight, limit=limit, offset=offset, distinct=distinct)
        for vector, (text, distinct) in zip(queries(24), 6 * texts, strict=True)
        for limit, offset in ((1, 0), (5, 3))
    ]
    for query, result in zip(wanted, engine.search(wanted), strict=True):
        assert_same(result, reference.search(query))
    assert min(map(min, store.limits)) < 10
    engine.close()


def test_a_product_without_a_vector_is_found_above_low_cosines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cosine counts as 0, which the list of vectors does not show."""
    monkeypatch.setattr(qdrant_ranking, "_SLACK", 0)
    cosines = [0.0, 0.05, *[-0.9] * 12]
    vectors = np.array([[cosine, np.sqrt(1 - cosine**2) * (cosine != 0)] for cosine in cosines], np.float32)
    rows = Rows(np.arange(14), vectors, ["red blue", "green", *["red"] * 12], [{}] * 14)
    engine = QdrantEngine.load(EdgeStore(tmp_path, 2), QdrantSettings(2, candidates=None), lambda: [rows])
    query = EngineQuery(np.array([1, 0], np.float32), "red", 0.4, limit=1)
    assert engine.search([query])[0].rows.tolist() == Reference(rows).search(query).rows.tolist() == [0]
    engine.close()


# --- BM25 ---


@pytest.mark.parametrize("parameters", [BM25Parameters(), BM25Parameters(0.4, 0.25), BM25Parameters(2.0, 1.0)])
def test_lexical_scores_are_those_of_title_bm25(tmp_path: Path, parameters: BM25Parameters) -> None:
    rows = small_rows()
    engine = QdrantEngine.load(EdgeStore(tmp_path, WIDTH), QdrantSettings(WIDTH, parameters), lambda: [rows])
    bm25 = TitleBM25(rows.titles)
    bm25.set_parameters(parameters)
    for text in ("red shoes", "red red 红色", "women's t-shirts 2024", "xylophone"):
        expected = bm25.scores([text])[0]
        vector = engine._collection.terms.query_vector(text)
        found = np.zeros(COUNT, np.float32)
        if vector is not None:
            (scored,) = engine._store.query([PointQuery(vector, {}, COUNT)])
            found[scored.rows] = scored.scores
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    engine.close()


def test_the_idf_modifier_of_qdrant_counts_deleted_titles(tmp_path: Path) -> None:
    """Why `TermStatistics` counts by itself. If this fails, Qdrant has changed and the decision can be reconsidered."""
    config = qdrant_edge.EdgeConfig(
        sparse_vectors={LEXICAL: qdrant_edge.EdgeSparseVectorParams(modifier=qdrant_edge.Modifier.Idf)}
    )
    shard = qdrant_edge.EdgeShard.create(str(tmp_path), config)
    points = [qdrant_edge.Point(row, {LEXICAL: qdrant_edge.SparseVector([row % 2], [1.0])}, {}) for row in range(8)]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.optimize()
    request = qdrant_edge.QueryRequest(
        limit=1, query=qdrant_edge.Query.Nearest(qdrant_edge.SparseVector([0], [1.0]), LEXICAL)
    )
    before = shard.query(request)[0].score
    assert before == pytest.approx(np.log(1 + 4.5 / 4.5), rel=1e-6)  # 4 of 8 titles
    shard.update(qdrant_edge.UpdateOperation.delete_points([2, 4, 6]))
    after = shard.query(request)[0].score
    right = np.log(1 + 4.5 / 1.5)  # 1 of 5
    shard.close()
    assert after != pytest.approx(right, rel=1e-3)


def test_small_changes_of_the_mean_length_leave_lexical_scores_within_a_thousandth(tmp_path: Path) -> None:
    rows = small_rows(COUNT)
    long = ["red shoes watch blue running red red red"] * COUNT  # 8 terms
    engine = QdrantEngine.load(EdgeStore(tmp_path, WIDTH), QdrantSettings(WIDTH), lambda: [rows._replace(titles=long)])
    mean = engine._mean_length
    for titles, kept in ((["red shoes watch blue running red red"], True), (["red"] * 9, False)):
        changed = Rows(*(values[: len(titles)] for values in rows))._replace(titles=titles)
        engine.update(changed, NONE)
        assert (engine._mean_length == mean) == kept
        reference = Reference(rows._replace(titles=[*titles, *long[len(titles) :]]))
        query = EngineQuery(None, "red watch", limit=COUNT)
        (result,) = engine.search([query])
        expected = reference.search(query)
        places = np.argsort(result.rows), np.argsort(expected.rows)
        tolerance = 1e-3 if kept else 1e-6
        np.testing.assert_allclose(result.scores[places[0]], expected.scores[places[1]], rtol=tolerance)
    engine.close()


# --- state ---


def test_an_engine_is_opened_only_with_the_products_it_was_written_with(tmp_path: Path) -> None:
    settings = QdrantSettings(WIDTH, state="v1")
    store = EdgeStore(tmp_path, WIDTH)
    assert not QdrantEngine.is_complete(store, settings)
    engine = QdrantEngine.load(store, settings, lambda: [small_rows(20)])
    assert QdrantEngine.is_complete(store, settings)
    for other in (
        QdrantSettings(WIDTH, state="v2"),
        QdrantSettings(WIDTH + 1, state="v1"),
        QdrantSettings(WIDTH, BM25Parameters(2.0), state="v1"),
    ):
        assert not QdrantEngine.is_complete(store, other)
    engine.update(small_rows(3, 1), NONE, "v1, update 1")
    assert not QdrantEngine.is_complete(store, settings)
    assert QdrantEngine.is_complete(store, QdrantSettings(WIDTH, state="v1, update 1"))
    engine.close()


def test_a_store_is_not_complete_until_an_interrupted_update_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = QdrantEngine.load(EdgeStore(tmp_path, WIDTH), QdrantSettings(WIDTH, state="v1"), lambda: [small_rows(20)])

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(EdgeStore, "delete", fail)
        with pytest.raises(OSError, match="disk full"):
            engine.update(small_rows(9, 1), np.array([15]), "v2")
    before = engine.search([EngineQuery(queries(1)[0])])[0].total
    engine.close()
    assert before == Reference(small_rows(20)).search(EngineQuery(queries(1)[0])).total
    store = EdgeStore(tmp_path, WIDTH)
    assert not any(QdrantEngine.is_complete(store, QdrantSettings(WIDTH, state=state)) for state in ("v1", "v2"))
    repeating = QdrantSettings(WIDTH, candidates=None, state="v1", repeats_update=True)
    assert QdrantEngine.is_complete(store, repeating)
    engine = QdrantEngine(store, repeating)  # as after the end of the process
    assert not QdrantEngine.is_complete(store, QdrantSettings(WIDTH, state="v1"))
    engine.update(small_rows(9, 1), np.array([15]), "v2")
    assert QdrantEngine.is_complete(store, QdrantSettings(WIDTH, state="v2"))
    reference = Reference(small_rows(20))
    reference.update(small_rows(9, 1), np.array([15]))
    for query in (EngineQuery(queries(1)[0], "red shoes", 0.5, limit=20), EngineQuery(None, "blue", facets=("*",))):
        assert_same(engine.search([query])[0], reference.search(query))
    engine.close()


# --- cluster ---


def test_versions_are_collections_and_an_alias_switches_between_them() -> None:
    client = QdrantClient(":memory:")
    settings = QdrantSettings(WIDTH, candidates=None, state="x")
    first = open_cluster(client, "shop-v1", settings, lambda: [small_rows(20)])
    second = open_cluster(client, "shop-v2", settings, lambda: [small_rows(30, 2)])
    assert aliased(client, "shop") is None
    assert switch_alias(client, "shop", "shop-v1") is None
    assert switch_alias(client, "shop", "shop-v2") == "shop-v1"
    assert aliased(client, "shop") == "shop-v2"
    assert client.count("shop").count == 30
    assert switch_alias(client, "shop", "shop-v1") == "shop-v2"
    assert client.count("shop").count == 20
    query = EngineQuery(queries(1)[0], limit=40)
    assert [len(engine.search([query])[0].rows) for engine in (first, second)] == [
        int(small_rows(*size).vectors.any(axis=1).sum()) for size in ((20, 0), (30, 2))
    ]
    with pytest.raises(InputError, match="no collection 'shop-v3', expected one of shop-v1, shop-v2"):
        switch_alias(client, "shop", "shop-v3")
    assert aliased(client, "shop") == "shop-v1"


def test_a_collection_is_opened_again_without_writing_it(tmp_path: Path) -> None:
    settings = QdrantSettings(WIDTH, candidates=None, state="v1")
    client = QdrantClient(path=str(tmp_path))
    engine = open_cluster(client, "shop", settings, lambda: [small_rows(20)])
    query = EngineQuery(queries(1)[0], "red shoes", 0.5, facets=("*",))
    (expected,) = engine.search([query])
    client.close()

    def none() -> list[Rows]:
        raise AssertionError("the products were read")

    client = QdrantClient(path=str(tmp_path))
    assert_same(open_cluster(client, "shop", settings, none).search([query])[0], expected)
    other = open_cluster(client, "shop", QdrantSettings(WIDTH, state="v2"), lambda: [small_rows(5)])
    assert client.count("shop").count == 5 and other.attributes() == Reference(small_rows(5)).attributes()
    client.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "engine cluster needs a Qdrant server; set MAKE_JAX_QDRANT_URL"),
        ("http://127.0.0.1:9", "MAKE_JAX_QDRANT_URL: http://127.0.0.1:9: .*Connection refused"),
        ("http:// x", "MAKE_JAX_QDRANT_URL: http:// x: "),
    ],
)
def test_a_server_that_does_not_answer_is_an_input_error(
    monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.setenv("MAKE_JAX_QDRANT_URL", url)
    with pytest.raises(InputError, match=message):
        connect_cluster("shop", "v1", QdrantSettings(WIDTH), list)


def test_an_index_names_its_collections_and_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setenv("MAKE_JAX_QDRANT_URL", "http://qdrant")
    monkeypatch.setattr("make_jax.serving.engines.cluster.QdrantClient", lambda *_, **__: client)
    for version, count in (("v1", 20), ("v2", 30)):
        engine = connect_cluster("shop", version, QdrantSettings(WIDTH), lambda count=count: [small_rows(count)])
        assert engine.matching(None).sum() == client.count("shop").count == count
    assert aliased(client, "shop") == "shop-v2" and client.count("shop-v1").count == 20
    engine.close()


def test_sparse_vectors_of_titles_without_words_are_empty() -> None:
    from make_jax.serving.engines.term_statistics import TermStatistics

    terms = TermStatistics(BM25Parameters())
    assert terms.mean_length == 0
    terms.add("--")
    assert terms.title_vector("--", 0.0) == Sparse([], [])
    assert terms.query_vector("red") is None
