"""What is chosen on the validation split, and the defaults where it has no judged query. Nothing is chosen on test."""

from collections.abc import Mapping
from typing import Any

from make_jax.evaluation.baselines import BM25Parameters, tune_bm25, tune_fusion_weight
from make_jax.evaluation.eval_split import EvalSplit
from make_jax.evaluation.late_fusion import DEFAULT_WEIGHT as DEFAULT_TITLE_WEIGHT
from make_jax.evaluation.late_fusion import WEIGHTS as TITLE_WEIGHTS
from make_jax.evaluation.metrics import PRIMARY_METRIC, mean_metric
from make_jax.retrieval.embed import Progress
from make_jax.retrieval.rerank import DEFAULT_WEIGHT as DEFAULT_MATCHING_WEIGHT
from make_jax.retrieval.rerank import Candidates, Matcher, choose_matching_weight, match_candidates
from make_jax.retrieval.search import TopK

DEFAULT_WEIGHT = 0.2  # of BM25 in the fusion, for a catalog that has no validation queries to choose it by


def choose(side: EvalSplit, val: EvalSplit, notes: list[str], progress: Progress) -> dict[str, Any]:
    """The parameters of the systems that `side` has, by nDCG@10 on `val`, which are set in both; `notes` says how.

    They are BM25's k1 and b, the weight of titles in a late fusion, and that of BM25 in the fusion with it.
    """
    n = len(val.searched.judgements.queries)
    late = side.main == "both" and side.title_weight is not None
    chosen: dict[str, Any] = {"chosen_on": {"split": "val", "queries": n, "by": PRIMARY_METRIC} if n else None}
    if late:
        chosen["late_fusion"] = _best(_by_title_weight(val, progress)) if n else {"weight": DEFAULT_TITLE_WEIGHT}
        side.title_weight = val.title_weight = chosen["late_fusion"]["weight"]
    if side.lexical:
        found = tune_bm25(val.bm25, val.searched.judgements, progress, val.searched.allowed) if n else BM25Parameters()
        side.bm25.set_parameters(found)
        chosen["bm25"] = found._asdict()
    if side.lexical and side.model is not None:
        by_weight = tune_fusion_weight(val.fusion(), val.searched.judgements, progress) if n else None
        chosen["fusion"] = _best(by_weight) if by_weight else {"weight": DEFAULT_WEIGHT}
    if not late and not side.lexical:
        chosen["chosen_on"] = None
    elif not n:
        notes.append(f"The validation split has no judged query, so nothing was tuned: {_defaults(chosen)}.")
    elif val is side:
        notes.append(f"{_tuned(chosen)} were chosen on the very queries reported here, which flatters what uses them.")
    return chosen


def choose_rerank(
    matcher: Matcher, side: EvalSplit, val: EvalSplit, ranking: TopK, depth: int, notes: list[str], progress: Progress
) -> tuple[TopK, dict[str, Any]]:
    """`ranking` of `side` with its first `depth` re-ranked, and by what: the weight that is best on `val`."""

    def match(of: EvalSplit, found: TopK, what: str) -> Candidates:
        def told(_: str, done: int, total: int) -> None:
            progress(what, done, total)

        products, reads = of.searched.products, of.main or "both"
        return match_candidates(matcher, of.catalog, products, of.texts, found, depth, reads, told)

    candidates = match(side, ranking, "re-ranking")
    n = len(val.searched.judgements.queries)
    chosen: dict[str, Any] = {"depth": depth, "weight": DEFAULT_MATCHING_WEIGHT, "chosen_on": None}
    if n:
        own = candidates if val is side else match(val, val.search(max(depth, 10)), "re-ranking validation queries")
        chosen |= _best(choose_matching_weight(own, val.searched.judgements))
        chosen["chosen_on"] = {"split": "val", "queries": n, "by": PRIMARY_METRIC}
    how = f"chosen by {PRIMARY_METRIC} on {n:,} queries of the validation split" if n else "the default"
    notes.append(
        f"Re-ranked are the best {depth} of each query, by scale * cosine + weight * matching logit with weight "
        f"{chosen['weight']:g}, {how}"
        + ("; these are the queries reported, which flatters it." if n and val is side else ".")
    )
    return candidates.reranked(chosen["weight"]), chosen


def _best(by_weight: Mapping[float, float]) -> dict[str, Any]:
    """The weight with the highest value, of equals the smallest, and what there was to choose from."""
    best = max(by_weight, key=lambda weight: (by_weight[weight], -weight))
    values = {f"{weight:g}": value for weight, value in by_weight.items()}
    return {"weight": best, f"validation {PRIMARY_METRIC} by weight": values}


def _by_title_weight(val: EvalSplit, progress: Progress) -> dict[float, float]:
    """Mean nDCG@10 of each weight of titles in a late fusion."""
    values = {}
    for done, weight in enumerate(TITLE_WEIGHTS, start=1):
        val.title_weight = weight
        values[weight] = mean_metric(val.search(10), val.searched.judgements)
        progress("late fusion weights", done, len(TITLE_WEIGHTS))
    return values


def _tuned(chosen: Mapping[str, Any]) -> str:
    names = {"bm25": "k1 and b of BM25", "fusion": "the fusion weight", "late_fusion": "the weight of titles"}
    said = ", ".join(name for key, name in names.items() if key in chosen)
    return said[0].upper() + said[1:]


def _defaults(chosen: Mapping[str, Any]) -> str:
    parts = {
        "bm25": "BM25 has Lucene's k1 and b",
        "fusion": f"the fusion its default weight {DEFAULT_WEIGHT}",
        "late_fusion": f"titles have the default weight {DEFAULT_TITLE_WEIGHT} in the late fusion",
    }
    return ", ".join(text for key, text in parts.items() if key in chosen)
