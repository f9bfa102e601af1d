"""Slices of a report: masks over queries by task, language, kind, clicks and missing words. Slices overlap."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from make_jax.catalog.schema import Click, Product, Query
from make_jax.catalog.text import normalize_query

ALL = "all"
TASKS = ("known-item", "graded", "category")
Masks = dict[str, Bool[np.ndarray, "Q"]]


def query_slices(
    queries: Sequence[Query], products: Sequence[Product], clicks: Sequence[Click], relevant: int
) -> Masks:
    """Returns slice name -> mask over the queries, `all` first, without empty slices. `products` are those searched.

    - `task:`: `known-item` has one relevant product, `graded` products of several grades, `category` several products
      of one grade.
    - `kind:attr`: kinds that begin with `attr:`, or are `attr`; `kind:attr:colour+type`: one complete kind.
    - `lang:zh`, and `kind:attr lang:zh` for both, if the queries have more than one language.
    - `heldout:yes`: combinations of attributes without a click; `heldout:no`: the other queries of the same kinds (to
      the first colon), for comparison; with ` lang:zh` too.
    - `clicks:head`: queries equal to the most clicked texts that have half of all clicks; `clicks:tail`: other clicked
      texts; `clicks:none`: texts without a click. Texts are equal as in training (`normalize_query`).
    - `dropped:colour`: at least half of the relevant products (grade >= `relevant`) lost the colour from their titles;
      `dropped:none`: no relevant product lost anything. Only for catalogs with `dropped`.
    - `image:missing`, `title:missing`: at least half of the relevant products have no image, or no title; `:present`:
      all have one. Only if some products lack it.
    """
    kinds = np.array([query.kind for query in queries], object)
    families = np.array([family(query) for query in queries], object)
    langs = np.array([query.lang for query in queries], object)
    heldout = np.array([query.heldout for query in queries], bool)
    comparable = np.isin(families, sorted(set(families[heldout])))
    shown_langs = sorted({*langs} - {""}) if len({*langs} - {""}) > 1 else []

    def with_languages(name: str, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {name: mask} | {f"{name} lang:{lang}": mask & (langs == lang) for lang in shown_langs}

    relevant_products = _relevant_products(queries, products, relevant)
    masks = {ALL: np.ones(len(queries), bool)}
    masks |= _tasks(queries, {product.id for product in products})
    masks |= {f"lang:{lang}": langs == lang for lang in shown_langs}
    for name in sorted({*families} - {""}):
        masks |= with_languages(f"kind:{name}", families == name)
    if heldout.any():
        masks |= with_languages("heldout:yes", heldout)
        masks |= with_languages("heldout:no", comparable & ~heldout)
    masks |= _clicked(queries, clicks)
    masks |= _dropped(relevant_products, products)
    masks |= _missing(
        "image", relevant_products, [product for product in products if product.image is None], len(products)
    )
    masks |= _missing("title", relevant_products, [product for product in products if not product.title], len(products))
    masks |= {f"kind:{kind}": kinds == kind for kind in sorted({*kinds} - {*families} - {""})}
    return {name: mask for name, mask in masks.items() if mask.any()}


def family(query: Query) -> str:
    """Returns the kind of the query to its first colon."""
    return query.kind.partition(":")[0]


def _relevant_products(queries: Sequence[Query], products: Sequence[Product], relevant: int) -> list[list[Product]]:
    """Returns the relevant products of each query among those searched."""
    known = {product.id: product for product in products}
    return [[known[i] for i, grade in query.rel.items() if grade >= relevant and i in known] for query in queries]


def _tasks(queries: Sequence[Query], searched: set[str]) -> Masks:
    grades = [[grade for i, grade in query.rel.items() if grade > 0 and i in searched] for query in queries]
    tasks = np.array(
        ["graded" if len({*g}) > 1 else "known-item" if len(g) == 1 else "category" for g in grades], object
    )
    return {f"task:{task}": tasks == task for task in TASKS}


def _clicked(queries: Sequence[Query], clicks: Sequence[Click]) -> Masks:
    """Returns the slices by click frequency of the query text; empty without clicks."""
    if not clicks:
        return {}
    counts = Counter(normalize_query(click.query) for click in clicks)
    head, covered = set(), 0
    for text, count in counts.most_common():
        if 2 * covered >= len(clicks):
            break
        head.add(text)
        covered += count
    texts = [normalize_query(query.text) for query in queries]
    return {
        "clicks:head": np.array([text in head for text in texts], bool),
        "clicks:tail": np.array([text in counts and text not in head for text in texts], bool),
        "clicks:none": np.array([text not in counts for text in texts], bool),
    }


def _dropped(relevant_products: Sequence[Sequence[Product]], products: Sequence[Product]) -> Masks:
    """Returns the slices by words dropped from relevant titles; empty if no product has `dropped`."""
    words = sorted({word for product in products for word in product.dropped})
    if not words:
        return {}
    masks = {"dropped:none": np.array([bool(a) and not any(p.dropped for p in a) for a in relevant_products], bool)}
    return masks | {
        f"dropped:{word}": _half(relevant_products, {p.id for p in products if word in p.dropped}) for word in words
    }


def _missing(
    what: str, relevant_products: Sequence[Sequence[Product]], lacking: Sequence[Product], count: int
) -> Masks:
    """Returns the slices by missing titles or images; empty if all or no products lack it."""
    if not 0 < len(lacking) < count:
        return {}
    ids = {product.id for product in lacking}
    present = np.array([bool(a) and not any(p.id in ids for p in a) for a in relevant_products], bool)
    return {f"{what}:present": present, f"{what}:missing": _half(relevant_products, ids)}


def _half(relevant_products: Sequence[Sequence[Product]], ids: set[str]) -> Bool[np.ndarray, "Q"]:
    """Returns the queries with at least half of their relevant products in `ids`."""
    return np.array([bool(a) and 2 * sum(p.id in ids for p in a) >= len(a) for a in relevant_products], bool)
