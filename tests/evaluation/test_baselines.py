import numpy as np
import pytest

from make_jax.catalog.schema import CatalogInfo, Query
from make_jax.evaluation.baselines import (
    B_GRID,
    FUSION_WEIGHTS,
    K1_GRID,
    BM25Fusion,
    TitleBM25,
    fuse_scores,
    random_ranking,
    tune_bm25,
    tune_fusion_weight,
)
from make_jax.evaluation.bm25_terms import BM25Parameters, tokenize
from make_jax.evaluation.metrics import judge
from make_jax.retrieval import top_k
from make_jax.retrieval.vector_index import ProductEmbeddings

TITLES = ["red shirt", "red red shoes", "", "blue shirt for men"]


def test_words_of_english_and_chinese() -> None:
    assert tokenize("ＲＥＤ T-Shirts, women's!") == ["red", "t", "shirt", "tshirt", "women"]
    assert tokenize("红色T恤") == ["红", "色", "红色", "t", "恤"]
    assert tokenize("dresses watches ladies glass bus a_b") == ["dress", "watch", "lady", "glass", "bus", "a", "b"]
    assert tokenize(" ,. ") == []


def test_combining_marks_belong_to_their_letters() -> None:
    assert tokenize("कपड़े की, சட்டை") == ["कपड़े", "की", "சட்டை"]
    assert tokenize("שִׂמְלָה قَمِيصٌ") == ["שִׂמְלָה", "قَمِيصٌ"]
    assert tokenize("İstanbul ọ\u0300wọ\u0300") == ["i\u0307stanbul", "ọ\u0300wọ\u0300"]
    assert tokenize("เสื้อT恤") == ["เ", "สื้", "อ", "เสื้", "สื้อ", "t", "恤"]
    assert tokenize("\u0301 \u2764\ufe0f a") == ["a"]


def test_joiners_inside_a_word_do_not_cut_it() -> None:
    assert tokenize("تی\u200cشرت کفش\u200cهای") == ["تیشرت", "کفشهای"]
    assert tokenize("क\u094d\u200dषमा Schuh\u00adregal") == ["क\u094dषमा", "schuhregal"]
    assert tokenize("red\u200bdress \u200d") == ["red", "dress"]
    assert TitleBM25(["کفش های سیاه", "تی\u200cشرت سیاه"]).search(["تیشرت"], 1).indices.tolist() == [[1]]


def test_a_thai_shirt_is_no_tiger() -> None:
    found = TitleBM25(["เสือ", "เสื้อยืดสีแดง", "เสือดำ"]).search(["เสื้อ"], 1)
    assert found.indices.tolist() == [[1]]


def test_bm25_equals_the_formula_by_hand() -> None:
    bm25 = TitleBM25(TITLES)
    bm25.set_parameters(BM25Parameters(1.2, 0.75))
    idf = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5))  # red, in two of four titles
    lengths = np.array([2, 3, 0, 4])
    times = np.array([1, 2, 0, 0])
    expected = idf * times / (times + 1.2 * (1 - 0.75 + 0.75 * lengths / lengths.mean()))
    np.testing.assert_allclose(bm25.scores(["red"])[0], expected, rtol=1e-5)


def test_bm25_does_not_find_titles_that_share_no_word() -> None:
    found = TitleBM25(TITLES).search(["blue shirts", "unknown", ""], 10)
    assert found.indices.tolist() == [[3, 0, -1, -1], [-1] * 4, [-1] * 4]


def test_bm25_ties_are_by_position() -> None:
    assert TitleBM25(["b", "a", "a", "a"]).search(["a"], 3).indices.tolist() == [[1, 2, 3]]


def test_bm25_of_no_titles_finds_nothing() -> None:
    assert TitleBM25(["", ""]).search(["red"], 2).indices.tolist() == [[-1, -1]]


def test_bm25_parameters_are_chosen_from_the_grid_and_set() -> None:
    titles = ["red", "red shirt with a very long title of many words", "shirt"]
    judged = judge([Query("q", "red shirt", "val", {"p1": 3})], ["p0", "p1", "p2"], CatalogInfo("t"))
    bm25 = TitleBM25(titles)
    chosen = tune_bm25(bm25, judged)
    assert chosen.k1 in K1_GRID and chosen.b in B_GRID
    assert bm25.search(["red shirt"], 1).indices.tolist() == [[1]]


def test_random_ranking_is_of_the_seed_and_each_query_has_its_own_order() -> None:
    first, again, other = (random_ranking(300, 20, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.indices, again.indices)
    assert (first.indices != other.indices).any()
    assert (np.sort(first.indices, axis=1) == np.arange(20)).all()
    assert len({tuple(row) for row in first.indices.tolist()}) == 300


def test_fused_adds_a_share_of_the_best_bm25_score() -> None:
    model = np.array([[0.5, 0.1], [0.3, 0.2]], np.float32)
    bm25 = np.array([[2.0, 8.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(fuse_scores(model, bm25, 0.2), [[0.55, 0.3], [0.3, 0.2]])


def fusion(products: np.ndarray, absent: list[bool]) -> BM25Fusion:
    queries = np.array([[1, 0]], np.float32)
    weights = np.where(np.array(absent)[:, None], np.float32(0), np.float32(0.5)).repeat(2, axis=1)
    return BM25Fusion(["shoes"], queries, ProductEmbeddings(products, weights), TitleBM25(["red shoes", "hat", "red"]))


def test_fusion_weight_is_the_one_with_the_best_validation_value() -> None:
    split = fusion(np.array([[0.1, 0.9], [0.6, 0.8], [0.5, 0]], np.float32), [False] * 3)
    judged = judge([Query("q", "shoes", "val", {"p0": 3})], ["p0", "p1", "p2"], CatalogInfo("t"))
    values = tune_fusion_weight(split, judged)
    assert list(values) == list(FUSION_WEIGHTS)
    assert values[0.0] == pytest.approx(0.5)  # third without BM25
    assert values[1.0] == 1.0


def test_a_product_without_a_vector_has_its_bm25_score_alone() -> None:
    split = fusion(np.array([[0, 0], [0.6, 0.8], [-0.5, 0]], np.float32), [True, False, False])
    ranking = split.rankings([0.3], 3)[0]
    assert ranking.indices.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(ranking.scores, [[0.6, 0.3, -0.5]])


def test_how_many_queries_are_scored_together_is_bounded_by_the_memory_of_their_scores(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(["red", "blue", "shirt", "hat"], 3)) for _ in range(50)]
    texts = [" ".join(rng.choice(["red", "hat", "shoes"], 2)) for _ in range(40)]
    bm25 = TitleBM25(titles)
    expected = bm25.search(texts, 10), random_ranking(40, 50, 10, seed=3)
    monkeypatch.setattr(top_k, "_MAX_SCORES", 3 * 50)
    chunk_sizes: list[int] = []
    scores = bm25.scores
    monkeypatch.setattr(bm25, "scores", lambda chunk: chunk_sizes.append(len(chunk)) or scores(chunk))
    parts = bm25.search(texts, 10), random_ranking(40, 50, 10, seed=3)
    assert max(chunk_sizes) == 3 and sum(chunk_sizes) == 40
    for a, b in zip(expected, parts, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.scores, b.scores)
