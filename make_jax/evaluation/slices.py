"""Which queries belong together in a report. A slice is a mask over queries; slices overlap."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from make_jax.catalog.schema import Click, Product, Query

ALL = "all"
TASKS = ("known-item", "graded", "category")
Masks = dict[str, Bool[np.ndarray, "Q"]]


def query_slices(
    queries: Sequence[Query], products: Sequence[Product], clicks: Sequence[Click], relevant: int
) -> Masks:
    """Name -> which queries, `all` first; a slice that holds no query is absent. `products` are what is searched.

    - `task:` is what a query asks for by its judgements: `known-item` one product, `graded` products of several grades,
      `category` several products of one grade.
    - `kind:attr` is all kinds that begin with `attr:`, or are `attr`; `kind:attr:colour+type` is one whole kind.
    - `lang:zh`, and `kind:attr lang:zh` for both, where the queries speak more than one language.
    - `heldout:yes` asks for a combination that no click shows; `heldout:no` is the other queries of the kinds (to the
      first colon) that have such queries, so that the two compare; with ` lang:zh` too.
    - `clicks:head` is asked in the very words of clicks, by those that make up the first half of all clicks, most
      clicked first; `clicks:tail` by other words of clicks; `clicks:none` in words that no click has.
    - `dropped:colour`: at least half of the query's relevant products (grade >= `relevant`) had the colour dropped from
      their titles; `dropped:none`: no relevant product had anything dropped. Where the catalog says `dropped`.
    - `image:missing` and `title:missing`: at least half of the relevant products have no image, or no title; `:there`:
      all have one. Where some product lacks it and some has it.
    """
    kinds = np.array([query.kind for query in queries], object)
    families = np.array([family(query) for query in queries], object)
    langs = np.array([query.lang for query in queries], object)
    heldout = np.array([query.heldout for query in queries], bool)
    comparable = np.isin(families, sorted(set(families[heldout])))
    spoken = sorted({*langs} - {""}) if len({*langs} - {""}) > 1 else []

    def with_languages(name: str, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {name: mask} | {f"{name} lang:{lang}": mask & (langs == lang) for lang in spoken}

    answers = _answers(queries, products, relevant)
    masks = {ALL: np.ones(len(queries), bool)}
    masks |= _tasks(queries, {product.id for product in products})
    masks |= {f"lang:{lang}": langs == lang for lang in spoken}
    for one in sorted({*families} - {""}):
        masks |= with_languages(f"kind:{one}", families == one)
    if heldout.any():
        masks |= with_languages("heldout:yes", heldout)
        masks |= with_languages("heldout:no", comparable & ~heldout)
    masks |= _clicked(queries, clicks)
    masks |= _dropped(answers, products)
    masks |= _missing("image", answers, [product for product in products if product.image is None], len(products))
    masks |= _missing("title", answers, [product for product in products if not product.title], len(products))
    masks |= {f"kind:{kind}": kinds == kind for kind in sorted({*kinds} - {*families} - {""})}
    return {name: mask for name, mask in masks.items() if mask.any()}


def family(query: Query) -> str:
    """The query's kind to its first colon."""
    return query.kind.partition(":")[0]


def _answers(queries: Sequence[Query], products: Sequence[Product], relevant: int) -> list[list[Product]]:
    """The relevant products of each query among those searched."""
    known = {product.id: product for product in products}
    return [[known[i] for i, grade in query.rel.items() if grade >= relevant and i in known] for query in queries]


def _tasks(queries: Sequence[Query], searched: set[str]) -> Masks:
    grades = [[grade for i, grade in query.rel.items() if grade > 0 and i in searched] for query in queries]
    tasks = np.array(
        ["graded" if len({*g}) > 1 else "known-item" if len(g) == 1 else "category" for g in grades], object
    )
    return {f"task:{task}": tasks == task for task in TASKS}


def _clicked(queries: Sequence[Query], clicks: Sequence[Click]) -> Masks:
    """The slices by how often the query was clicked on; none where there are no clicks."""
    if not clicks:
        return {}
    times = Counter(click.query.casefold() for click in clicks)
    head, covered = set(), 0
    for text, count in times.most_common():
        if 2 * covered >= len(clicks):
            break
        head.add(text)
        covered += count
    texts = [query.text.casefold() for query in queries]
    return {
        "clicks:head": np.array([text in head for text in texts], bool),
        "clicks:tail": np.array([text in times and text not in head for text in texts], bool),
        "clicks:none": np.array([text not in times for text in texts], bool),
    }


def _dropped(answers: Sequence[Sequence[Product]], products: Sequence[Product]) -> Masks:
    """The slices by what the titles of the relevant products lack; none where no product says `dropped`."""
    words = sorted({word for product in products for word in product.dropped})
    if not words:
        return {}
    masks = {"dropped:none": np.array([bool(a) and not any(p.dropped for p in a) for a in answers], bool)}
    return masks | {f"dropped:{word}": _half(answers, {p.id for p in products if word in p.dropped}) for word in words}


def _missing(what: str, answers: Sequence[Sequence[Product]], lacking: Sequence[Product], count: int) -> Masks:
    """The slices by what relevant products lack; none where all have it or all lack it."""
    if not 0 < len(lacking) < count:
        return {}
    ids = {product.id for product in lacking}
    there = np.array([bool(a) and not any(p.id in ids for p in a) for a in answers], bool)
    return {f"{what}:there": there, f"{what}:missing": _half(answers, ids)}


def _half(answers: Sequence[Sequence[Product]], those: set[str]) -> Bool[np.ndarray, "Q"]:
    """The queries of which at least half of the relevant products are among `those`."""
    return np.array([bool(a) and 2 * sum(p.id in those for p in a) >= len(a) for a in answers], bool)
