"""Metrics of rankings. To add one, add an entry to `METRICS`; reports, comparisons and TREC commands follow.

Values come from trec_eval, through ir-measures and pytrec_eval, with scores that have no ties. ir-measures alone would
pick a provider per measure, and providers break ties differently.
"""

import ast
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from make_jax.catalog.schema import CatalogInfo, Query
from make_jax.evaluation.trec import strictly_decreasing
from make_jax.retrieval.top_k import TopK

if TYPE_CHECKING:
    from ir_measures.measures import Measure

PRIMARY_METRIC = "nDCG@10"  # tunes parameters on validation queries; shown by slice


@runtime_checkable
class QueryMetric(Protocol):
    """A metric in Python, for measures that trec_eval does not have."""

    def __call__(self, ranked: Sequence[str], grades: Mapping[str, int], relevant: int) -> float:
        """Returns the value of one query.

        `ranked` holds product ids, best first; `grades` the judgements of the query by product id, without those of
        products that are not searched; `relevant` is the least grade that counts as relevant.
        """
        ...


@dataclass(frozen=True)
class Metric:
    """How a metric is computed and where it is shown. Every metric is in report.json, report.md and `compare`."""

    measure: str | QueryMetric  # the name in ir-measures, such as "nDCG@50" or "P(rel=2)@5", or a function
    task: str = ""  # "known-item", "graded" or "category": also in the table by task
    terminal: bool = False  # also in the table that eval.py prints, which has room for eight


METRICS: dict[str, Metric] = {
    "nDCG@10": Metric("nDCG@10", task="graded", terminal=True),
    "MRR@10": Metric("RR@10", task="known-item", terminal=True),
    "recall@10": Metric("R@10", terminal=True),  # the share of the relevant products that is found
    "recall@100": Metric("R@100", terminal=True),
    "recall@1000": Metric("R@1000", terminal=True),
    "precision@10": Metric("P@10", task="category"),
    "hit_rate@1": Metric("Success@1", task="known-item", terminal=True),  # whether any relevant product is found
    "hit_rate@5": Metric("Success@5"),
    "hit_rate@10": Metric("Success@10", task="known-item", terminal=True),
    "MAP": Metric("AP", task="category", terminal=True),
}
_MEASURE = re.compile(r"(\w+)(?:\((.*)\))?(?:@(\d+))?")  # nDCG@10, P(rel=2)@5
_QUERY_CHUNK = 256  # pytrec_eval takes rankings as dictionaries, which are large
_LARGEST_GAIN = 1_000_000  # as an integer; trec_eval takes time and memory in proportion to it
_SHORT = 10  # metrics with no larger cutoff share a pass over rankings of this depth


def parse_measure(name: str) -> "Measure":
    """Returns the measure that ir-measures calls `name`; ValueError for an unknown one.

    Instead of ir_measures.parse_measure, which reads `ast.Num`: deprecated, and absent from Python 3.14.
    """
    import ir_measures

    match = _MEASURE.fullmatch(name)
    if match is None or match[1] not in ir_measures.measures.registry:
        raise ValueError(f"{name!r} is not a measure of ir-measures")
    measure = ir_measures.measures.registry[match[1]]
    if match[2]:
        call = ast.parse(f"f({match[2]})", mode="eval").body
        assert isinstance(call, ast.Call)
        measure = measure(**{str(each.arg): ast.literal_eval(each.value) for each in call.keywords})
    return measure @ int(match[3]) if match[3] else measure


@dataclass(frozen=True)
class Judgements:
    """The judged queries of a split, restricted to the products that are searched."""

    product_ids: tuple[str, ...]  # of the products searched
    queries: tuple[Query, ...]  # with at least one relevant product; metrics are over these
    qrels: dict[str, dict[str, int]]  # of `queries`: query id -> product id -> grade, searched products only
    without_positive: tuple[str, ...]  # ids of queries left out: no relevant product among those searched
    outside: int  # judgements of products that are not searched, left out
    relevant: int  # least grade that counts as relevant
    gains: dict[int, int] | None  # gain of each grade in nDCG; None: the grade is the gain
    exact_gains: dict[int, float] | None = None  # instead of `gains`, where trec_eval's integers cannot have the ratios

    def measure(self, metric: str) -> "Measure":
        """Returns the metric as an ir-measures measure, with the relevant grade and the gains of these judgements."""
        name = METRICS[metric].measure
        if not isinstance(name, str):
            raise TypeError(f"{metric} is a function, not a measure of ir-measures")
        measure = parse_measure(name)
        if "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params:
            measure = measure(rel=self.relevant)
        if self.gains is not None and _takes_gains(measure):
            measure = measure(gains=self.gains)
        return measure

    def rescore_names(self) -> dict[str, str]:
        """Returns metric -> measure for the command line of ir_measures, which splits at spaces."""
        return {
            name: str(self.measure(name)).replace(" ", "")
            for name, metric in METRICS.items()
            if isinstance(metric.measure, str) and self.exact_ndcg(name) is None
        }

    def exact_ndcg(self, metric: str) -> "ExactNDCG | None":
        """Returns the function for a metric that is nDCG with `exact_gains`; None for every other metric."""
        name = METRICS[metric].measure
        if self.exact_gains is None or not isinstance(name, str):
            return None
        measure = self.measure(metric)
        return ExactNDCG(self.exact_gains, measure.params.get("cutoff")) if _takes_gains(measure) else None


@dataclass(frozen=True)
class ExactNDCG:
    """nDCG with a linear gain for each grade, in float64: a `QueryMetric` for gains that trec_eval cannot represent."""

    gains: Mapping[int, float]
    cutoff: int | None = None

    def __call__(self, ranked: Sequence[str], grades: Mapping[str, int], relevant: int) -> float:
        """Returns the value of one query; 0 if no judged product has a gain."""
        largest = max((self.gains[grade] for grade in grades.values()), default=0.0)
        if largest == 0:
            return 0.0
        gains = {product: self.gains[grade] / largest for product, grade in grades.items()}  # sums do not overflow
        ideal = self._dcg(sorted(gains.values(), reverse=True))
        return self._dcg(gains.get(product, 0.0) for product in ranked) / ideal

    def _dcg(self, gains: Iterable[float]) -> float:
        return math.fsum(gain / math.log2(i + 2) for i, gain in enumerate(itertools.islice(gains, self.cutoff)))


def judge(queries: Sequence[Query], product_ids: Sequence[str], info: CatalogInfo) -> Judgements:
    """Returns the judgements of `queries` over the searched products; queries without a relevant one are left out."""
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
    grades = sorted({grade for rel in qrels.values() for grade in rel.values()})
    gains = {grade: info.gains.get(grade, float(grade)) for grade in grades}
    integers = None if all(gain == grade for grade, gain in gains.items()) else _integer_gains(gains)
    return Judgements(
        product_ids=tuple(product_ids),
        queries=tuple(kept),
        qrels=qrels,
        without_positive=tuple(left_out),
        outside=outside,
        relevant=info.relevant,
        gains=integers or None,
        exact_gains=gains if integers == {} else None,
    )


def score_ranking(
    ranking: TopK, judgements: Judgements, metrics: Sequence[str] | None = None
) -> dict[str, Float64[np.ndarray, "Q"]]:
    """Returns the value of each metric, all of METRICS by default, for each query of `judgements.queries`.

    The queries are the rows of `ranking`. nDCG is linear in the gains; the ideal ranking is over all judged products,
    retrieved or not. An empty ranking scores 0. Raises ValueError for another number of rankings.
    """
    if len(ranking.indices) != len(judgements.queries):
        raise ValueError(f"{len(ranking.indices)} rankings for {len(judgements.queries)} queries")
    metrics = tuple(METRICS) if metrics is None else metrics
    values = {metric: np.zeros(len(judgements.queries)) for metric in metrics}
    ids = np.array(judgements.product_ids, dtype=object)
    for depth, (measures, functions) in _by_depth(judgements, metrics).items():
        for start in range(0, len(judgements.queries), _QUERY_CHUNK):
            rows = slice(start, start + _QUERY_CHUNK)
            chunk = TopK(ranking.scores[rows, :depth], ranking.indices[rows, :depth])
            _score_chunk(chunk, ids, judgements, measures, functions, start, values)
    return values


def mean_metric(ranking: TopK, judgements: Judgements, metric: str = PRIMARY_METRIC) -> float:
    """Returns the mean of a metric over the queries."""
    return float(score_ranking(ranking, judgements, [metric])[metric].mean())


def min_depth() -> int:
    """Returns the number of products per query that the metrics read: the largest cutoff of METRICS."""
    measures = [parse_measure(m.measure) for m in METRICS.values() if isinstance(m.measure, str)]
    return max((measure.params.get("cutoff", 1) for measure in measures), default=1)


_Measures = dict["Measure", str]  # -> name of the metric
_Functions = dict[str, QueryMetric]


def _by_depth(judgements: Judgements, metrics: Sequence[str]) -> dict[int | None, tuple[_Measures, _Functions]]:
    """Returns the metrics by the depth to which rankings are read for them; None: all of it."""
    import ir_measures

    groups: dict[int | None, tuple[_Measures, _Functions]] = {}
    for name in metrics:
        function = judgements.exact_ndcg(name) or METRICS[name].measure
        if not isinstance(function, str):
            groups.setdefault(None, ({}, {}))[1][name] = function
            continue
        measure = judgements.measure(name)
        cutoff = measure.params.get("cutoff")
        if ir_measures.pytrec_eval.supports(measure):
            depth = _SHORT if cutoff is not None and cutoff <= _SHORT else None
        else:  # trec_eval has no RR@k: RR of the ranking cut at k
            depth = cutoff
            measure = type(measure)(**{key: value for key, value in measure.params.items() if key != "cutoff"})
        groups.setdefault(depth, ({}, {}))[0][measure] = name
    return groups


def _score_chunk(
    ranking: TopK,
    ids: np.ndarray,
    judgements: Judgements,
    measures: _Measures,
    functions: _Functions,
    start: int,
    values: dict[str, np.ndarray],
) -> None:
    """Writes the values of a chunk of queries, the first of which is number `start`, into `values`."""
    import ir_measures

    queries = judgements.queries[start : start + len(ranking.indices)]
    run = {}
    for query, row, scores in zip(queries, ranking.indices, strictly_decreasing(ranking.scores), strict=True):
        n = int(np.count_nonzero(row >= 0))
        run[query.id] = dict(zip(ids[row[:n]].tolist(), scores[:n].tolist(), strict=True))
    positions = {query.id: start + i for i, query in enumerate(queries)}
    qrels = {query.id: judgements.qrels[query.id] for query in queries}
    if measures:
        for result in ir_measures.pytrec_eval.evaluator(list(measures), qrels).iter_calc(run):
            values[measures[result.measure]][positions[result.query_id]] = result.value
    for name, function in functions.items():
        for query_id, position in positions.items():
            values[name][position] = function(list(run[query_id]), qrels[query_id], judgements.relevant)


def _takes_gains(measure: "Measure") -> bool:
    """Returns whether a measure has gains that its name does not set."""
    return "gains" in measure.SUPPORTED_PARAMS and "gains" not in measure.params


def _integer_gains(gains: dict[int, float]) -> dict[int, int]:
    """Returns integers in the same ratios, which trec_eval requires; empty if there are none that it can handle.

    nDCG is a ratio, so a common factor changes nothing. The integers are the gains or their thousandfold.
    """
    factor = 1 if all(float(gain).is_integer() for gain in gains.values()) else 1000
    if max(gains.values()) > _LARGEST_GAIN / factor:
        return {}
    integers = {grade: round(gain * factor) for grade, gain in gains.items()}
    exact = all(math.isclose(integers[grade], gain * factor, rel_tol=1e-12) for grade, gain in gains.items())
    return integers if exact else {}
