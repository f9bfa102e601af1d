"""From the scores of the kept rows to a page of results: order, at most n of a value, paging, facets."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from make_jax.serving.engines import EngineQuery
from make_jax.serving.engines.columns import Columns, all_attributes
from make_jax.serving.requests import FacetStats


class Page(NamedTuple):
    """A page of a ranking, and the number of results on all pages."""

    positions: Int64[np.ndarray, " n"]
    total: int


def page_of(
    query: EngineQuery, scores: Float32[np.ndarray, " rows"], kept: Bool[np.ndarray, " rows"], columns: Columns
) -> Page:
    """The positions on the page of a query, by `sort`, then by descending score, then by position.

    With `distinct`, a product behind `max_per_value` others of its value is no result; products without a value are.
    """
    positions = np.flatnonzero(kept)
    scores = scores if len(positions) == len(scores) else scores[positions]
    end = query.offset + query.limit
    if not query.sort and not query.distinct:
        return Page(positions[_best(scores, end)[query.offset :]], len(positions))
    if query.sort:
        keys = [columns.sort_keys(sort.attribute, sort.order == "desc")[positions] for sort in reversed(query.sort)]
        order = np.lexsort([-scores, *keys])  # stable
    else:
        order = _best(scores, len(scores))
    if query.distinct:
        groups = columns.groups(query.distinct)[positions[order]]
        order = order[(groups < 0) | (_occurrence(groups) < query.max_per_value)]
    return Page(positions[order[query.offset : end]], len(order))


def distinct_total(query: EngineQuery, kept: Bool[np.ndarray, " rows"], columns: Columns) -> int:
    """The total of `page_of` with `distinct`, which does not depend on the scores."""
    groups = columns.groups(query.distinct)[kept]
    return int(np.minimum(np.bincount(groups[groups >= 0]), query.max_per_value).sum() + (groups < 0).sum())


def _best(scores: Float32[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " count"]:
    """The positions of the greatest scores, descending, ties by position."""
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    if count == 0:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")[:count]]


def _occurrence(groups: np.ndarray) -> np.ndarray:
    """How often each value stands before its position."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=np.int32(-2)) != 0)
    lengths = np.diff(np.append(begins, len(ordered)))
    out = np.empty(len(groups), np.int64)
    out[order] = np.arange(len(groups)) - np.repeat(begins, lengths)
    return out


def facets_of(
    query: EngineQuery, kept: Bool[np.ndarray, " rows"], columns: Columns
) -> tuple[dict[str, dict[str, int]], dict[str, FacetStats]]:
    """The facets of the kept rows, and the ranges of those that have numbers."""
    names = all_attributes(query.facets, sorted(columns.columns))
    stats = {name: found for name in names if (found := columns.facet_stats(name, kept)) is not None}
    if kept[columns.rows_with_values].all():
        return {name: columns.complete_facets.get(name, {}) for name in names}, stats
    return {name: columns.facet(name, kept) for name in names}, stats
