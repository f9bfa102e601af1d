"""What the judged queries of a split search: the products of the split, all of the catalog, or what each one judges.

Benchmarks differ in this. A shop searches all it has; a catalog split for training searches the products that training
never saw; some benchmarks (Shopping Queries) give each query some products and ask for their order.
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Pool, Product, Split
from make_jax.evaluation.metrics import Judgements, judge
from make_jax.retrieval.search import TopK, VectorIndex, filtered_top_k


@dataclass(frozen=True)
class SearchPool:
    """The judged queries of a split and the products that they search."""

    pool: Pool
    products: tuple[Product, ...]  # N, in the order of the catalog
    judgements: Judgements  # Q queries
    part: str  # names the products: "test", "all", or "judged-test"

    @classmethod
    def of(cls, catalog: Catalog, split: Split, pool: Pool | None = None) -> "SearchPool":
        """What `split` searches in `pool`, or in the one that the catalog names."""
        pool = pool or catalog.info.pool
        queries = catalog.split_queries(split)
        products = catalog.products
        if pool == "split":
            products = tuple(catalog.split_products(split))
        elif pool == "judged":
            judged = {product for query in queries for product in query.rel}
            products = tuple(product for product in catalog.products if product.id in judged)
        part = {"split": split, "all": "all", "judged": f"judged-{split}"}[pool]
        return cls(pool, products, judge(queries, [product.id for product in products], catalog.info), part)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {product.id: place for place, product in enumerate(self.products)}

    def allowed(self, rows: slice) -> Bool[np.ndarray, "q N"] | None:
        """Which products each of some queries may find; None: all."""
        if self.pool != "judged":
            return None
        queries = self.judgements.queries[rows]
        mask = np.zeros((len(queries), len(self.products)), bool)
        for row, query in zip(mask, queries, strict=True):
            row[[self._places[product] for product in self.judgements.qrels[query.id]]] = True
        return mask

    def search(self, queries: Float32[np.ndarray, "Q D"], found: VectorIndex, k: int) -> TopK:
        """The k best of the products, whose vectors are `found`, among those that each query may find."""
        if self.pool == "judged":
            return filtered_top_k(queries, found, k, self.allowed)
        return found.search(queries, k)
