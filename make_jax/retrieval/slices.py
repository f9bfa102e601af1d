"""Which queries belong together in a report. A slice is a mask over queries; slices overlap."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from make_jax.catalog.schema import Product, Query

ALL = "all"


def query_slices(
    queries: Sequence[Query], products: Mapping[str, Product], relevant: int
) -> dict[str, Bool[np.ndarray, "Q"]]:
    """Name -> which queries, `all` first; a slice that holds no query is absent.

    - `kind:attr` is all kinds that begin with `attr:`, or are `attr`; `kind:attr:colour+type` is one whole kind.
    - `lang:zh`, and `kind:attr lang:zh` for both, where the queries speak more than one language.
    - `heldout:yes` asks for a combination that no click shows; `heldout:no` is the other queries of the kinds (to the
      first colon) that have such queries, so that the two compare; with ` lang:zh` too.
    - `dropped:colour`: at least half of the query's relevant products (grade >= `relevant`) had the colour dropped from
      their titles; `dropped:none`: no relevant product had anything dropped. Where the catalog says `dropped`.
    """
    kinds = np.array([query.kind for query in queries], object)
    families = np.array([query.kind.partition(":")[0] for query in queries], object)
    langs = np.array([query.lang for query in queries], object)
    heldout = np.array([query.heldout for query in queries], bool)
    comparable = np.isin(families, sorted(set(families[heldout])))
    spoken = sorted({*langs} - {""}) if len({*langs} - {""}) > 1 else []

    def with_languages(name: str, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {name: mask} | {f"{name} lang:{lang}": mask & (langs == lang) for lang in spoken}

    masks = {ALL: np.ones(len(queries), bool)}
    masks |= {f"lang:{lang}": langs == lang for lang in spoken}
    for family in sorted({*families} - {""}):
        masks |= with_languages(f"kind:{family}", families == family)
    if heldout.any():
        masks |= with_languages("heldout:yes", heldout)
        masks |= with_languages("heldout:no", comparable & ~heldout)
    masks |= _dropped(queries, products, relevant)
    masks |= {f"kind:{kind}": kinds == kind for kind in sorted({*kinds} - {*families} - {""})}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _dropped(
    queries: Sequence[Query], products: Mapping[str, Product], relevant: int
) -> dict[str, Bool[np.ndarray, "Q"]]:
    """The slices by what the titles of the relevant products lack; none where no product says `dropped`."""
    words = sorted({word for product in products.values() for word in product.dropped})
    if not words:
        return {}
    answers = [
        [products[i].dropped for i, grade in query.rel.items() if grade >= relevant and i in products]
        for query in queries
    ]
    masks = {"dropped:none": np.array([bool(a) and not any(a) for a in answers], bool)}
    for word in words:
        masks[f"dropped:{word}"] = np.array(
            [bool(a) and 2 * sum(word in dropped for dropped in a) >= len(a) for a in answers], bool
        )
    return {name: mask for name, mask in masks.items() if mask.any()}
