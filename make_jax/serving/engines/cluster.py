"""Search in a Qdrant server or cluster: `ClusterEngine`; one collection for each version, and an alias for the current.

client = QdrantClient(url)
engine = open_cluster(client, "shop-v2", settings, parts)     creates the collection if it is new or incomplete
switch_alias(client, "shop", "shop-v2")                       atomic; back with the other name
"""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException
from qdrant_client.local.qdrant_local import QdrantLocal

from make_jax.errors import InputError
from make_jax.serving.engines import Parts
from make_jax.serving.engines.qdrant import QdrantEngine, QdrantSettings
from make_jax.serving.engines.store import DENSE, LEXICAL, Condition, FieldKind, Point, PointQuery, Scored, Sparse

_ROWS = 4096  # that one request reads
_HNSW = models.HnswConfigDiff(m=16, ef_construct=200)
_SECONDS = 600  # that one request may take: deleting a collection, or writing points of a busy cluster


class ClusterStore:
    """Points of a collection."""

    def __init__(self, client: QdrantClient, collection: str, width: int, owns_client: bool = False) -> None:
        """Opens a collection, or creates it. `owns_client`: closing the store closes the client."""
        self._owns_client = owns_client
        self._client = client
        self._name = collection
        self._local = isinstance(client._client, QdrantLocal)  # in this process: not safe to call from several threads
        self._lock = threading.RLock()
        if not client.collection_exists(collection):
            client.create_collection(
                collection,
                vectors_config={DENSE: models.VectorParams(size=width, distance=models.Distance.DOT)},
                sparse_vectors_config={LEXICAL: models.SparseVectorParams()},
                hnsw_config=_HNSW,
                timeout=_SECONDS,
            )
        self._fields: set[str] = set(client.get_collection(collection).payload_schema)

    def upsert(self, points: Sequence[Point]) -> None:
        """Adds or replaces points."""
        made = [
            models.PointStruct(id=point.row, vector=_vectors(point.terms, point.vector), payload=point.payload)
            for point in points
        ]
        if made:
            with self._lock:
                self._client.upsert(self._name, made, wait=True)

    def delete(self, rows: Sequence[int]) -> None:
        """Deletes points; those that do not exist are skipped."""
        if rows:
            with self._lock:
                self._client.delete(self._name, models.PointIdsList(points=list(rows)), wait=True)

    def set_terms(self, rows: Sequence[int], terms: Sequence[Sparse]) -> None:
        """Replaces the sparse vectors of points."""
        vectors = [
            models.PointVectors(id=row, vector=_vectors(sparse)) for row, sparse in zip(rows, terms, strict=True)
        ]
        with self._lock:
            self._client.update_vectors(self._name, vectors, wait=True)

    def index_fields(self, fields: dict[str, FieldKind]) -> None:
        """Indexes fields of the payload for filters."""
        for name in sorted(fields.keys() - self._fields):
            self._fields.add(name)
            if not self._local:  # it has no indexes, and warns
                self._client.create_payload_index(self._name, name, models.PayloadSchemaType(fields[name]), wait=True)

    def query(self, queries: Sequence[PointQuery]) -> list[Scored]:
        """The points of each query, in one request."""
        made = [
            models.QueryRequest(
                query=_query_vector(query.vector),
                using=LEXICAL if isinstance(query.vector, Sparse) else DENSE,
                filter=_filter(query.condition),
                score_threshold=query.min_score,
                limit=query.limit,
                params=None if self._local else _parameters(query),
            )
            for query in queries
        ]
        if not self._local:
            answers = self._client.query_batch_points(self._name, made)
        else:
            with self._lock:
                answers = self._client.query_batch_points(self._name, made)
        return [
            Scored(
                np.array([point.id for point in answer.points], np.int64),
                np.array([point.score for point in answer.points], np.float32),
            )
            for answer in answers
        ]

    def payloads(self, rows: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the rows and payloads of all points, or of those of `rows` that exist."""
        if rows is not None:
            for start in range(0, len(rows), _ROWS):
                part = list(rows[start : start + _ROWS])
                yield from _payloads(self._client.retrieve(self._name, part, with_payload=True))
            return
        offset = None
        while True:
            records, offset = self._client.scroll(self._name, limit=_ROWS, offset=offset, with_payload=True)
            yield from _payloads(records)
            if offset is None:
                return

    def read_state(self) -> dict[str, Any]:
        """What `write_state` wrote last; {} for a new collection."""
        metadata = self._client.get_collection(self._name).config.metadata or {}
        return json.loads(metadata["make_jax"]) if "make_jax" in metadata else {}

    def write_state(self, state: dict[str, Any]) -> None:
        """Writes a few values into the metadata of the collection."""
        self._client.update_collection(self._name, metadata={"make_jax": json.dumps(state)})

    def flush(self, optimize: bool) -> None:
        """Does nothing: a server writes each request to disk before it answers, and builds graphs by itself."""

    def close(self) -> None:
        """Closes the client, if it is the store's."""
        if self._owns_client:
            self._client.close()


def connect_cluster(
    index: str, version: str, settings: QdrantSettings, parts: Parts, is_current: bool = True
) -> QdrantEngine:
    """The engine over the collection of a version, on the server that MAKE_JAX_QDRANT_URL names.

    The index's name becomes an alias for the collection of the current version. MAKE_JAX_QDRANT_API_KEY is sent if it
    is set. Raises InputError if the server is not set or does not answer.
    """
    url = os.environ.get("MAKE_JAX_QDRANT_URL")
    if not url:
        raise InputError("engine cluster needs a Qdrant server; set MAKE_JAX_QDRANT_URL, such as http://localhost:6333")
    collection = f"{index}-{version}"
    try:
        key = os.environ.get("MAKE_JAX_QDRANT_API_KEY")
        client = QdrantClient(url, api_key=key, timeout=_SECONDS, check_compatibility=False)  # that is a thread
        engine = open_cluster(client, collection, settings, parts, owns_client=True)
        if is_current:
            switch_alias(client, index, collection)
    except (ApiException, ValueError) as error:
        raise InputError(f"MAKE_JAX_QDRANT_URL: {url}: {' '.join(str(error).split())}; is a server there?") from None
    return engine


def open_cluster(
    client: QdrantClient, collection: str, settings: QdrantSettings, parts: Parts, owns_client: bool = False
) -> QdrantEngine:
    """The engine over a collection, which is written anew if it is missing, incomplete or holds another state."""
    store = ClusterStore(client, collection, settings.width, owns_client)
    if QdrantEngine.is_complete(store, settings):
        return QdrantEngine(store, settings)
    client.delete_collection(collection, timeout=_SECONDS)
    return QdrantEngine.load(ClusterStore(client, collection, settings.width, owns_client), settings, parts)


def switch_alias(client: QdrantClient, alias: str, collection: str) -> str | None:
    """Makes an alias name another collection, atomically; returns the one it named before."""
    if not client.collection_exists(collection):
        names = sorted(found.name for found in client.get_collections().collections)
        raise InputError(f"the cluster has no collection {collection!r}, expected one of {', '.join(names) or 'none'}")
    before = aliased(client, alias)
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
    client.update_collection_aliases([create] if before is None else [delete, create])
    return before


def aliased(client: QdrantClient, alias: str) -> str | None:
    """The collection that an alias names; None without one."""
    names = {found.alias_name: found.collection_name for found in client.get_aliases().aliases}
    return names.get(alias)


def _payloads(records: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for record in records:
        yield record.id, record.payload


def _vectors(terms: Sparse, dense: list[float] | None = None) -> dict[str, Any]:
    sparse = {LEXICAL: models.SparseVector(indices=terms.indices, values=terms.values)}
    return sparse if dense is None else sparse | {DENSE: dense}


def _query_vector(vector: list[float] | Sparse) -> models.SparseVector | list[float]:
    return models.SparseVector(**vector._asdict()) if isinstance(vector, Sparse) else vector


def _parameters(query: PointQuery) -> models.SearchParams:
    return models.SearchParams(hnsw_ef=query.candidates, exact=query.candidates is None)


def _filter(condition: Condition) -> models.Filter | None:
    return models.Filter.model_validate(condition) if condition else None
