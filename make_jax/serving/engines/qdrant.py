"""Search in Qdrant, the same for Qdrant Edge and a cluster: `QdrantEngine` over a `Store`.

Vectors, BM25 and filters are Qdrant's; the attributes are held in memory too (`Columns`, 8 bytes a value), so that
totals, facets, sorting and at most n products of a value are exact and equal those of `flat`. Dense and lexical scores
are read apart and fused here, because Qdrant's fusion gives no scores of the parts and depends on shards [ours].
"""

import json
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from make_jax.evaluation.bm25_terms import DEFAULT_BM25, BM25Parameters
from make_jax.serving.engines import EngineQuery, EngineResult, Parts, Rows
from make_jax.serving.engines.checks import check_vector, count_after
from make_jax.serving.engines.columns import Columns
from make_jax.serving.engines.qdrant_ranking import Collection, ranking
from make_jax.serving.engines.store import Point, PointQuery, Scored, Store, fields_of, payload_of
from make_jax.serving.engines.term_statistics import TermStatistics
from make_jax.serving.filters import Filter

FORMAT = 1  # of payloads and of the state
_POINTS = 512  # that one request writes ...
_NUMBERS = 1 << 19  # ... with at most so many numbers in their vectors: 10 MB of JSON, of 32 that a server accepts
_MAX_DRIFT = 1e-3  # of the mean title length, after which all sparse vectors are written again
_OPTIMIZE_SHARE = 0.1  # of all points that are written without an optimization


@dataclass(frozen=True)
class QdrantSettings:
    """How products are stored and searched."""

    width: int  # of vectors
    bm25: BM25Parameters = DEFAULT_BM25
    candidates: int | None = 128  # that HNSW looks at for a query: more find more, and take longer; None: all vectors
    state: str = ""  # identifies the products; a store that holds others is not opened
    repeats_update: bool = False  # True: an update of these products that was interrupted is made again after opening


class QdrantEngine:
    """An `Engine`. Results equal those of `FlatEngine` but for the summation order of scores, and HNSW's recall.

    After an update that changes the mean title length by more than 0.1 %, all sparse vectors are written again; below
    that, lexical scores differ by less than that from those of a new index.
    """

    def __init__(self, store: Store, settings: QdrantSettings) -> None:
        """Opens a store that is complete: see `is_complete`."""
        self._store = store
        self._settings = settings
        self._lock = threading.RLock()  # of updates; searches read `_collection` once
        self._unoptimized = 0
        stored = store.read_state()
        self._mean_length: float = stored["mean_length"]
        self._state = settings.state
        self._collection = _read(store, settings)
        if stored["updating"]:  # some titles may have been written for another mean length
            self._write_terms(self._collection.terms)

    @staticmethod
    def is_complete(store: Store, settings: QdrantSettings) -> bool:
        """Whether a store holds all products of `settings.state`, written by this version of the code."""
        state = store.read_state()
        if not state or (state["updating"] and not settings.repeats_update):
            return False
        return all(state[name] == value for name, value in _identity(settings).items())

    @classmethod
    def load(cls, store: Store, settings: QdrantSettings, parts: Parts) -> "QdrantEngine":
        """Writes all products into an empty store, and opens it. `parts` is called twice, first to count terms."""
        terms = TermStatistics(settings.bm25)
        for part in parts():
            for title in part.titles:
                terms.add(title)
        _upsert(store, parts(), terms, terms.mean_length)
        store.flush(optimize=True)
        store.write_state(_identity(settings) | {"mean_length": terms.mean_length, "updating": False})
        return cls(store, settings)

    def search(self, queries: Sequence[EngineQuery]) -> list[EngineResult]:
        """The result of each query. Each round of requests to Qdrant is one for all queries."""
        collection = self._collection
        for query in queries:
            check_vector(query, self._settings.width)
        return _in_rounds([ranking(collection, query, self._settings.candidates) for query in queries], self._store)

    def matching(self, filter: Filter | None) -> Bool[np.ndarray, " rows"]:
        """Which rows exist and meet the filter."""
        return self._collection.allowed(filter)

    def attributes(self) -> dict[str, int]:
        """How many products have each attribute."""
        return self._collection.columns.row_counts()

    def update(
        self, replaced: Rows, deleted: Int64[np.ndarray, " n"], state: str = "", parts: Parts | None = None
    ) -> None:
        """Replaces and appends rows, then deletes rows; the store then holds the products of `state`.

        If the process ends meanwhile, the store is not complete until the same update or a later one is made: of each
        product it has the old content or the new one.
        """
        with self._lock:
            old = self._collection
            count = count_after(len(old.exists), replaced, deleted)
            terms = old.terms.copy()
            changed = np.union1d(replaced.rows, deleted)
            for _, payload in self._store.payloads(changed.tolist()):
                terms.remove(payload["title"])
            kept = np.flatnonzero(~np.isin(replaced.rows, deleted))
            written = Rows(*(_taken(values, kept) for values in replaced))
            for title in written.titles:
                terms.add(title)
            drifts = abs(terms.mean_length - self._mean_length) > _MAX_DRIFT * self._mean_length
            self._write_state(updating=True)
            _upsert(self._store, [written], terms, self._mean_length or terms.mean_length)
            self._store.delete(deleted.tolist())
            if drifts:
                self._write_terms(terms)
            self._unoptimized += len(changed)
            self._collection = old.updated(count, written, changed, terms)
            self._finish(state, optimize=self._unoptimized > _OPTIMIZE_SHARE * max(count, 10_000))

    def _write_terms(self, terms: TermStatistics) -> None:
        """Writes all sparse vectors again, for the present mean title length."""
        self._mean_length = terms.mean_length
        titles = {row: payload["title"] for row, payload in self._store.payloads()}
        rows = sorted(titles)
        for start in range(0, len(rows), _POINTS):
            part = rows[start : start + _POINTS]
            vectors = [terms.title_vector(titles[row], self._mean_length) for row in part]
            self._store.set_terms(part, vectors)

    def _finish(self, state: str, optimize: bool) -> None:
        self._store.flush(optimize)
        if optimize:
            self._unoptimized = 0
        self._state = state
        self._write_state(updating=False)

    def _write_state(self, updating: bool) -> None:
        identity = _identity(self._settings) | {"state": self._state}
        self._store.write_state(identity | {"mean_length": self._mean_length, "updating": updating})

    def close(self) -> None:
        """Releases files, memory and connections."""
        self._store.close()


def _identity(settings: QdrantSettings) -> dict[str, Any]:
    values = {"format": FORMAT, "width": settings.width, "state": settings.state}
    return values | {"k1": settings.bm25.k1, "b": settings.bm25.b}


def _taken(values: Any, kept: np.ndarray) -> Any:
    return values[kept] if isinstance(values, np.ndarray) else [values[position] for position in kept.tolist()]


def _read(store: Store, settings: QdrantSettings) -> Collection:
    """What searches need in memory, from the payloads of a store."""
    terms = TermStatistics(settings.bm25)
    rows, attributes, absent = [], [], []
    for row, payload in store.payloads():
        terms.add(payload["title"], payload["terms"])
        rows.append(row)
        attributes.append(
            {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in json.loads(payload["attributes"]).items()
            }
        )
        absent.append(payload["absent"])
    count = max(rows, default=-1) + 1
    exists, missing = np.zeros(count, bool), np.zeros(count, bool)
    exists[rows], missing[rows] = True, absent
    columns = Columns(count, {}).replace(np.array(rows, np.int64), attributes)
    return Collection(exists, missing, columns, terms)


def _upsert(store: Store, parts: Iterable[Rows], terms: TermStatistics, mean_length: float) -> None:
    """Writes products whose titles are counted in `terms`."""
    for part in parts:
        size = max(1, min(_POINTS, _NUMBERS // part.vectors.shape[1]))
        for start in range(0, len(part.rows), size):
            rows = range(start, min(start + size, len(part.rows)))
            points = [_point(part, position, terms, mean_length) for position in rows]
            fields = [fields_of(point.payload) for point in points]
            store.index_fields({name: kind for found in fields for name, kind in found.items()})
            store.upsert(points)


def _point(part: Rows, position: int, terms: TermStatistics, mean_length: float) -> Point:
    title, vector = part.titles[position], part.vectors[position]
    sparse = terms.title_vector(title, mean_length)
    payload = payload_of(title, sparse.indices, part.attributes[position])
    absent = not vector.any()
    return Point(int(part.rows[position]), None if absent else vector.tolist(), sparse, payload | {"absent": absent})


def _in_rounds(
    runs: Sequence[Generator[list[PointQuery], list[Scored], EngineResult]], store: Store
) -> list[EngineResult]:
    """Runs generators that yield queries and return a result; the queries of a round are one request."""
    results: dict[int, EngineResult] = {}
    answers: dict[int, list[Scored] | None] = dict.fromkeys(range(len(runs)))
    while answers:
        queries: dict[int, list[PointQuery]] = {}
        for number, answer in answers.items():
            try:
                queries[number] = next(runs[number]) if answer is None else runs[number].send(answer)
            except StopIteration as finished:
                results[number] = finished.value
        found = iter(store.query([query for part in queries.values() for query in part]) if queries else [])
        answers = {number: [next(found) for _ in part] for number, part in queries.items()}
    return [results[number] for number in range(len(runs))]
