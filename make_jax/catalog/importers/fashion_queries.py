"""Template queries from merchants' labels: clicks for training, judged queries for evaluation [ours]."""

from collections import defaultdict
from typing import Any

from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row, hash_fraction, short_digest
from make_jax.catalog.schema import Split

KINDS = (
    ("type",),
    ("colour", "type"),
    ("gender", "type"),
    ("usage", "type"),
    ("brand", "type"),
    ("gender", "colour", "type"),
    ("brand", "colour", "type"),
    ("brand", "gender", "type"),
    ("usage", "gender", "type"),
)
CLICKS = 3  # per training product
QUERIES = 2000  # maximum judged queries of a split
HELD_OUT = 0.2  # share of the (type, color) pairs that occur in no click
FAMILIES = (  # color labels with similar meaning
    ("Blue", "Navy Blue", "Turquoise Blue", "Teal"),
    ("Green", "Olive", "Sea Green", "Lime Green", "Fluorescent Green", "Teal"),
    ("Brown", "Coffee Brown", "Mushroom Brown", "Tan", "Rust", "Bronze", "Copper", "Taupe", "Khaki"),
    ("Red", "Maroon", "Burgundy", "Rust"),
    ("Pink", "Magenta", "Peach", "Rose"),
    ("Purple", "Lavender", "Mauve", "Magenta"),
    ("White", "Off White", "Cream"),
    ("Beige", "Cream", "Nude", "Skin", "Khaki", "Tan"),
    ("Grey", "Grey Melange", "Charcoal", "Silver", "Steel", "Metallic"),
    ("Yellow", "Mustard", "Gold"),
)

PROVENANCE = (
    "QUERIES: not from users. Clicks and judged queries are templates over the merchant's labels, in English. Each "
    f"training product has {CLICKS} clicks of different kinds of query; each val and test product yields two queries, "
    f"and of the distinct queries of a split {QUERIES:,} are kept, all chosen by a hash. Relevance over the products "
    "of the split: 3 all labels of the query match; 2 only the colour differs and is of the same family; 1 the type "
    "matches and one other label differs. `heldout_combo`: 20 % of the pairs of type and colour, by a hash of both; "
    "they occur in no click. Numbers on these queries compare models; they do not estimate the quality for human "
    "queries. Queries in Chinese, handwritten queries and products' own titles, which make_jax's own catalogs have, "
    "are not generated."
)

Labels = dict[str, str]


def add_template_queries(state: ImportState) -> None:
    """Adds clicks and judged queries for all imported products."""
    judged: dict[Split, list[tuple[str, Labels]]] = {"val": [], "test": []}
    for product in list(state.products()):
        labels = _labels(product)
        if not labels.get("type"):
            continue
        if product["split"] != "train":
            judged[product["split"]].append((product["id"], labels))
            continue
        id = product["id"]
        kinds = [kind for kind in _kinds(labels, "click", id) if not _heldout_query(kind, labels)]
        for kind in kinds[:CLICKS]:
            state.add_click(Row(f"product {id}", {}), query_text(kind, labels, id), id, "en")
    for split, products in judged.items():
        _add_judged_queries(state, split, products)


def is_held_out(labels: Labels) -> bool:
    """Whether this (type, color) pair is excluded from clicks."""
    return hash_fraction("heldout", f"{labels['type']}/{labels['colour']}") < HELD_OUT


def _heldout_query(kind: tuple[str, ...], labels: Labels) -> bool:
    return "colour" in kind and is_held_out(labels)


def query_text(kind: tuple[str, ...], labels: Labels, seed: str) -> str:
    """The query text for the labels of a kind; a hash of `seed` chooses the word order."""
    words_of = {key: labels[key].lower() for key in kind}
    type_words = words_of["type"].split()
    words = [words_of[key] for key in ("brand", "usage") if key in words_of and words_of[key] not in type_words]
    after: list[str] = []
    if "colour" in words_of:
        (after if hash_fraction("colour last", seed) < 0.2 else words).append(words_of["colour"])
    if "gender" in words_of:
        last = hash_fraction("gender last", seed) < 0.5
        (after if last else words).append(f"for {words_of['gender']}" if last else words_of["gender"])
    return " ".join([*words, words_of["type"], *after])


def grade(kind: tuple[str, ...], query: Labels, product: Labels) -> int:
    """The relevance grade of a product of the queried type for a query of this kind with the labels `query`."""
    different = [key for key in kind if query[key] != product.get(key)]
    if not different:
        return 3
    if different == ["colour"] and any({query["colour"], product["colour"]} <= set(family) for family in FAMILIES):
        return 2
    return 1 if len(different) == 1 else 0


def _labels(product: dict[str, Any]) -> Labels:
    keys = ("colour", "gender", "usage", "brand")
    return {"type": (product.get("category") or [""])[-1], **{key: product.get(key, "") for key in keys}}


def _kinds(labels: Labels, purpose: str, id: str) -> list[tuple[str, ...]]:
    """The kinds of query that these labels allow, in hash order; "Unisex" occurs in no query."""
    possible = [kind for kind in KINDS if all(labels[key] not in ("", "Unisex") for key in kind)]
    return sorted(possible, key=lambda kind: hash_fraction(f"{purpose} {'+'.join(kind)}", id))


def _add_judged_queries(state: ImportState, split: Split, products: list[tuple[str, Labels]]) -> None:
    by_type: dict[str, list[tuple[str, Labels]]] = defaultdict(list)
    queries: dict[str, tuple[tuple[str, ...], Labels, str]] = {}
    for id, labels in products:
        by_type[labels["type"]].append((id, labels))
        for kind in _kinds(labels, "ask", id)[:2]:
            name = "attr:" + "+".join(kind)
            query = f"{split}-{short_digest(name + '/' + '/'.join(labels[key] for key in kind))}"
            queries.setdefault(query, (kind, labels, id))
    for query in sorted(queries)[:QUERIES]:  # ids are hashes
        kind, labels, id = queries[query]
        row = Row(f"query {query}", {})
        text, heldout = query_text(kind, labels, id), _heldout_query(kind, labels)
        name = "attr:" + "+".join(kind)
        state.add_query(row, query, split, text, kind=name, lang="en", heldout_combo=heldout)
        for product, other in by_type[labels["type"]]:
            if value := grade(kind, labels, other):
                state.add_judgement(row, query, product, value)
