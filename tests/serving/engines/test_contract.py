"""All engines return the same results: those of `Reference`, a plain loop over the products."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from make_jax.serving.engines import Engine, EngineQuery, Rows
from make_jax.serving.engines.cluster import open_cluster
from make_jax.serving.engines.edge import EdgeEngine
from make_jax.serving.engines.flat import FlatEngine
from make_jax.serving.engines.qdrant import QdrantSettings
from make_jax.serving.filters import And, Compare, Exists, Filter, In, Not, Or, Value
from make_jax.serving.requests import Sort
from tests.serving.engines.reference import Reference
from tests.serving.engines.small_index import COUNT, WIDTH, assert_same, queries, small_rows

SERVER = os.environ.get("MAKE_JAX_QDRANT_URL")
ENGINES = ("flat", "edge", "cluster", *(["server"] if SERVER else []))
NONE = np.zeros(0, np.int64)
ALL = 4 * COUNT  # more than there are


def make_engine(name: str, rows: Rows, folder: Path) -> Iterator[Engine]:
    """Yields an engine and closes it. "cluster" is the client's own implementation in memory."""
    settings = QdrantSettings(WIDTH, candidates=None)
    collection = f"make-jax-test-{uuid.uuid4()}"
    engine: Engine
    if name == "flat":
        engine = FlatEngine([rows])
    elif name == "edge":
        engine = EdgeEngine(folder, settings, lambda: [rows])
    else:
        client = QdrantClient(SERVER) if name == "server" else QdrantClient(":memory:")
        engine = open_cluster(client, collection, settings, lambda: [rows])
    yield engine
    engine.close()
    if name == "server":
        client.delete_collection(collection)


@pytest.mark.skipif(SERVER is not None, reason="all tests of this file run on it")
def test_a_real_server_is_tested_where_there_is_one() -> None:
    pytest.skip("no Qdrant server: set MAKE_JAX_QDRANT_URL to the URL of one, and all tests of this file run on it")


@pytest.fixture(scope="module")
def rows() -> Rows:
    return small_rows()


@pytest.fixture(scope="module")
def reference(rows: Rows) -> Reference:
    return Reference(rows)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Tests must not change it."""
    yield from make_engine(request.param, rows, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=ENGINES)
def own_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """One that a test may change."""
    yield from make_engine(request.param, small_rows(40), tmp_path)


def check(engine: Engine, reference: Reference, *wanted: EngineQuery) -> None:
    for query, result in zip(wanted, engine.search(wanted), strict=True):
        assert_same(result, reference.search(query), "sort" if query.sort else "score")


# --- rankings ---

VECTOR, OTHER = queries(2)
QUERIES = {
    "vector": EngineQuery(VECTOR),
    "text": EngineQuery(None, "red shoes"),
    "both": EngineQuery(VECTOR, "red t-shirts 连衣裙", 0.4),
    "both, weight 0": EngineQuery(VECTOR, "red shoes", 0.0),
    "no term in any title": EngineQuery(VECTOR, "xylophone", 0.4),
    "text without a term in any title": EngineQuery(None, "xylophone"),
    "text without words": EngineQuery(None, "--"),
    "repeated term": EngineQuery(VECTOR, "red red watch", 1.0),
    "neither": EngineQuery(None),
}


@pytest.mark.parametrize("limit", [1, 10, ALL])
@pytest.mark.parametrize("name", QUERIES)
def test_rankings(engine: Engine, reference: Reference, name: str, limit: int) -> None:
    check(engine, reference, replace(QUERIES[name], limit=limit))


def test_queries_of_one_call_have_their_own_results(engine: Engine, reference: Reference) -> None:
    check(engine, reference, *QUERIES.values(), EngineQuery(OTHER, limit=3), EngineQuery(None, "blue", offset=2))


def test_no_query_gives_no_result(engine: Engine) -> None:
    assert engine.search([]) == []


@pytest.mark.parametrize("name", QUERIES)
def test_pages_follow_each_other_and_agree_on_totals_and_facets(engine: Engine, name: str) -> None:
    query = replace(QUERIES[name], facets=("*",), limit=ALL)
    (complete,) = engine.search([query])
    pages = [engine.search([replace(query, offset=offset, limit=7)])[0] for offset in (0, 7, 14)]
    np.testing.assert_array_equal(np.concatenate([page.rows for page in pages]), complete.rows[:21])
    for page in [*pages, *engine.search([replace(query, offset=10 * COUNT), replace(query, limit=0)])]:
        assert (page.total, page.facets, page.facet_stats) == (complete.total, complete.facets, complete.facet_stats)
        assert page.total_is_exact


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("min_score", [0.1, 0.45, 5.0, -5.0])
def test_a_least_score_holds_for_results_totals_and_facets(
    engine: Engine, reference: Reference, name: str, min_score: float
) -> None:
    check(engine, reference, replace(QUERIES[name], min_score=min_score, facets=("brand", "price"), limit=ALL))


@pytest.mark.parametrize("name", ["vector", "text", "both", "neither"])
def test_excluded_rows_are_not_found(engine: Engine, reference: Reference, name: str) -> None:
    (first,) = engine.search([QUERIES[name]])
    exclude = (*first.rows[:3].tolist(), 10 * COUNT)
    check(engine, reference, replace(QUERIES[name], exclude=exclude, facets=("brand",)))


@pytest.mark.parametrize("name", ["vector", "text", "both", "neither"])
@pytest.mark.parametrize(
    "sort",
    [
        (Sort("price", "asc"),),
        (Sort("price", "desc"),),
        (Sort("brand", "desc"), Sort("year", "asc")),
        (Sort("sizes", "asc"),),
        (Sort("sizes", "desc"),),
        (Sort("mixed", "asc"),),
    ],
)
def test_sorting_orders_the_relevant_products(
    engine: Engine, reference: Reference, name: str, sort: tuple[Sort, ...]
) -> None:
    exactly_tied = replace(QUERIES[name], sort=(*sort, Sort("price", "asc"), Sort("year", "asc")), min_score=0.05)
    result, expected = engine.search([exactly_tied])[0], reference.search(exactly_tied)
    assert (result.total, len(result.rows)) == (expected.total, len(expected.rows))
    products = [[reference.products[row][2].get(by.attribute) for by in exactly_tied.sort] for row in result.rows]
    assert products == [
        [reference.products[row][2].get(by.attribute) for by in exactly_tied.sort] for row in expected.rows
    ]


def test_sorting_by_an_attribute_of_no_product_is_by_score(engine: Engine, reference: Reference) -> None:
    for query in QUERIES.values():
        assert_same(engine.search([replace(query, sort=(Sort("absent", "asc"),))])[0], reference.search(query))


@pytest.mark.parametrize("name", ["vector", "text", "both", "neither"])
@pytest.mark.parametrize(("attribute", "most"), [("brand", 1), ("brand", 3), ("sizes", 2), ("absent", 1)])
def test_at_most_some_products_of_a_value(
    engine: Engine, reference: Reference, name: str, attribute: str, most: int
) -> None:
    query = replace(QUERIES[name], distinct=attribute, max_per_value=most, facets=("brand",))
    check(engine, reference, query, replace(query, min_score=0.2, limit=ALL), replace(query, offset=4, limit=3))


# --- filters and facets ---

ATTRIBUTES = ("brand", "price", "year", "sizes", "mixed", "in stock", 'odd".name[0]', "absent")
VALUES: tuple[Value, ...] = ("NIKE", "nike", "ünder", "U\u0308nder", "s", "10", "three", "true", "", "X", True, False)
VALUES += (10, 3, 3.5, 2012, 9.99, 12.5, 13)
values, attributes = st.sampled_from(VALUES), st.sampled_from(ATTRIBUTES)
ranges = st.tuples(
    st.just(Compare), st.sampled_from(("price", "year", "mixed")), st.sampled_from((">", ">=", "<", "<=")), values
)
conditions = st.one_of(
    st.tuples(st.just(Compare), attributes, st.just("="), values),
    ranges,
    st.tuples(st.just(In), attributes, st.lists(values, max_size=4).map(tuple)),
    st.tuples(st.just(Exists), attributes),
)
filters = st.recursive(
    conditions,
    lambda parts: st.one_of(
        st.tuples(st.just(Not), parts),
        st.tuples(st.sampled_from((And, Or)), st.lists(parts, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def build(described: tuple[Any, ...]) -> Filter:
    """The filter that nested tuples describe; Hypothesis does not let strategies call type-checked constructors."""
    kind, *arguments = described
    if kind is Not:
        return Not(build(arguments[0]))
    if kind in (And, Or):
        return kind(tuple(build(part) for part in arguments[0]))
    return kind(*arguments)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters)
def test_filters_are_those_of_plain_python(engine: Engine, reference: Reference, described: tuple[Any, ...]) -> None:
    condition = build(described)
    expected = reference.matching(condition, COUNT)
    assert engine.matching(condition).tolist() == expected
    for query in (QUERIES["both"], QUERIES["vector"]):
        check(engine, reference, replace(query, filter=condition, facets=("brand", "sizes")))


def test_without_a_filter_all_rows_match(engine: Engine) -> None:
    assert engine.matching(None).tolist() == [True] * COUNT


@pytest.mark.parametrize("name", ["vector", "text", "both", "neither"])
@pytest.mark.parametrize("facets", [("*",), ("mixed", "mixed", "year"), ("absent",)])
def test_facets_count_all_results(engine: Engine, reference: Reference, name: str, facets: tuple[str, ...]) -> None:
    query = replace(QUERIES[name], facets=facets, limit=3)
    expected = reference.search(replace(query, facets=tuple(dict.fromkeys(facets))))
    assert_same(engine.search([query])[0], expected)


def test_attributes_are_counted(engine: Engine, reference: Reference) -> None:
    assert engine.attributes() == reference.attributes()


# --- updates ---


def update(seed: int = 5) -> tuple[Rows, np.ndarray]:
    """Replaces rows 30 to 39, appends to 52, deletes one old, one replaced and one new row."""
    return small_rows(23, seed, first=30), np.array([3, 31, 50])


def test_updates_replace_append_and_delete(own_engine: Engine) -> None:
    reference = Reference(small_rows(40))
    replaced, deleted = update()
    own_engine.update(replaced, deleted)
    reference.update(replaced, deleted)
    check_everything(own_engine, reference, 53)


def test_repeating_an_update_changes_nothing(own_engine: Engine) -> None:
    reference = Reference(small_rows(40))
    replaced, deleted = update()
    for _ in range(2):
        own_engine.update(replaced, deleted)
        reference.update(replaced, deleted)
    check_everything(own_engine, reference, 53)


def test_updates_may_only_delete_and_only_append_with_gaps(own_engine: Engine) -> None:
    reference = Reference(small_rows(40))
    nothing = Rows(NONE, np.zeros((0, WIDTH), np.float32), [], [])
    for replaced, deleted in ((nothing, np.arange(20)), (small_rows(5, 9, first=45), NONE), (nothing, NONE)):
        own_engine.update(replaced, deleted)
        reference.update(replaced, deleted)
    check_everything(own_engine, reference, 50)


def test_deleted_rows_can_return(own_engine: Engine) -> None:
    reference = Reference(small_rows(40))
    nothing = Rows(NONE, np.zeros((0, WIDTH), np.float32), [], [])
    own_engine.update(nothing, np.arange(40))
    assert engine_is_empty(own_engine)
    own_engine.update(small_rows(40), NONE)
    check_everything(own_engine, reference, 40)


@pytest.mark.parametrize("name", ENGINES)
def test_an_index_without_products_finds_nothing_and_can_grow(name: str, tmp_path: Path) -> None:
    engines = make_engine(name, small_rows(0), tmp_path)
    for engine in engines:
        assert engine_is_empty(engine) and engine.attributes() == {}
        engine.update(small_rows(20), NONE)
        check_everything(engine, Reference(small_rows(20)), 20)


def engine_is_empty(engine: Engine) -> bool:
    results = engine.search(list(QUERIES.values()))
    return all(result.total == len(result.rows) == 0 for result in results) and not engine.matching(None).any()


def check_everything(engine: Engine, reference: Reference, count: int) -> None:
    check(engine, reference, *(replace(query, facets=("*",), limit=ALL) for query in QUERIES.values()))
    condition = Or((Compare("brand", "=", "nike"), Compare("price", ">", 12.0)))
    check(engine, reference, replace(QUERIES["both"], filter=condition, min_score=0.1, facets=("*",)))
    assert engine.matching(condition).tolist() == reference.matching(condition, count)
    assert engine.attributes() == reference.attributes()
