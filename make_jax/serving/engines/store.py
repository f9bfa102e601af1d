"""What `QdrantEngine` needs of Qdrant: `Store`, with one implementation for Qdrant Edge and one for a cluster.

A product is a point whose number is its row. Payload of a point:

    title        the title; the terms of BM25 come from it
    terms        number of each distinct term, in the order of the title
    attributes   JSON object
    has          names of the attributes, for EXISTS
    k_NAME       match keys of an attribute's values, for = and IN
    n_NAME       its numbers, for ranges
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from make_jax.catalog.attributes import AttributeValue
from make_jax.serving.engines.values import elements, match_key, number_of
from make_jax.serving.filters import And, Compare, Exists, Filter, In, Not, Or

DENSE, LEXICAL = "dense", "bm25"  # names of the vectors
HAS = "has"
Condition = dict[str, Any]  # a filter in the JSON of Qdrant's REST API
FieldKind = Literal["keyword", "float"]

NO_POINT: Condition = {"must": [{"has_id": []}]}
_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


class Sparse(NamedTuple):
    """A sparse vector."""

    indices: list[int]
    values: list[float]


class Point(NamedTuple):
    """A product as it is stored."""

    row: int
    vector: list[float] | None  # None: the model cannot encode the product
    terms: Sparse
    payload: dict[str, Any]


class PointQuery(NamedTuple):
    """The points whose inner product with a vector is greatest."""

    vector: list[float] | Sparse
    condition: Condition
    limit: int  # at least 1
    min_score: float | None = None
    candidates: int | None = None  # that HNSW looks at, where there is a graph; None: every vector is compared


class Scored(NamedTuple):
    """Rows by descending score."""

    rows: Int64[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]


@runtime_checkable
class Store(Protocol):
    """Points in Qdrant."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Adds or replaces points."""
        ...

    def delete(self, rows: Sequence[int]) -> None:
        """Deletes points; those that do not exist are skipped."""
        ...

    def set_terms(self, rows: Sequence[int], terms: Sequence[Sparse]) -> None:
        """Replaces the sparse vectors of points."""
        ...

    def index_fields(self, fields: dict[str, FieldKind]) -> None:
        """Indexes fields of the payload for filters."""
        ...

    def query(self, queries: Sequence[PointQuery]) -> list[Scored]:
        """The points of each query, in one request."""
        ...

    def payloads(self, rows: Sequence[int] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the rows and payloads of all points, or of those of `rows` that exist, in no certain order."""
        ...

    def read_state(self) -> dict[str, Any]:
        """What `write_state` wrote last; {} for a new store."""
        ...

    def write_state(self, state: dict[str, Any]) -> None:
        """Writes a few values beside the points, atomically."""
        ...

    def flush(self, optimize: bool) -> None:
        """Writes all changes to disk; `optimize`: builds the graphs of vectors that have none, which may take long."""
        ...

    def close(self) -> None:
        """Releases files, memory and connections."""
        ...


def field_name(prefix: Literal["k", "n"], attribute: str) -> str:
    """The field of an attribute: other characters than letters and digits by their code, so without path syntax."""
    return f"{prefix}_" + re.sub("[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", attribute)


def payload_of(title: str, terms: list[int], attributes: dict[str, AttributeValue]) -> dict[str, Any]:
    """The payload of a product."""
    payload: dict[str, Any] = {"title": title, "terms": terms, "attributes": json.dumps(attributes, ensure_ascii=False)}
    payload[HAS] = list(attributes)
    for name, value in attributes.items():
        payload[field_name("k", name)] = list(dict.fromkeys(match_key(element) for element in elements(value)))
        if numbers := [found for element in elements(value) if (found := number_of(element)) is not None]:
            payload[field_name("n", name)] = numbers
    return payload


def fields_of(payload: dict[str, Any]) -> dict[str, FieldKind]:
    """The fields of a payload that filters use."""
    kinds: dict[str, FieldKind] = {name: "keyword" for name in payload if name == HAS or name.startswith("k_")}
    return kinds | {name: "float" for name in payload if name.startswith("n_")}


def condition_of(filter: Filter | None, exclude: Sequence[int] = ()) -> Condition:
    """The points that meet a filter, without those of `exclude`."""
    condition: Condition = {} if filter is None else {"must": [_condition(filter)]}
    return condition | {"must_not": [{"has_id": list(exclude)}]} if exclude else condition


def _condition(filter: Filter) -> Condition:
    if isinstance(filter, And):
        return {"must": [_condition(part) for part in filter.conditions]}
    if isinstance(filter, Or):
        return {"should": [_condition(part) for part in filter.conditions]}
    if isinstance(filter, Not):
        return {"must_not": [_condition(filter.condition)]}
    if isinstance(filter, Exists):
        return {"key": HAS, "match": {"value": filter.attribute}}
    if isinstance(filter, In):
        keys = list(dict.fromkeys(match_key(value) for value in filter.values))
        return {"key": field_name("k", filter.attribute), "match": {"any": keys}} if keys else NO_POINT
    return _comparison(filter)


def _comparison(filter: Compare) -> Condition:
    if filter.operator == "=":
        return {"key": field_name("k", filter.attribute), "match": {"value": match_key(filter.value)}}
    number = number_of(filter.value)
    if number is None:
        return NO_POINT
    return {"key": field_name("n", filter.attribute), "range": {_RANGES[filter.operator]: number}}
