"""Baselines: BM25 over titles, a random ranking, and the fusion of a model with BM25."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from make_jax.errors import check_lists
from make_jax.evaluation.bm25_terms import BM25Parameters, tokenize
from make_jax.evaluation.metrics import Judgements, mean_metric
from make_jax.retrieval.top_k import (
    CandidateFilter,
    Progress,
    TopK,
    concat_top_k,
    mask_scores,
    no_filter,
    no_progress,
    query_chunk_size,
    top_k_of_scores,
)
from make_jax.retrieval.vector_index import VectorIndex

K1_GRID = (0.1, 0.2, 0.4, 0.8, 1.2, 2.0)
B_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
FUSION_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)


class TitleBM25:
    """BM25 over titles, Lucene's variant, by bm25s [Robertson et al. 1994]. A title without a query term scores 0."""

    def __init__(self, titles: Sequence[str]) -> None:
        check_lists(titles=titles)
        self.count = len(titles)
        self._titles = [tokenize(title) for title in titles]
        self._index: Any = None
        self.set_parameters(BM25Parameters())

    def set_parameters(self, parameters: BM25Parameters) -> None:
        """Rebuilds the index with other parameters."""
        import bm25s  # type: ignore[import-untyped]

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index that it builds at DEBUG

        if any(self._titles):
            self._index = bm25s.BM25(k1=parameters.k1, b=parameters.b, method="lucene", backend="numpy")
            self._index.index(self._titles, show_progress=False)

    @property
    def index_bytes(self) -> int:
        """Bytes of the arrays of the index."""
        if self._index is None:
            return 0
        return sum(np.asarray(self._index.scores[name]).nbytes for name in ("data", "indices", "indptr"))

    def scores(self, texts: Sequence[str]) -> Float32[np.ndarray, "q N"]:
        """Returns the score of every query with every title; the caller chunks the queries."""
        check_lists(texts=texts)
        out = np.zeros((len(texts), self.count), np.float32)
        for row, text in zip(out, texts, strict=True):
            token_ids = self._index.get_tokens_ids(tokenize(text)) if self._index is not None else []
            if token_ids:
                row[:] = self._index.get_scores_from_ids(token_ids)
        return out

    def search(self, texts: Sequence[str], k: int, allowed: CandidateFilter = no_filter) -> TopK:
        """Returns the k best titles of each query, ties by position. A title without a query term is not retrieved.

        With `allowed`, such titles are ranked last: the pool is mask, and all of it is ordered.
        """
        check_lists(texts=texts)
        parts = []
        at_once = query_chunk_size(self.count)
        for start in range(0, len(texts), at_once):
            rows = slice(start, min(start + at_once, len(texts)))
            scores, mask = self.scores(texts[rows]), allowed(rows)
            parts.append(
                top_k_of_scores(np.where(scores > 0 if mask is None else mask, scores, np.float32(-np.inf)), k)
            )
        return concat_top_k(parts, min(k, self.count))


def tune_bm25(
    bm25: TitleBM25, judgements: Judgements, progress: Progress = no_progress, allowed: CandidateFilter = no_filter
) -> BM25Parameters:
    """Sets and returns the parameters of K1_GRID x B_GRID with the best mean nDCG@10; of equals, the first."""
    texts = [query.text for query in judgements.queries]
    grid = [BM25Parameters(k1, b) for k1 in K1_GRID for b in B_GRID]
    values = []
    for done, parameters in enumerate(grid, start=1):
        bm25.set_parameters(parameters)
        ranking = bm25.search(texts, 10, allowed)
        values.append(mean_metric(ranking, judgements))
        progress("BM25 parameters", done, len(grid))
    best = grid[int(np.argmax(values))]
    bm25.set_parameters(best)
    return best


def random_ranking(queries: int, products: int, k: int, seed: int, allowed: CandidateFilter = no_filter) -> TopK:
    """Returns the first k products of a random permutation for each query."""
    rng = np.random.default_rng(seed)
    parts = []
    at_once = query_chunk_size(products)
    for start in range(0, queries, at_once):
        rows = slice(start, min(start + at_once, queries))
        drawn = rng.random((rows.stop - rows.start, products), np.float32)
        parts.append(top_k_of_scores(mask_scores(drawn, allowed(rows)), k))
    return concat_top_k(parts, min(k, products))


def fuse_scores(
    model: Float32[np.ndarray, "q N"], bm25: Float32[np.ndarray, "q N"], weight: float
) -> Float32[np.ndarray, "q N"]:
    """Returns model score + weight * BM25 score / best BM25 score of the query (0 when no title matches) [ours]."""
    best = bm25.max(axis=1, keepdims=True, initial=np.float32(0))
    normalized = np.divide(bm25, best, out=np.zeros_like(bm25), where=best > 0)
    return model + np.float32(weight) * normalized


class BM25Fusion(NamedTuple):
    """A model and BM25 over the same queries and products, ranked by `fuse_scores`."""

    texts: Sequence[str]
    queries: Float32[np.ndarray, "Q D"]
    products: VectorIndex  # absent products have only their BM25 score
    bm25: TitleBM25
    allowed: CandidateFilter = no_filter

    def rankings(self, weights: Sequence[float], k: int, progress: Progress = no_progress) -> list[TopK]:
        """Returns the rankings of all queries for each weight, in chunks of queries."""
        parts: list[list[TopK]] = [[] for _ in weights]
        absent = self.products.absent
        at_once = query_chunk_size(len(absent))
        for start in range(0, len(self.texts), at_once):
            rows = slice(start, min(start + at_once, len(self.texts)))
            mask = self.allowed(rows)
            model = np.where(absent, np.float32(0), self.products.scores(self.queries[rows]))
            lexical = self.bm25.scores(self.texts[rows])
            if mask is not None:
                lexical = np.where(mask, lexical, np.float32(0))  # normalize by the best score in the pool
            for weight, part in zip(weights, parts, strict=True):
                part.append(top_k_of_scores(mask_scores(fuse_scores(model, lexical, weight), mask), k))
            progress("fusion with BM25", rows.stop, len(self.texts))
        return [concat_top_k(part, min(k, len(absent))) for part in parts]


def tune_fusion_weight(
    fusion: BM25Fusion, judgements: Judgements, progress: Progress = no_progress
) -> dict[float, float]:
    """Returns the mean nDCG@10 of each weight of FUSION_WEIGHTS."""
    rankings = fusion.rankings(FUSION_WEIGHTS, 10, progress)
    return {weight: mean_metric(ranking, judgements) for weight, ranking in zip(FUSION_WEIGHTS, rankings, strict=True)}
