"""Exact search in memory, with the scores and ranks of eval.py's "joint" and "joint + BM25" [ours]."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int64

from make_jax.errors import InputError
from make_jax.evaluation.baselines import TitleBM25, fuse_scores
from make_jax.evaluation.bm25_terms import DEFAULT_BM25, BM25Parameters
from make_jax.retrieval.device_vectors import DeviceVectors, pad_rows
from make_jax.retrieval.top_k import inner_products, query_chunk_size
from make_jax.serving.engines import EngineQuery, EngineResult, Parts, Rows
from make_jax.serving.engines.checks import check_vector, count_after
from make_jax.serving.engines.columns import Columns
from make_jax.serving.engines.pages import facets_of, page_of
from make_jax.serving.filters import Filter


class FlatEngine:
    """An `Engine` that scores every product. Memory: the vectors once more on the device, and columns of attributes.

    * With a vector alone, the ranking is that of `top_k`; products with a zero vector are not found.
    * With a vector and a text, it is that of `BM25Fusion` over the kept products.
    * With a text alone, the score is BM25 / best BM25, and products without a term of the text are not found.

    Queries of one call share one matrix product, in chunks whose scores take at most 512 MiB. A query on its own is
    multiplied as a vector, by the program of `top_k`, so its scores may differ from those in a batch in the last bits.
    """

    def __init__(self, parts: Iterable[Rows], bm25: BM25Parameters = DEFAULT_BM25) -> None:
        """Indexes rows 0, 1, ... in order. A single part's vectors are not copied; gaps are deleted rows."""
        self._bm25 = bm25
        self._lock = threading.Lock()  # of updates; searches read `_state` once
        self._state = _load(list(parts), bm25)

    def search(self, queries: Sequence[EngineQuery]) -> list[EngineResult]:
        """The result of each query. Raises InputError for a query vector of another width or with infinite values."""
        state = self._state
        for query in queries:
            check_vector(query, state.vectors.shape[1])
        size = query_chunk_size(len(state.exists))
        chunks = (queries[start : start + size] for start in range(0, len(queries), size))
        return [result for chunk in chunks for result in _search_chunk(state, chunk)]

    def matching(self, filter: Filter | None) -> Bool[np.ndarray, " rows"]:
        """Which rows exist and meet the filter."""
        return self._state.allowed(filter)

    def attributes(self) -> dict[str, int]:
        """How many products have each attribute."""
        return self._state.columns.row_counts()

    def update(
        self, replaced: Rows, deleted: Int64[np.ndarray, " n"], state: str = "", parts: Parts | None = None
    ) -> None:
        """Replaces and appends rows, then deletes rows. A search meanwhile sees the old products or the new ones."""
        with self._lock:
            self._state = _updated(self._state, replaced, deleted, self._bm25)

    def close(self) -> None:
        """Releases the memory; the engine cannot be used afterwards."""
        with self._lock:
            del self._state


@dataclass(frozen=True, eq=False)
class _State:
    """What searches read. Deleted rows have zero vectors, empty titles and no attributes."""

    vectors: Float32[np.ndarray, "rows D"]
    exists: Bool[np.ndarray, " rows"]
    titles: Sequence[str]
    columns: Columns
    on_device: DeviceVectors
    absent: Bool[np.ndarray, " rows"]
    bm25: TitleBM25  # of the existing rows

    @classmethod
    def of(
        cls, vectors: np.ndarray, exists: np.ndarray, titles: Sequence[str], columns: Columns, bm25: BM25Parameters
    ) -> "_State":
        absent = ~np.any(vectors, axis=1)
        lexical = TitleBM25(titles if exists.all() else [titles[row] for row in np.flatnonzero(exists).tolist()])
        if bm25 != DEFAULT_BM25:
            lexical.set_parameters(bm25)
        return cls(vectors, exists, titles, columns, DeviceVectors(vectors, absent), absent, lexical)

    def allowed(self, filter: Filter | None) -> Bool[np.ndarray, " rows"]:
        return self.exists.copy() if filter is None else self.exists & self.columns.matching(filter)

    def bm25_scores(self, texts: Sequence[str]) -> Float32[np.ndarray, "q rows"]:
        scores = self.bm25.scores(texts)
        if len(self.exists) == self.bm25.count:
            return scores
        out = np.zeros((len(texts), len(self.exists)), np.float32)
        out[:, self.exists] = scores
        return out


def _load(parts: list[Rows], bm25: BM25Parameters) -> _State:
    if not parts:
        raise InputError("the index has no products, expected at least one")
    rows = np.concatenate([part.rows for part in parts])
    titles = [title for part in parts for title in part.titles]
    attributes = [values for part in parts for values in part.attributes]
    if np.array_equal(rows, np.arange(len(rows))):
        vectors = parts[0].vectors if len(parts) == 1 else np.concatenate([part.vectors for part in parts])
        return _State.of(vectors, np.ones(len(rows), bool), titles, Columns.of(attributes), bm25)
    vectors = np.concatenate([part.vectors for part in parts])
    empty = _State.of(vectors[:0], np.zeros(0, bool), [], Columns.of([]), bm25)
    return _updated(empty, Rows(rows, vectors, titles, attributes), np.zeros(0, np.int64), bm25)


def _updated(state: _State, replaced: Rows, deleted: np.ndarray, bm25: BM25Parameters) -> _State:
    count = count_after(len(state.exists), replaced, deleted)
    vectors, exists = pad_rows(state.vectors, count), pad_rows(state.exists, count, False)
    vectors, exists = np.array(vectors), np.array(exists)  # those of `state` are in use
    titles = [*state.titles, *[""] * (count - len(state.titles))]
    vectors[replaced.rows], exists[replaced.rows] = replaced.vectors, True
    vectors[deleted], exists[deleted] = 0, False
    for row, title in zip(replaced.rows.tolist(), replaced.titles, strict=True):
        titles[row] = title
    for row in deleted.tolist():
        titles[row] = ""
    columns = state.columns.replace(replaced.rows, replaced.attributes).replace(deleted, [{}] * len(deleted))
    return _State.of(vectors, exists, titles, columns, bm25)


def _search_chunk(state: _State, queries: Sequence[EngineQuery]) -> list[EngineResult]:
    """The results of queries whose scores fit into memory together."""
    vectors = [query.vector for query in queries if query.vector is not None]
    texts = [query.text for query in queries if query.text]
    dense = iter(_cosines(state, np.stack(vectors)) if vectors else [])
    lexical = iter(state.bm25_scores(texts) if texts else [])
    allowed: dict[Filter | None, np.ndarray] = {}
    results = []
    for query in queries:
        if query.filter not in allowed:
            allowed[query.filter] = state.allowed(query.filter)
        cosine = None if query.vector is None else next(dense)
        bm25 = next(lexical) if query.text else None
        results.append(_result(state, query, cosine, bm25, allowed[query.filter]))
    return results


def _cosines(state: _State, queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "q rows"]:
    """The inner products with all vectors.

    On CPU several queries are multiplied by NumPy: XLA's program for 2 to 7 takes 120 ms for 42,203 vectors of 635
    numbers on two cores, that for one 7 ms, and NumPy 20 ms for 2 to 8 and 24 ms for 32 (XLA: 40 ms).
    """
    if len(queries) > 1 and jax.default_backend() == "cpu":
        return queries @ state.vectors.T
    return inner_products(_padded(queries), state.on_device)


def _padded(queries: Float32[np.ndarray, "q D"]) -> Float32[np.ndarray, "p D"]:
    """With zeros up to a power of two, so that few programs are compiled."""
    return pad_rows(queries, 1 << (len(queries) - 1).bit_length())


def _result(
    state: _State,
    query: EngineQuery,
    cosine: Float32[np.ndarray, " rows"] | None,
    bm25: Float32[np.ndarray, " rows"] | None,
    allowed: Bool[np.ndarray, " rows"],
) -> EngineResult:
    kept = allowed.copy()
    kept[[row for row in query.exclude if 0 <= row < len(kept)]] = False
    best = np.float32(0)
    if bm25 is not None:
        bm25 = np.where(kept, bm25, np.float32(0))  # normalized by the best among the kept, as in BM25Fusion
        best = bm25.max(initial=np.float32(0))
    if cosine is not None and bm25 is not None:
        cosine = np.where(state.absent, np.float32(0), cosine)
        scores = fuse_scores(cosine[None], bm25[None], query.lexical_weight)[0]
    elif cosine is not None:
        scores = cosine
        kept &= ~state.absent
    elif bm25 is not None:
        kept &= bm25 > 0
        scores = np.divide(bm25, best, out=np.zeros_like(bm25), where=best > 0)
    else:
        scores = np.zeros(len(kept), np.float32)
    scores = scores + np.float32(0)  # -0.0 becomes 0.0: they are a tie, as in `top_k`
    if query.min_score is not None:
        kept &= scores >= np.float32(query.min_score)
    page = page_of(query, scores, kept, state.columns)
    facets, stats = facets_of(query, kept, state.columns)
    rows = page.positions
    unknown = np.full(len(rows), np.nan, np.float32)
    shares = unknown if bm25 is None else np.divide(bm25[rows], best, out=np.zeros_like(unknown), where=best > 0)
    found = unknown if cosine is None else cosine[rows]
    return EngineResult(rows, scores[rows], found, shares, page.total, facets=facets, facet_stats=stats)
