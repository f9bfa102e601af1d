from make_jax.catalog.schema import Product, Query
from make_jax.retrieval.slices import query_slices


def query(
    identity: str, kind: str, lang: str = "en", heldout: bool = False, rel: dict[str, int] | None = None
) -> Query:
    return Query(identity, "text", "test", rel or {}, kind, lang, heldout)


def members(queries: list[Query], products: dict[str, Product] | None = None) -> dict[str, list[str]]:
    masks = query_slices(queries, products or {}, 3)
    return {name: [q.id for q, inside in zip(queries, mask, strict=True) if inside] for name, mask in masks.items()}


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
    products = {i: Product(i, "t", None, "test", dropped=words) for i, words in dropped.items()}
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
    products = {"p": Product("p", "t", None, "test")}
    assert list(members([query("a", "k", rel={"p": 3})], products)) == ["all", "kind:k"]
