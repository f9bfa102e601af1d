from collections.abc import Sequence

import pytest

from make_jax.catalog.schema import Click, Product, Query
from make_jax.evaluation.slices import query_slices


def query(
    identity: str,
    kind: str,
    lang: str = "en",
    heldout: bool = False,
    rel: dict[str, int] | None = None,
    text: str = "text",
) -> Query:
    return Query(identity, text, "test", rel or {"x": 3}, kind, lang, heldout)


def product(identity: str, **values: object) -> Product:
    return Product(identity, values.pop("title", "t"), values.pop("image", "i.png"), "test", **values)


def members(
    queries: list[Query], products: Sequence[Product] = (), clicks: Sequence[Click] = ()
) -> dict[str, list[str]]:
    """Slices except those by task, which have their own test."""
    masks = query_slices(queries, [product("x"), *products], clicks, 3)
    found = {name: [q.id for q, inside in zip(queries, mask, strict=True) if inside] for name, mask in masks.items()}
    return {name: ids for name, ids in found.items() if not name.startswith("task:")}


def test_slices_by_kind_prefix_whole_kind_and_language() -> None:
    found = members(
        [
            query("a", "attr:colour+type"),
            query("b", "attr:type", "zh"),
            query("c", "handwritten"),
            query("d", "", ""),
        ]
    )
    assert found == {
        "all": ["a", "b", "c", "d"],
        "lang:en": ["a", "c"],
        "lang:zh": ["b"],
        "kind:attr": ["a", "b"],
        "kind:attr lang:en": ["a"],
        "kind:attr lang:zh": ["b"],
        "kind:handwritten": ["c"],
        "kind:handwritten lang:en": ["c"],
        "kind:attr:colour+type": ["a"],
        "kind:attr:type": ["b"],
    }


def test_one_language_makes_no_language_slices() -> None:
    assert list(members([query("a", "attr"), query("b", "attr")])) == ["all", "kind:attr"]


def test_heldout_no_holds_only_the_kinds_that_have_heldout_queries() -> None:
    found = members([query("a", "attr:x", heldout=True), query("b", "attr:y"), query("c", "handwritten")])
    assert found["heldout:yes"] == ["a"]
    assert found["heldout:no"] == ["b"]


def test_dropped_needs_half_of_the_relevant_products_and_none_needs_all() -> None:
    dropped = {"p0": ("colour",), "p1": (), "p2": ("colour", "type"), "p3": ()}
    products = [product(i, dropped=words) for i, words in dropped.items()]
    queries = [
        query("half", "k", rel={"p0": 3, "p1": 3}),
        query("third", "k", rel={"p0": 3, "p1": 3, "p3": 3}),
        query("both", "k", rel={"p2": 3}),
        query("none", "k", rel={"p1": 3, "p0": 1}),  # a product below the relevant grade has no say
    ]
    found = members(queries, products)
    assert found["dropped:colour"] == ["half", "both"]
    assert found["dropped:type"] == ["both"]
    assert found["dropped:none"] == ["none"]


def test_no_dropped_slices_where_no_product_says_dropped() -> None:
    assert list(members([query("a", "k", rel={"p": 3})], [product("p")])) == ["all", "kind:k"]


def test_missing_needs_half_of_the_relevant_products_and_there_needs_all() -> None:
    products = [product("p0", image=None), product("p1"), product("p2", title=""), product("p3")]
    queries = [
        query("half", "k", rel={"p0": 3, "p1": 3}),
        query("third", "k", rel={"p0": 3, "p1": 3, "p3": 3}),
        query("complete", "k", rel={"p1": 3, "p0": 1}),
        query("untitled", "k", rel={"p2": 3}),
    ]
    found = members(queries, products)
    assert found["image:missing"] == ["half"]
    assert found["image:present"] == ["complete", "untitled"]
    assert found["title:missing"] == ["untitled"]
    assert found["title:present"] == ["half", "third", "complete"]


def test_no_missing_slices_where_all_products_have_it_or_none_has() -> None:
    queries = [query("a", "k", rel={"p": 3})]
    assert "image:present" not in members(queries, [product("p")])
    masks = query_slices(queries, [product("p", image=None)], [], 3)
    assert "image:missing" not in masks and "image:present" not in masks


@pytest.mark.parametrize(
    ("rel", "task"),
    [
        ({"p0": 3}, "known-item"),
        ({"p0": 3, "p1": 1}, "graded"),
        ({"p0": 3, "p1": 3}, "category"),
        ({"p0": 3, "p1": 0}, "known-item"),
    ],
)
def test_the_task_follows_from_the_positive_grades(rel: dict[str, int], task: str) -> None:
    masks = query_slices([query("a", "k", rel=rel)], [product("p0"), product("p1")], [], 3)
    assert [name for name in masks if name.startswith("task:")] == [f"task:{task}"]


def test_the_task_is_of_what_is_searched() -> None:
    assert "task:known-item" in query_slices([query("a", "k", rel={"p0": 3, "p1": 1})], [product("p0")], [], 3)


def test_head_has_the_most_clicked_half_and_none_has_queries_without_clicks() -> None:
    clicks = [Click(text, "p") for text, times in (("red", 5), ("Blue", 3), ("green", 2)) for _ in range(times)]
    queries = [query(text, "k", text=text) for text in ("Red", "blue", "green", "pink")]
    found = members(queries, clicks=clicks)
    assert found["clicks:head"] == ["Red"]
    assert found["clicks:tail"] == ["blue", "green"]
    assert found["clicks:none"] == ["pink"]
    assert not [name for name in members(queries) if name.startswith("clicks:")]


@pytest.mark.parametrize(
    "spelling",
    [
        "red  shirt",
        "ＲＥＤ shirt",
        "red\u00a0shirt",
        "RED Shirt",
        " red\tshirt ",
        "red\u3000ｓｈｉｒｔ",
        "red ſhirt",
        "red\u2003shirt",
    ],
)
def test_a_click_counts_for_each_spelling_that_training_takes_for_the_same_query(spelling: str) -> None:
    clicks = [Click("red shirt", "p"), Click("red shirt", "p"), Click("hat", "p")]
    for text, clicked in ((spelling, clicks), ("red shirt", [Click(spelling, "p") for _ in range(2)] + clicks[2:])):
        assert members([query("a", "k", text=text)], clicks=clicked)["clicks:head"] == ["a"]
