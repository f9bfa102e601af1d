import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval

from make_jax.catalog.schema import CatalogInfo, Query
from make_jax.evaluation.metrics import METRICS, Judgements, judge, parse_measure, score_ranking
from make_jax.evaluation.trec import write_qrels, write_run
from make_jax.retrieval.top_k import TopK


def query(identity: str, rel: dict[str, int]) -> Query:
    return Query(identity, "text", "test", rel)


def ranking(rows: list[list[int]]) -> TopK:
    """All scores equal: the order of the row is the order."""
    indices = np.array(rows, np.int32)
    return TopK(np.where(indices >= 0, np.float32(0.5), np.float32(-np.inf)), indices)


IDS = [f"p{i}" for i in range(12)]
INFO = CatalogInfo("tiny")


def test_metrics_equal_those_computed_by_hand() -> None:
    judged = judge([query("q", {"p4": 3, "p9": 3, "p1": 1, "p0": 0})], IDS, INFO)
    values = score_ranking(ranking([[7, 1, 4, 2, 3, 5, 6, 8, 10, 11, 9, 0]]), judged)
    one = {metric: float(value[0]) for metric, value in values.items()}
    found = 1 / math.log2(3) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 3 / math.log2(3) + 1 / math.log2(4)
    assert one == pytest.approx(
        {
            "nDCG@10": found / ideal,  # p9 is at rank 11: in the ideal ranking, but not in the top ten
            "MRR@10": 1 / 3,  # grade 1 does not count as relevant
            "recall@10": 1 / 2,  # of two relevant products,
            "recall@100": 1.0,
            "recall@1000": 1.0,
            "precision@10": 0.1,
            "hit_rate@1": 0.0,
            "hit_rate@5": 1.0,
            "hit_rate@10": 1.0,  # which is not recall
            "MAP": (1 / 3 + 2 / 11) / 2,
        }
    )


def test_mrr_at_10_ignores_ranks_below_10() -> None:
    judged = judge([query("q", {"p9": 3})], IDS, INFO)
    assert score_ranking(ranking([[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 9]]), judged, ["MRR@10"])["MRR@10"][0] == 0
    assert score_ranking(ranking([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]), judged, ["MRR@10"])["MRR@10"][0] == 0.1


def test_ties_keep_the_order_of_the_ranking_not_of_document_ids() -> None:
    judged = judge([query("a", {"p0": 3}), query("b", {"p0": 3})], IDS, INFO)
    values = score_ranking(ranking([[0, 11], [11, 0]]), judged, ["hit_rate@1"])
    assert values["hit_rate@1"].tolist() == [1, 0]


def test_ndcg_uses_the_gains_of_the_catalog() -> None:
    info = CatalogInfo("tiny", gains={1: 0.01, 2: 0.1, 3: 1.0})
    judged = judge([query("q", {"p0": 3, "p1": 2, "p2": 1})], IDS, info)
    value = score_ranking(ranking([[1, 0, 2]]), judged, ["nDCG@10"])["nDCG@10"][0]
    ideal = 1 + 0.1 / math.log2(3) + 0.01 / 2
    assert value == pytest.approx((0.1 + 1 / math.log2(3) + 0.01 / 2) / ideal)


@pytest.mark.parametrize(
    "gains",
    [
        (0.0004, 0.0001, 1.0),
        (2.0**30, 1.0, 3.0),
        (2.0**60, 2.0**59, 1.0),
        (2.0**100, 1.0, 2.0**99),
        (1e308, 1e308, 5e307),
        (1e308, 0.5, 1e307),
        (5e-324, 0.0, 0.0),
        (1 / 3, 1e-9, 0.6),
        (1000.5, 0.25, 17.0),
    ],
)
def test_ndcg_of_any_gains_equals_the_formula(gains: tuple[float, float, float]) -> None:
    judged = judge(
        [query("q", {"p0": 5, "p1": 4, "p2": 3, "p3": 0})],
        IDS,
        CatalogInfo("tiny", gains=dict(zip((5, 4, 3), gains, strict=True))),
    )
    value = score_ranking(ranking([[7, 2, 0, 3, 1]]), judged, ["nDCG@10"])["nDCG@10"][0]
    a, b, c = (Fraction(gain) for gain in gains)
    discount = [Fraction(math.log2(rank + 1)) for rank in range(1, 6)]
    best = sorted((a, b, c), reverse=True)
    ideal = sum(gain / d for gain, d in zip(best, discount, strict=False))
    assert value == pytest.approx(float((c / discount[1] + a / discount[2] + b / discount[4]) / ideal), abs=1e-12)
    assert "nDCG@10" not in judged.rescore_names() and "MAP" in judged.rescore_names()


def test_exact_ndcg_agrees_with_trec_eval() -> None:
    rng = np.random.default_rng(0)
    gains = {1: 0.5, 2: 1.0, 3: 4.0}
    judged = judge(
        [query(f"q{i}", {p: int(rng.integers(0, 4)) for p in rng.permutation(IDS)[:9]}) for i in range(50)],
        IDS,
        CatalogInfo("tiny", gains=gains),
    )
    run = ranking([rng.permutation(12).tolist() for _ in judged.queries])
    assert judged.gains is not None and judged.exact_gains is None
    exact = dataclasses.replace(judged, gains=None, exact_gains={0: 0.0, **gains})
    ours, theirs = (score_ranking(run, j, ["nDCG@10"])["nDCG@10"] for j in (exact, judged))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_a_grade_without_a_gain_gains_itself() -> None:
    judged = judge([query("q", {"p0": 3, "p1": 1})], IDS, CatalogInfo("tiny", gains={3: 7.0}))
    value = score_ranking(ranking([[1, 0]]), judged, ["nDCG@10"])["nDCG@10"][0]
    assert value == pytest.approx((1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3)))


def test_queries_without_a_positive_are_left_out_and_counted() -> None:
    judged = judge(
        [query("none", {"p0": 2}), query("empty", {}), query("elsewhere", {"other": 3}), query("some", {"p0": 3})],
        IDS,
        INFO,
    )
    assert judged.without_positive == ("none", "empty", "elsewhere")
    assert [q.id for q in judged.queries] == ["some"]
    assert judged.outside == 1


def test_an_empty_ranking_scores_0() -> None:
    judged = judge([query("a", {"p0": 3}), query("b", {"p0": 3})], IDS, INFO)
    values = score_ranking(ranking([[-1, -1], [0, -1]]), judged)
    assert values.pop("precision@10").tolist() == [0, 0.1]
    assert all(value.tolist() == [0, 1] for value in values.values())


def test_values_keep_the_order_of_queries_over_chunks() -> None:
    queries = [query(f"q{i * 7919 % 600}", {f"p{i % 12}": 3}) for i in range(600)]
    judged = judge(queries, IDS, INFO)
    rows = [[i % 12] if i % 5 else [(i + 1) % 12] for i in range(600)]
    values = score_ranking(ranking(rows), judged, ["hit_rate@1"])["hit_rate@1"]
    assert values.tolist() == [float(bool(i % 5)) for i in range(600)]


def test_a_ranking_of_other_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rankings for 1 queries"):
        score_ranking(ranking([[0], [1]]), judge([query("q", {"p0": 3})], IDS, INFO))


def rescored(folder: Path, judged: Judgements) -> dict[str, float]:
    """Means by the ir_measures command line, from the files, in one call for all."""
    names = judged.rescore_names()
    done = subprocess.run(
        [sys.executable, "-m", "ir_measures", "qrels.txt", "a.run.gz", *names.values(), "-p", "9"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    values = dict(line.split("\t") for line in done.stdout.splitlines())
    return {metric: float(values[str(judged.measure(metric))]) for metric in METRICS}


NEAR = np.float32(0.7)


def tied(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Few distinct scores: nearly all are tied."""
    return rng.integers(0, 5, shape).astype(np.float32)


def nearly_tied(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Scores some f32 steps apart, as of cosines of near-duplicates, with ties among them."""
    return NEAR + rng.integers(0, 12, shape).astype(np.float32) * np.spacing(NEAR)


def around_zero(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Both zeros, numbers that some programs flush to zero, and negative ones."""
    return rng.choice(np.array([0.0, -0.0, 1e-40, 2e-38, -2e-38, -0.5], np.float32), shape)


@pytest.mark.parametrize("gains", [{}, {1: 0.5, 2: 1.0, 3: 4.0}])
@pytest.mark.parametrize("scored", [tied, nearly_tied, around_zero])
def test_trec_files_re_score_to_the_same_numbers(
    tmp_path: Path, gains: dict[int, float], scored: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    ids = [f"p{i}" for i in range(60)]
    queries = [
        query(f"q{i}", {ids[p]: int(rng.integers(0, 4)) for p in rng.permutation(60)[: rng.integers(1, 30)]})
        for i in range(25)
    ]
    judged = judge(queries, ids, CatalogInfo("tiny", gains=gains))
    rows = np.stack([rng.permutation(60)[:40] for _ in judged.queries]).astype(np.int32)
    rows[3, 5:] = -1
    rows[4] = -1
    scores = -np.sort(-scored(rng, rows.shape), axis=1)
    run = TopK(np.where(rows >= 0, scores, np.float32(-np.inf)), rows)
    write_run(tmp_path / "a.run.gz", run, [q.id for q in judged.queries], ids, "tag")
    write_qrels(tmp_path / "qrels.txt", judged.qrels)
    ours = {metric: float(value.mean()) for metric, value in score_ranking(run, judged).items()}
    assert rescored(tmp_path, judged) == pytest.approx(ours, abs=1e-8)


TREC_NAMES = {  # our metric -> trec_eval's
    "nDCG@10": "ndcg_cut_10",
    "MRR@10": "recip_rank",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "recall@1000": "recall_1000",
    "precision@10": "P_10",
    "hit_rate@1": "success_1",
    "hit_rate@5": "success_5",
    "hit_rate@10": "success_10",
    "MAP": "map",
}


def by_trec_eval(
    run: dict[str, list[str]], qrels: dict[str, dict[str, int]], relevant: int
) -> dict[str, dict[str, float]]:
    """trec_eval itself on rankings given as lists; their scores are ranks, so there is no tie to break."""
    scored = {q: {doc: float(len(docs) - i) for i, doc in enumerate(docs)} for q, docs in run.items()}
    names = {"ndcg_cut.10", "recip_rank", "recall.10,100,1000", "P.10", "success.1,5,10", "map"}
    return pytrec_eval.RelevanceEvaluator(qrels, names, relevance_level=relevant).evaluate(scored)


@pytest.mark.parametrize("seed", range(200))
def test_metrics_agree_with_trec_eval_on_random_judgements(seed: int) -> None:
    """With tied scores, judged products that no query retrieves, short and empty rankings, no positives."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(5, 150))
    ids = [f"p{i:03}" for i in rng.permutation(count)]
    relevant = int(rng.integers(1, 4))
    gains = {1: 1.0, 2: 10.0, 3: 100.0} if seed % 2 else {}
    queries = []
    for i in range(6):
        judged_ids = rng.permutation(ids)[: rng.integers(0, count)]
        queries.append(query(f"q{i}", {str(p): int(rng.choice([0, 0, 1, 2, 3])) for p in judged_ids}))
    judged = judge(queries, ids, CatalogInfo("tiny", gains=gains, relevant=relevant))
    assert {q.id for q in queries} == {q.id for q in judged.queries} | set(judged.without_positive)
    if not judged.queries:
        return
    depth = int(rng.integers(1, count + 1))
    rows = np.stack([rng.permutation(count)[:depth] for _ in judged.queries]).astype(np.int32)
    for row in rows:
        row[rng.integers(0, depth + 1) :] = -1  # found fewer, down to nothing
    scores = np.where(rows >= 0, -np.sort(-tied(rng, rows.shape), axis=1), np.float32(-np.inf))
    ours = score_ranking(TopK(scores, rows), judged)
    run = {q.id: [ids[p] for p in row if p >= 0] for q, row in zip(judged.queries, rows, strict=True)}
    graded = {q: {p: int(gains.get(grade, grade)) for p, grade in rel.items()} for q, rel in judged.qrels.items()}
    theirs = by_trec_eval(run, judged.qrels, relevant)
    first_ten = by_trec_eval({q: docs[:10] for q, docs in run.items()}, judged.qrels, relevant)
    ndcg = by_trec_eval(run, graded, 1)
    for metric, name in TREC_NAMES.items():
        of = {"nDCG@10": ndcg, "MRR@10": first_ten}.get(metric, theirs)
        expected = [of.get(q.id, {}).get(name, 0.0) for q in judged.queries]  # trec_eval leaves out an empty ranking
        np.testing.assert_allclose(ours[metric], expected, rtol=0, atol=1e-9, err_msg=metric)


def test_measures_are_parsed_as_ir_measures_names_them() -> None:
    """Compared with measures built by hand: ir_measures.parse_measure warns from Python 3.12 on."""
    built = {
        "nDCG@10": ir_measures.nDCG @ 10,
        "AP": ir_measures.AP,
        "P(rel=2)@5": ir_measures.P(rel=2) @ 5,
        "nDCG(gains={0: 0, 1: 2})@10": ir_measures.nDCG(gains={0: 0, 1: 2}) @ 10,
    }
    for name, measure in built.items():
        assert parse_measure(name) == measure and str(parse_measure(name)) == str(measure)
    for name in ("nope@3", "", "nDCG@x", "P(rel"):
        with pytest.raises(ValueError, match="is not a measure of ir-measures"):
            parse_measure(name)
