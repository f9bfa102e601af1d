"""One ranking in Qdrant: which points are read until the page is certain.

A page by score needs the best points only. For the sum of a dense and a lexical score these are found by the threshold
algorithm [Fagin et al. 2003]: both lists are read to the same depth, the missing scores of their points are read,
and the page is certain once its last score exceeds that of any point that is in neither list.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from make_jax.serving.engines import EngineQuery, EngineResult, Rows
from make_jax.serving.engines.columns import Columns
from make_jax.serving.engines.pages import distinct_total, facets_of, page_of
from make_jax.serving.engines.store import Condition, PointQuery, Scored, Sparse, condition_of
from make_jax.serving.engines.term_statistics import TermStatistics
from make_jax.serving.filters import Filter

_SLACK = 64  # points beyond a page that are read at first
_APPROXIMATE_DEPTH = 1024  # at which a page by HNSW, which is not certain anyway, is taken as it is
_COMPLETE_DEPTH = 2048  # at first, of a list down to a least score
_ROUNDING = 1e-5  # of scores

RankingSteps = Generator[list[PointQuery], list[Scored], EngineResult]


@dataclass(frozen=True, eq=False)
class Collection:
    """What searches need in memory of the stored products. Immutable."""

    exists: Bool[np.ndarray, " rows"]
    absent: Bool[np.ndarray, " rows"]  # without a vector
    columns: Columns
    terms: TermStatistics

    def allowed(self, filter: Filter | None) -> Bool[np.ndarray, " rows"]:
        """Which rows exist and meet a filter."""
        return self.exists.copy() if filter is None else self.exists & self.columns.matching(filter)

    def updated(
        self, count: int, written: Rows, changed: Int64[np.ndarray, " n"], terms: TermStatistics
    ) -> "Collection":
        """With `count` rows; those of `changed` are replaced if they are written, and otherwise deleted."""
        exists, absent = np.zeros(count, bool), np.zeros(count, bool)
        exists[: len(self.exists)], absent[: len(self.absent)] = self.exists, self.absent
        exists[changed], absent[changed] = False, False
        exists[written.rows], absent[written.rows] = True, ~written.vectors.any(axis=1)
        columns = self.columns.replace(changed, [{}] * len(changed)).replace(written.rows, written.attributes)
        return Collection(exists, absent, columns, terms)


def ranking(collection: Collection, query: EngineQuery, candidates: int | None) -> RankingSteps:
    """Yields queries of points, is sent their results, and returns the result of a query."""
    kept = collection.allowed(query.filter)
    kept[[row for row in query.exclude if 0 <= row < len(kept)]] = False
    run = _Ranking(collection, query, kept, candidates)
    if query.vector is None:
        return (yield from run.by_text() if query.text else run.by_row())
    if query.sort or query.min_score is not None:
        return (yield from run.complete())
    return (yield from run.best())


class _Ranking:
    """Scores of the rows, as far as they are known."""

    def __init__(
        self, collection: Collection, query: EngineQuery, kept: Bool[np.ndarray, " rows"], candidates: int | None
    ):
        self._query = query
        self._columns = collection.columns
        self._candidates = candidates
        self._condition = condition_of(query.filter, query.exclude)
        self._terms = collection.terms.query_vector(query.text) if query.text else None
        self._vector = None if query.vector is None else query.vector.tolist()
        self._absent = collection.absent & kept
        self._kept = kept & ~collection.absent if self._vector is not None and not query.text else kept
        self._total = int(self._kept.sum())
        self._dense: Float32[np.ndarray, " rows"] = np.full(len(kept), np.nan, np.float32)
        self._dense[self._absent] = 0
        self._lexical: Float32[np.ndarray, " rows"] = np.zeros(len(kept), np.float32)  # BM25
        self._best_lexical = np.float32(0)

    # --- queries ---

    def _dense_query(self, limit: int, min_score: float | None = None, candidates: int | None = None) -> PointQuery:
        assert self._vector is not None
        return PointQuery(self._vector, self._condition, max(limit, 1), min_score, candidates)

    def _lexical_query(self, terms: Sparse, limit: int) -> PointQuery:
        return PointQuery(terms, self._condition, max(limit, 1))

    def _add_lexical(self, found: Scored) -> None:
        self._lexical[found.rows] = found.scores
        self._best_lexical = max(self._best_lexical, found.scores.max(initial=np.float32(0)))

    # --- rankings ---

    def by_row(self) -> RankingSteps:
        """All kept rows with score 0."""
        yield from ()
        return self._all(np.zeros(len(self._kept), np.float32), self._kept)

    def by_text(self) -> RankingSteps:
        """The rows with a term of the text."""
        if self._terms is not None and self._total:
            (found,) = yield [self._lexical_query(self._terms, self._total)]
            self._add_lexical(found)
        return self._all(self._shares(), self._kept & (self._lexical > 0))

    def complete(self) -> RankingSteps:
        """All kept rows, or those that reach the least score."""
        least = self._query.min_score
        if least is not None:
            least -= _ROUNDING + (max(self._query.lexical_weight, 0.0) if self._terms is not None else 0.0)
        wanted = [] if self._terms is None else [self._lexical_query(self._terms, self._total)]
        depth = self._total if least is None else min(_COMPLETE_DEPTH, self._total)  # more costs time per point
        while depth:
            *lexical, found = yield [*wanted, self._dense_query(depth, least)]
            for scored in lexical:
                self._add_lexical(scored)
            if len(found.rows) < depth or depth == self._total:
                self._dense[found.rows] = found.scores
                break
            wanted, depth = [], min(8 * depth, self._total)
        scores = self._fused()
        return self._all(scores, self._kept & ~np.isnan(scores))

    def best(self) -> RankingSteps:
        """The kept rows with the best scores, as many as the page needs."""
        query = self._query
        total = self._total if not query.distinct else distinct_total(query, self._kept, self._columns)
        needed = max(0, min(query.offset + query.limit, total) - query.offset)
        depth = query.offset + query.limit + _SLACK if needed else 0
        while True:
            bound = (yield from self._read_to(min(depth, self._total))) if depth else np.float32(np.inf)
            scores = self._fused()
            known = self._kept & ~np.isnan(scores)
            certain = known & (np.nan_to_num(scores, nan=-np.inf) > bound)
            if self._candidates is not None and depth >= _APPROXIMATE_DEPTH:
                certain = known
            page = page_of(query, scores, certain, self._columns)
            if len(page.positions) >= needed or depth >= self._total:
                return self._result(scores, certain, counted=self._kept, total=total)
            depth *= 4

    def _read_to(self, depth: int) -> Generator[list[PointQuery], list[Scored], np.float32]:
        """Reads both lists to a depth, and all scores of their rows; returns the greatest score of other rows."""
        vectors = int((self._kept & ~self._absent).sum())
        weight = np.float32(max(self._query.lexical_weight, 0.0))
        wanted = [self._dense_query(depth, candidates=self._candidates)]
        if self._terms is not None:
            wanted.append(self._lexical_query(self._terms, depth))
        dense, *lexical = yield wanted
        if self._candidates is not None and len(dense.rows) < min(depth, vectors):  # the filter left few paths
            (dense,) = yield [self._dense_query(depth)]
        self._dense[dense.rows] = dense.scores
        for scored in lexical:
            self._add_lexical(scored)
        least = np.float32(-np.inf) if len(dense.rows) in (vectors, 0) else dense.scores[-1]
        if self._terms is None:
            return least
        (scored,) = lexical
        yield from self._complete_scores(dense.rows, scored.rows)
        if len(scored.rows) < depth or depth >= self._total:
            return least  # other rows have no term of the text
        if self._absent.any():
            least = max(least, np.float32(0))
        return least + weight * scored.scores[-1] / self._best_lexical

    def _complete_scores(
        self, dense: np.ndarray, lexical: np.ndarray
    ) -> Generator[list[PointQuery], list[Scored], None]:
        """Reads the scores that rows of one list lack because they are not in the other."""
        assert self._terms is not None and self._vector is not None
        without_dense = lexical[np.isnan(self._dense[lexical])]
        without_lexical = dense[self._lexical[dense] == 0]
        wanted = []
        if len(without_dense):
            wanted.append(PointQuery(self._vector, _points(without_dense), len(without_dense)))
        if len(without_lexical):
            wanted.append(PointQuery(self._terms, _points(without_lexical), len(without_lexical)))
        if wanted:
            found = yield wanted
            if len(without_dense):
                self._dense[found[0].rows] = found[0].scores
            if len(without_lexical):
                self._lexical[found[-1].rows] = found[-1].scores

    # --- results ---

    def _shares(self) -> Float32[np.ndarray, " rows"]:
        best = self._best_lexical
        return np.divide(self._lexical, best, out=np.zeros_like(self._lexical), where=best > 0)

    def _fused(self) -> Float32[np.ndarray, " rows"]:
        """The scores; NaN where they are unknown."""
        if self._terms is None:
            return self._dense + np.float32(0)
        return self._dense + np.float32(self._query.lexical_weight) * self._shares()

    def _all(self, scores: Float32[np.ndarray, " rows"], ranked: Bool[np.ndarray, " rows"]) -> EngineResult:
        """The result where the scores of all ranked rows are known."""
        if self._query.min_score is not None:
            ranked = ranked & (scores >= np.float32(self._query.min_score))
        return self._result(scores, ranked)

    def _result(
        self,
        scores: Float32[np.ndarray, " rows"],
        ranked: Bool[np.ndarray, " rows"],
        counted: Bool[np.ndarray, " rows"] | None = None,
        total: int | None = None,
    ) -> EngineResult:
        """The page of the ranked rows; totals and facets are those of `counted`."""
        page = page_of(self._query, scores, ranked, self._columns)
        facets, stats = facets_of(self._query, ranked if counted is None else counted, self._columns)
        rows = page.positions
        unknown = np.full(len(rows), np.nan, np.float32)
        dense = unknown if self._vector is None else self._dense[rows]
        lexical = self._shares()[rows] if self._query.text else unknown
        total = page.total if total is None else total
        return EngineResult(rows, scores[rows], dense, lexical, total, facets=facets, facet_stats=stats)


def _points(rows: np.ndarray) -> Condition:
    return {"must": [{"has_id": rows.tolist()}]}
