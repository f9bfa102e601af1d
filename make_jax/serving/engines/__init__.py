"""The engines that rank the products of an index, behind one interface; one contract test covers all of them.

    flat      exact search in memory with the scores of eval.py (default where it is fast enough)
    edge      embedded Qdrant Edge in a process of its own: HNSW, BM25, filters, facets
    cluster   a Qdrant server or cluster

An engine knows rows (positions in the index), not ids; `update` changes rows and appends new ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from make_jax.catalog.attributes import AttributeValue
from make_jax.errors import InputError
from make_jax.serving.filters import Filter
from make_jax.serving.requests import FacetStats, Sort

EngineName = Literal["flat", "edge", "cluster"]


class FolderInUseError(InputError):
    """Another process has the folder of an engine open."""


@dataclass(frozen=True)
class EngineQuery:
    """One ranking. Without vector and text all kept products have score 0; with a text alone the score is BM25's share.

    With a vector alone, products with a zero vector are not found; with a text too, their cosine is 0. With a text
    alone, only titles with a term of it are found.
    """

    vector: Float32[np.ndarray, " D"] | None
    text: str = ""  # for BM25; "": cosine alone
    lexical_weight: float = 0.0  # score = cosine + lexical_weight * BM25 / best BM25 of the query
    filter: Filter | None = None
    min_score: float | None = None  # least score
    sort: tuple[Sort, ...] = ()
    distinct: str = ""
    max_per_value: int = 1
    facets: tuple[str, ...] = ()
    exclude: tuple[int, ...] = ()  # rows
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True)
class EngineResult:
    """A page of a ranking, by descending score, ties by row; totals and facets cover all pages.

    Facets count all products that `filter`, `exclude` and `min_score` keep, before `distinct`; `total` is that of the
    pages, after it.
    """

    rows: Int64[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]
    dense: Float32[np.ndarray, " n"]  # NaN where the query has no vector
    lexical: Float32[np.ndarray, " n"]  # BM25 / best BM25 of the query; NaN where the query has no text
    total: int
    total_is_exact: bool = True
    facets: dict[str, dict[str, int]] = field(default_factory=dict)
    facet_stats: dict[str, FacetStats] = field(default_factory=dict)


class Rows(NamedTuple):
    """Products to index, in the order of their rows."""

    rows: Int64[np.ndarray, " n"]
    vectors: Float32[np.ndarray, "n D"]  # unit length; zeros for a product that the model cannot encode
    titles: Sequence[str]
    attributes: Sequence[dict[str, AttributeValue]]


Parts = Callable[[], Iterable[Rows]]


@runtime_checkable
class Engine(Protocol):
    """Ranks products. Safe to call from several threads."""

    def search(self, queries: Sequence[EngineQuery]) -> list[EngineResult]:
        """The result of each query. Queries of one call share one matrix product or one request."""
        ...

    def matching(self, filter: Filter | None) -> Bool[np.ndarray, " rows"]:
        """Which rows exist and meet the filter."""
        ...

    def attributes(self) -> dict[str, int]:
        """How many products have each attribute."""
        ...

    def update(
        self, replaced: Rows, deleted: Int64[np.ndarray, " n"], state: str = "", parts: Parts | None = None
    ) -> None:
        """Replaces and appends rows, then deletes rows. Repeating an update changes nothing.

        `state` names all products after the update, for engines that keep them on disk and open them by that name.
        `parts` are these products, for engines that may have to write them again; None: the engine keeps each update
        for that, in memory.
        """
        ...

    def close(self) -> None:
        """Releases files, memory and processes."""
        ...
