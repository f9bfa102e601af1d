"""The products that the judged queries of a split search: those of the split, of the catalog, or those each one judges.

Benchmarks differ in this. A shop searches all products; a catalog split for training searches the products that
training never saw; some benchmarks (Shopping Queries) give each query a few products to rank.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Pool, Product, Split
from make_jax.evaluation.metrics import Judgements, judge
from make_jax.retrieval.top_k import CandidateFilter

if TYPE_CHECKING:  # pyarrow is slow to import
    from make_jax.catalog.columns import Records


@dataclass(frozen=True)
class SearchPool:
    """The judged queries of a split and the products that they search."""

    pool: Pool
    products: Sequence[Product]  # N, in catalog order
    judgements: Judgements  # Q queries
    part: str  # names the products: "test", "all", or "judged-test"

    @classmethod
    def of(cls, catalog: Catalog, split: Split, pool: Pool | None = None) -> "SearchPool":
        """The pool of `split`; `pool` None: the kind that the catalog names."""
        pool = pool or catalog.info.pool
        queries = list(catalog.split_queries(split))
        products = catalog.products
        if pool == "split":
            products = catalog.split_products(split)
        elif pool == "judged":
            judged = {product for query in queries for product in query.rel}
            products = products.select(np.sort(catalog.index.positions(sorted(judged))))
        part = {"split": split, "all": "all", "judged": f"judged-{split}"}[pool]
        return cls(pool, products, judge(queries, _ids(products), catalog.info), part)

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {id: position for position, id in enumerate(self.judgements.product_ids)}

    @property
    def candidate_filter(self) -> CandidateFilter | None:
        """`allowed` where queries differ in the products they may find; None where all may find all."""
        return self.allowed if self.pool == "judged" else None

    def allowed(self, rows: slice) -> Bool[np.ndarray, "q N"] | None:
        """The products that the queries in `rows` may find; None: all."""
        if self.pool != "judged":
            return None
        queries = self.judgements.queries[rows]
        mask = np.zeros((len(queries), len(self.products)), bool)
        for row, query in zip(mask, queries, strict=True):
            row[[self._positions[product] for product in self.judgements.qrels[query.id]]] = True
        return mask


def _ids(products: "Records[Product]") -> list[str]:
    return list(itertools.chain.from_iterable(products.values("id")))
