"""Facets with many values; replacing rows."""

import numpy as np

from make_jax.serving.engines import EngineQuery
from make_jax.serving.engines.columns import MAX_FACET_VALUES, Columns
from make_jax.serving.engines.pages import facets_of
from make_jax.serving.requests import FacetStats


def test_a_facet_has_its_most_frequent_values_ties_by_text() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 3 * MAX_FACET_VALUES, 5 * MAX_FACET_VALUES).tolist()
    columns = Columns.of({"number": number, "text": f"t{number}"} for number in numbers)
    kept = rng.random(len(numbers)) < 0.8
    counts: dict[str, int] = {}
    for number, is_kept in zip(numbers, kept, strict=True):
        if is_kept:
            counts[str(number)] = counts.get(str(number), 0) + 1
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_FACET_VALUES]
    assert len(counts) > MAX_FACET_VALUES
    assert list(columns.facet("number", kept).items()) == expected
    assert list(columns.facet("text", kept).items()) == [(f"t{text}", count) for text, count in expected]
    found = [number for number, is_kept in zip(numbers, kept, strict=True) if is_kept]
    assert columns.facet_stats("number", kept) == FacetStats(min(found), max(found))
    assert columns.facet_stats("text", kept) is None


def test_replaced_rows_lose_their_values_and_empty_columns_go() -> None:
    before = Columns.of([{"a": 1, "b": ("x", "y")}, {"a": 2}])
    after = before.replace(np.array([0, 3]), [{"a": "new"}, {"c": True}])
    everything = np.ones(4, bool)
    assert (after.count, after.row_counts()) == (4, {"a": 2, "c": 1})
    assert after.facet("a", everything) == {"2": 1, "new": 1} and after.facet("b", everything) == {}
    assert before.facet("b", np.ones(2, bool)) == {"x": 1, "y": 1}


def test_facets_of_all_rows_are_those_of_the_rows_that_exist() -> None:
    """Without a filter the counts are made once, also where some rows are deleted."""
    columns = Columns.of([{"a": 1, "b": ("x", "y")}, {"a": 2, "b": "x"}, {"a": 2, "c": True}])
    columns = columns.replace(np.array([0]), [{}])
    query = EngineQuery(None, facets=("*", "unknown"))
    expected = {"a": {"2": 2}, "b": {"x": 1}, "c": {"true": 1}, "unknown": {}}
    for first_exists in (False, True):
        assert facets_of(query, np.array([first_exists, True, True]), columns) == (expected, {"a": FacetStats(2, 2)})
    fewer = {"a": {"2": 1}, "b": {}, "c": {"true": 1}, "unknown": {}}
    assert facets_of(query, np.array([False, False, True]), columns)[0] == fewer
