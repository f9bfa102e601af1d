"""Metrics of rankings, all by trec_eval (through ir-measures and pytrec_eval) and in one order of ties.

ir-measures picks a provider per measure, and providers break ties differently: one report could mix two rules. Here
every measure goes through pytrec_eval, with scores that have no ties. RR has no cutoff there, so MRR@10 is RR of the
ten best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from make_jax.catalog.schema import CatalogInfo, Query
from make_jax.evaluation.trec import strictly_decreasing
from make_jax.retrieval.search import TopK

if TYPE_CHECKING:
    from ir_measures.measures import Measure

# Our name -> (name in ir-measures, its cutoff, how deep the ranking is read). recall is the share of the relevant
# products that were found; hit_rate is whether one was found at all.
METRICS: dict[str, tuple[str, int | None, int | None]] = {
    "nDCG@10": ("nDCG", 10, 10),
    "MRR@10": ("RR", None, 10),
    "recall@10": ("R", 10, 10),
    "recall@100": ("R", 100, None),
    "recall@1000": ("R", 1000, None),
    "precision@10": ("P", 10, 10),
    "hit_rate@1": ("Success", 1, 10),
    "hit_rate@5": ("Success", 5, 10),
    "hit_rate@10": ("Success", 10, 10),
    "MAP": ("AP", None, None),
}
_QUERIES_AT_ONCE = 256  # rankings are handed over as dictionaries, which are large


@dataclass(frozen=True)
class Judgements:
    """The judged queries of a split, over its products."""

    product_ids: tuple[str, ...]  # the products that are searched
    queries: tuple[Query, ...]  # those with at least one relevant product; metrics are over these
    qrels: dict[str, dict[str, int]]  # of `queries`: query id -> product id -> grade, searched products only
    without_positive: tuple[str, ...]  # ids of queries left out: no relevant product among those searched
    outside: int  # judgements of products that are not among those searched, left out
    relevant: int  # least grade that counts as relevant
    gains: dict[int, int] | None  # gain of each grade in nDCG; None: the grade is the gain

    def measure(self, metric: str, *, rescoring: bool = False) -> "Measure":
        """The measure of ir-measures that is `metric`; with `rescoring`, for a whole run file (RR needs its cutoff)."""
        import ir_measures

        base, cutoff, depth = METRICS[metric]
        made = getattr(ir_measures, base)
        if base != "nDCG":
            made = made(rel=self.relevant)
        elif self.gains is not None:
            made = made(gains=self.gains)
        cutoff = cutoff or (depth if rescoring else None)
        return made if cutoff is None else made @ cutoff

    def rescore_names(self) -> dict[str, str]:
        """Metric -> its name for the command line of ir_measures, which splits at spaces."""
        return {metric: str(self.measure(metric, rescoring=True)).replace(" ", "") for metric in METRICS}


def judge(queries: Sequence[Query], product_ids: Sequence[str], info: CatalogInfo) -> Judgements:
    """The judgements that metrics need: of the products searched, of queries that have something to find."""
    searched = frozenset(product_ids)
    kept, left_out, qrels, outside = [], [], {}, 0
    for query in queries:
        rel = {product: grade for product, grade in query.rel.items() if product in searched}
        outside += len(query.rel) - len(rel)
        if any(grade >= info.relevant for grade in rel.values()):
            kept.append(query)
            qrels[query.id] = rel
        else:
            left_out.append(query.id)
    grades = {grade for rel in qrels.values() for grade in rel.values()}
    return Judgements(
        product_ids=tuple(product_ids),
        queries=tuple(kept),
        qrels=qrels,
        without_positive=tuple(left_out),
        outside=outside,
        relevant=info.relevant,
        gains=_integer_gains({grade: info.gains.get(grade, float(grade)) for grade in sorted(grades)}),
    )


def score_ranking(
    ranking: TopK, judgements: Judgements, metrics: Sequence[str] = tuple(METRICS)
) -> dict[str, Float64[np.ndarray, "Q"]]:
    """The value of each metric for each query of `judgements.queries`, which are the rows of `ranking`.

    nDCG is linear in the gains, its ideal is over all judged products, found or not. A query that found nothing has 0.
    """
    if len(ranking.indices) != len(judgements.queries):
        raise ValueError(f"{len(ranking.indices)} rankings for {len(judgements.queries)} queries")
    values = {metric: np.zeros(len(judgements.queries)) for metric in metrics}
    ids = np.array(judgements.product_ids, dtype=object)
    for depth in {METRICS[metric][2] for metric in metrics}:
        names = {judgements.measure(metric): metric for metric in metrics if METRICS[metric][2] == depth}
        shallow = TopK(ranking.scores[:, :depth], ranking.indices[:, :depth])
        for start in range(0, len(judgements.queries), _QUERIES_AT_ONCE):
            rows = slice(start, start + _QUERIES_AT_ONCE)
            _score(TopK(shallow.scores[rows], shallow.indices[rows]), ids, judgements, names, start, values)
    return values


def _score(
    ranking: TopK,
    ids: np.ndarray,
    judgements: Judgements,
    names: dict["Measure", str],
    start: int,
    values: dict[str, np.ndarray],
) -> None:
    """Fills in `values` for the queries whose rankings are given, the first of which stands at `start`."""
    import ir_measures

    queries = judgements.queries[start : start + len(ranking.indices)]
    run = {}
    for query, row, scores in zip(queries, ranking.indices, strictly_decreasing(ranking.scores), strict=True):
        n = int(np.count_nonzero(row >= 0))
        run[query.id] = dict(zip(ids[row[:n]].tolist(), scores[:n].tolist(), strict=True))
    place = {query.id: start + i for i, query in enumerate(queries)}
    qrels = {query.id: judgements.qrels[query.id] for query in queries}
    for one in ir_measures.pytrec_eval.evaluator(list(names), qrels).iter_calc(run):
        values[names[one.measure]][place[one.query_id]] = one.value


def _integer_gains(gains: dict[int, float]) -> dict[int, int] | None:
    """Whole numbers in the same ratios, as trec_eval asks, or None when each gain is its grade.

    nDCG is a ratio, so a common factor changes nothing; gains that are not whole are read to three decimals.
    """
    if all(gain == grade for grade, gain in gains.items()):
        return None
    factor = 1 if all(float(gain).is_integer() for gain in gains.values()) else 1000
    return {grade: round(gain * factor) for grade, gain in gains.items()}
