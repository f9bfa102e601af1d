"""A `Store` in a folder by Qdrant Edge. It holds Python's global lock during calls: run it in a process of its own."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from make_jax.files import write_atomically
from make_jax.serving.engines.store import DENSE, LEXICAL, Condition, FieldKind, Point, PointQuery, Scored, Sparse

STATE = "state.json"
_ROWS = 4096  # that one request reads
_HNSW_M, _HNSW_EF = 16, 200  # edges of a node; candidates while the graph is built
_EXACT_KILOBYTES = 10_000  # of vectors that a filter keeps or a segment has, below which they are compared one by one


class EdgeStore:
    """Points of a folder that no other process has open."""

    def __init__(self, folder: Path, width: int) -> None:
        """Opens the shard of a folder, or creates it."""
        self._state_file = folder / STATE
        shard = folder / "shard"
        if shard.exists():
            self._shard = edge.EdgeShard.load(str(shard))
        else:
            self._state_file.unlink(missing_ok=True)  # of a shard that was deleted
            shard.mkdir(parents=True)
            self._shard = edge.EdgeShard.create(str(shard), _config(width))
        self._fields = set(self._shard.info().payload_schema)

    def upsert(self, points: Sequence[Point]) -> None:
        """Adds or replaces points."""
        made = [edge.Point(point.row, _vectors(point.terms, point.vector), point.payload) for point in points]
        if made:
            self._shard.update(edge.UpdateOperation.upsert_points(made))

    def delete(self, rows: Sequence[int]) -> None:
        """Deletes points; those that do not exist are skipped."""
        if rows:
            self._shard.update(edge.UpdateOperation.delete_points(list(rows)))

    def set_terms(self, rows: Sequence[int], terms: Sequence[Sparse]) -> None:
        """Replaces the sparse vectors of points."""
        vectors = [edge.PointVectors(row, _vectors(sparse)) for row, sparse in zip(rows, terms, strict=True)]
        self._shard.update(edge.UpdateOperation.update_vectors(vectors))

    def index_fields(self, fields: dict[str, FieldKind]) -> None:
        """Indexes fields of the payload for filters."""
        kinds = {"keyword": edge.PayloadSchemaType.Keyword, "float": edge.PayloadSchemaType.Float}
        for name in fields.keys() - self._fields:
            self._shard.update(edge.UpdateOperation.create_field_index(name, kinds[fields[name]]))
            self._fields.add(name)

    def query(self, queries: Sequence[PointQuery]) -> list[Scored]:
        """The points of each query, in one request."""
        made = [
            edge.QueryRequest(
                limit=query.limit,
                query=edge.Query.Nearest(_query_vector(query.vector), LEXICAL if _is_sparse(query) else DENSE),
                filter=_filter(query.condition) if query.condition else None,
                score_threshold=query.min_score,
                params=edge.SearchParams(hnsw_ef=query.candidates, exact=query.candidates is None),
            )
            for query in queries
        ]
        found = self._shard.query_batch(edge.QueryBatchRequest(made))
        return [
            Scored(np.array([p.id for p in points], np.int64), np.array([p.score for p in points], np.float32))
            for points in found
        ]

    def payloads(self, rows: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the rows and payloads of all points, or of those of `rows` that exist."""
        if rows is not None:
            for start in range(0, len(rows), _ROWS):
                yield from _payloads(self._shard.retrieve(list(rows[start : start + _ROWS]), True, False))
            return
        offset = None
        while True:
            records, offset = self._shard.scroll(edge.ScrollRequest(offset=offset, limit=_ROWS, with_payload=True))
            yield from _payloads(records)
            if offset is None:
                return

    def read_state(self) -> dict[str, Any]:
        """What `write_state` wrote last; {} for a new store."""
        if not self._state_file.exists():
            return {}
        state: dict[str, Any] = json.loads(self._state_file.read_text("utf-8"))
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        """Writes a few values beside the points, atomically."""
        write_atomically(self._state_file, json.dumps(state).encode())

    def flush(self, optimize: bool) -> None:
        """Writes all changes to disk; `optimize` builds the graphs of vectors that have none."""
        if optimize:
            self._shard.optimize()
        self._shard.flush()

    def close(self) -> None:
        """Closes the folder."""
        self._shard.close()


def _payloads(records: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for record in records:
        yield record.id, record.payload


def _config(width: int) -> edge.EdgeConfig:
    """Vectors have unit length already, so the inner product is the cosine, and zero vectors need no special case."""
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=width, distance=edge.Distance.Dot)},
        sparse_vectors={LEXICAL: edge.EdgeSparseVectorParams()},
        hnsw_config=edge.HnswIndexConfig(
            m=_HNSW_M,
            ef_construct=_HNSW_EF,
            full_scan_threshold=_EXACT_KILOBYTES,
            max_indexing_threads=os.cpu_count() or 1,  # the default, 0, takes one thread on a machine of two cores
        ),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_EXACT_KILOBYTES),
    )


def _vectors(terms: Sparse, dense: list[float] | None = None) -> dict[str, Any]:
    sparse = {LEXICAL: edge.SparseVector(terms.indices, terms.values)}
    return sparse if dense is None else sparse | {DENSE: dense}


def _is_sparse(query: PointQuery) -> bool:
    return isinstance(query.vector, Sparse)


def _query_vector(vector: list[float] | Sparse) -> Any:
    return edge.SparseVector(vector.indices, vector.values) if isinstance(vector, Sparse) else vector


def _filter(condition: Condition) -> Any:
    """A filter of `store.condition_of` as Edge's objects."""
    parts = {name: [_condition(part) for part in condition[name]] for name in condition}
    return edge.Filter(parts.get("must"), parts.get("should"), parts.get("must_not"))


def _condition(condition: Condition) -> Any:
    if "has_id" in condition:
        return edge.HasIdCondition(set(condition["has_id"]))
    if "key" not in condition:
        return _filter(condition)
    if "range" in condition:
        return edge.FieldCondition(condition["key"], range=edge.RangeFloat(**condition["range"]))
    match = condition["match"]
    found = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
    return edge.FieldCondition(condition["key"], match=found)
