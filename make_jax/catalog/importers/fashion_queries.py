"""Template queries over merchants' labels: clicks for training, judged queries for evaluation [ours]."""

from collections import defaultdict
from typing import Any

from make_jax.catalog.importers.chance import digest, share
from make_jax.catalog.importers.import_state import Work
from make_jax.catalog.importers.rows import Row
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
CLICKS = 3  # of each training product
QUERIES = 2000  # judged queries of a split, at most
HELD_OUT = 0.2  # share of the pairs of type and colour that no click asks for
FAMILIES = (  # colour labels that a person may call alike
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
    f"training product is clicked for {CLICKS} of its kinds of query; each val and test product is asked for in two, "
    f"and of the distinct queries of a split {QUERIES:,} are kept, all chosen by a hash. Relevance over the products "
    "of the split: 3 all asked labels hold; 2 only the colour differs and is of the same family; 1 the type is right "
    "and one other asked label is wrong. `heldout_combo`: 20 % of the pairs of type and colour, by a hash of both; no "
    "click asks for them. Numbers on these queries compare models; they are no estimate for people's queries. Queries "
    "in Chinese, handwritten ones, and products' own titles, which make_jax's own catalogs have, are not made."
)

Labels = dict[str, str]


def add(work: Work) -> None:
    """Adds clicks and judged queries for the products that were read."""
    shops: dict[Split, list[tuple[str, Labels]]] = {"val": [], "test": []}
    for product in list(work.products()):
        labels = _labels(product)
        if not labels.get("type"):
            continue
        if product["split"] != "train":
            shops[product["split"]].append((product["id"], labels))
            continue
        kinds = [kind for kind in _kinds(labels, "click", product["id"]) if not ("colour" in kind and held_out(labels))]
        for kind in kinds[:CLICKS]:
            work.click(Row(f"product {product['id']}", {}), text(kind, labels, product["id"]), product["id"], "en")
    for split, shop in shops.items():
        _judge(work, split, shop)


def held_out(labels: Labels) -> bool:
    """Whether no click may ask for this type in this colour."""
    return share("heldout", f"{labels['type']}/{labels['colour']}") < HELD_OUT


def text(kind: tuple[str, ...], labels: Labels, chance: str) -> str:
    """A query for the labels of a kind, in one of a few orders of words that `chance` picks."""
    said = {key: labels[key].lower() for key in kind}
    words = [said[key] for key in ("brand", "usage") if key in said and said[key] not in said["type"].split()]
    after: list[str] = []
    if "colour" in said:
        (after if share("colour last", chance) < 0.2 else words).append(said["colour"])
    if "gender" in said:
        last = share("gender last", chance) < 0.5
        (after if last else words).append(f"for {said['gender']}" if last else said["gender"])
    return " ".join([*words, said["type"], *after])


def grade(kind: tuple[str, ...], asked: Labels, found: Labels) -> int:
    """How well a product of the asked type answers a query of this kind for `asked`."""
    wrong = [key for key in kind if asked[key] != found.get(key)]
    if not wrong:
        return 3
    if wrong == ["colour"] and any(asked["colour"] in family and found["colour"] in family for family in FAMILIES):
        return 2
    return 1 if len(wrong) == 1 else 0


def _labels(product: dict[str, Any]) -> Labels:
    keys = ("colour", "gender", "usage", "brand")
    return {"type": (product.get("category") or [""])[-1], **{key: product.get(key, "") for key in keys}}


def _kinds(labels: Labels, purpose: str, identity: str) -> list[tuple[str, ...]]:
    """The kinds of query that these labels allow, in an order that chance picks. Nobody asks for unisex."""
    able = [kind for kind in KINDS if all(labels[key] not in ("", "Unisex") for key in kind)]
    return sorted(able, key=lambda kind: share(f"{purpose} {'+'.join(kind)}", identity))


def _judge(work: Work, split: Split, shop: list[tuple[str, Labels]]) -> None:
    by_type: dict[str, list[tuple[str, Labels]]] = defaultdict(list)
    asked: dict[str, tuple[tuple[str, ...], Labels, str]] = {}
    for identity, labels in shop:
        by_type[labels["type"]].append((identity, labels))
        for kind in _kinds(labels, "ask", identity)[:2]:
            name = "attr:" + "+".join(kind)
            query = f"{split}-{digest(name + '/' + '/'.join(labels[key] for key in kind))}"
            asked.setdefault(query, (kind, labels, identity))
    for query in sorted(asked)[:QUERIES]:  # ids are hashes
        kind, labels, identity = asked[query]
        row = Row(f"query {query}", {})
        held = "colour" in kind and held_out(labels)
        name = "attr:" + "+".join(kind)
        work.query(row, query, split, text(kind, labels, identity), kind=name, lang="en", heldout_combo=held)
        for product, found in by_type[labels["type"]]:
            if value := grade(kind, labels, found):
                work.judge(row, query, product, value)
