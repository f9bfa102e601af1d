"""Tunes parameters on the validation split only; defaults where it has no judged query."""

from collections.abc import Mapping
from typing import Any

from make_jax.evaluation.baselines import tune_bm25, tune_fusion_weight
from make_jax.evaluation.bm25_terms import BM25Parameters
from make_jax.evaluation.eval_split import EvalSplit
from make_jax.evaluation.late_fusion import DEFAULT_WEIGHT as DEFAULT_TITLE_WEIGHT
from make_jax.evaluation.late_fusion import WEIGHTS as TITLE_WEIGHTS
from make_jax.evaluation.metrics import PRIMARY_METRIC, Judgements, mean_metric
from make_jax.retrieval.rerank import DEFAULT_WEIGHT as DEFAULT_MATCHING_WEIGHT
from make_jax.retrieval.rerank import Candidates, Matcher, match_candidates
from make_jax.retrieval.top_k import Progress, TopK

MATCHING_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0)


def tune(reported: EvalSplit, val: EvalSplit, notes: list[str], progress: Progress) -> dict[str, Any]:
    """The parameters with the best nDCG@10 on `val`, which are also set in both splits; a caveat is added to `notes`.

    They are BM25's k1 and b, the weight of titles in late fusion, and that of BM25 in the fusion with it ("fusion"), as
    far as the systems of `reported` have them. "fusion" has no default: without queries on `val` it is left out, as an
    untuned weight can make a model worse.
    """
    n = len(val.search_pool.judgements.queries)
    late = reported.main == "both" and reported.title_weight is not None
    tuned: dict[str, Any] = {"chosen_on": {"split": "val", "queries": n, "by": PRIMARY_METRIC} if n else None}
    if late:
        tuned["late_fusion"] = _best(_ndcg_by_title_weight(val, progress)) if n else {"weight": DEFAULT_TITLE_WEIGHT}
        reported.title_weight = val.title_weight = tuned["late_fusion"]["weight"]
    if reported.has_titles:
        judgements, allowed = val.search_pool.judgements, val.search_pool.allowed
        parameters = tune_bm25(val.bm25, judgements, progress, allowed) if n else BM25Parameters()
        reported.bm25.set_parameters(parameters)
        tuned["bm25"] = parameters._asdict()
    if n and reported.has_titles and reported.model is not None:
        tuned["fusion"] = _best(tune_fusion_weight(val.fusion(), val.search_pool.judgements, progress))
    if not late and not reported.has_titles:
        tuned["chosen_on"] = None
    elif not n:
        defaults = _list_defaults(tuned, joinable=reported.has_titles and reported.model is not None)
        notes.append(f"The validation split has no judged query, so nothing was tuned: {defaults}.")
    elif val is reported:
        notes.append(
            f"{_list_tuned(tuned)} were chosen on the very queries reported here, which flatters what uses them."
        )
    return tuned


def tune_rerank(
    matcher: Matcher,
    reported: EvalSplit,
    val: EvalSplit,
    ranking: TopK,
    depth: int,
    notes: list[str],
    progress: Progress,
) -> tuple[TopK, dict[str, Any]]:
    """`ranking` of `reported` with its top `depth` re-ranked by the weight that is best on `val`, and that weight."""
    candidates = _match(matcher, reported, ranking, depth, "re-ranking", progress)
    n = len(val.search_pool.judgements.queries)
    tuned: dict[str, Any] = {"depth": depth, "weight": DEFAULT_MATCHING_WEIGHT, "chosen_on": None}
    if n:
        val_candidates = candidates
        if val is not reported:
            val_ranking = val.search(max(depth, 10))
            val_candidates = _match(matcher, val, val_ranking, depth, "re-ranking validation queries", progress)
        tuned |= _best(ndcg_by_matching_weight(val_candidates, val.search_pool.judgements))
        tuned["chosen_on"] = {"split": "val", "queries": n, "by": PRIMARY_METRIC}
    how = f"chosen by {PRIMARY_METRIC} on {n:,} queries of the validation split" if n else "the default"
    notes.append(
        f"Re-ranked are the best {depth} of each query, by scale * cosine + weight * matching logit with weight "
        f"{tuned['weight']:g}, {how}"
        + ("; these are the queries reported, which flatters it." if n and val is reported else ".")
    )
    return candidates.reranked(tuned["weight"]), tuned


def _match(matcher: Matcher, split: EvalSplit, ranking: TopK, depth: int, stage: str, progress: Progress) -> Candidates:
    """The matching logits of a split's candidates; progress is reported under the name `stage`."""

    def stage_progress(_: str, done: int, total: int) -> None:
        progress(stage, done, total)

    products, modality = split.search_pool.products, split.main or "both"
    return match_candidates(matcher, split.catalog, products, split.texts, ranking, depth, modality, stage_progress)


def ndcg_by_matching_weight(candidates: Candidates, judgements: Judgements) -> dict[float, float]:
    """Mean nDCG@10 of each weight of MATCHING_WEIGHTS."""
    return {weight: mean_metric(candidates.reranked(weight), judgements) for weight in MATCHING_WEIGHTS}


def _ndcg_by_title_weight(val: EvalSplit, progress: Progress) -> dict[float, float]:
    """Mean nDCG@10 of each weight of titles in late fusion."""
    values = {}
    for done, weight in enumerate(TITLE_WEIGHTS, start=1):
        val.title_weight = weight
        values[weight] = mean_metric(val.search(10), val.search_pool.judgements)
        progress("late fusion weights", done, len(TITLE_WEIGHTS))
    return values


def _best(by_weight: Mapping[float, float]) -> dict[str, Any]:
    """The weight with the highest value, the smallest of equals, and the value of every weight."""
    best = max(by_weight, key=lambda weight: (by_weight[weight], -weight))
    values = {f"{weight:g}": value for weight, value in by_weight.items()}
    return {"weight": best, f"validation {PRIMARY_METRIC} by weight": values}


def _list_tuned(tuned: Mapping[str, Any]) -> str:
    names = {"bm25": "k1 and b of BM25", "fusion": "the fusion weight", "late_fusion": "the weight of titles"}
    listed = ", ".join(name for key, name in names.items() if key in tuned)
    return listed[0].upper() + listed[1:]


def _list_defaults(tuned: Mapping[str, Any], joinable: bool) -> str:
    parts = {
        "bm25": "BM25 has Lucene's k1 and b",
        "late_fusion": f"titles have the default weight {DEFAULT_TITLE_WEIGHT} in the late fusion",
    }
    listed = [text for key, text in parts.items() if key in tuned]
    if joinable:
        listed.append("the model is not joined with BM25, because an untuned weight can make it worse")
    return ", ".join(listed)
