"""The weight of BM25 and its parameters, and the title weight of a late fusion: the best on validation queries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from make_jax.catalog.columns import Records
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Split
from make_jax.evaluation.bm25_terms import BM25Parameters
from make_jax.evaluation.eval_split import EvalSplit
from make_jax.evaluation.metrics import PRIMARY_METRIC
from make_jax.evaluation.search_pool import SearchPool
from make_jax.evaluation.tuning import tune
from make_jax.retrieval.embed import Encoder
from make_jax.retrieval.top_k import Progress
from make_jax.retrieval.vector_index import DiskEmbeddings, ProductEmbeddings
from make_jax.serving.index.manifest import BM25Entry, read_sealed, write_sealed

TUNING = "tuning.json"  # in the folder of a version: what was tried
_UNTUNED = "the catalog has no judged validation queries, and an untuned weight can make results worse"


class Tuned(NamedTuple):
    """What was tuned."""

    bm25: BM25Entry
    lexical_weight: float
    lexical_weight_reason: str
    title_weight: float | None  # None: the model has none, or there was nothing to choose it by


def tune_index(
    folder: Path,
    model: Encoder,
    catalog: Catalog,
    embedded: Callable[[SearchPool], ProductEmbeddings | None],
    progress: Progress,
) -> Tuned:
    """Tunes on the validation queries, as `eval.py` does; reads the result of an earlier call from `folder`.

    `embedded` returns the vectors of the products that these queries search, None if they must be embedded.
    """
    path = folder / TUNING
    if not path.exists():
        write_sealed(path, _tune(model, catalog, embedded, progress))
    return _tuned(read_sealed(path))


def _tune(
    model: Encoder,
    catalog: Catalog,
    embedded: Callable[[SearchPool], ProductEmbeddings | None],
    progress: Progress,
) -> dict[str, Any]:
    """The parameters of `evaluation.tuning.tune` with the values that they were chosen by; {} without queries."""
    pool = SearchPool.of(catalog, "val")
    if not pool.judgements.queries:
        return {}
    val = EvalSplit(model, catalog, pool, progress)
    if (vectors := embedded(pool)) is not None:
        val.set_index(vectors)
    return tune(val, val, [], progress)


def _tuned(found: dict[str, Any]) -> Tuned:
    bm25 = BM25Entry(**found["bm25"]) if "bm25" in found else BM25Entry(*BM25Parameters())
    title_weight = found["late_fusion"]["weight"] if "late_fusion" in found else None
    if "fusion" not in found:
        reason = "the products of the validation split have no titles" if found else _UNTUNED
        return Tuned(bm25, 0.0, reason, title_weight)
    weight, queries = found["fusion"]["weight"], found["chosen_on"]["queries"]
    values = found["fusion"][f"validation {PRIMARY_METRIC} by weight"]
    reason = (
        f"the best of {len(values)} on {queries:,} validation queries: {PRIMARY_METRIC} {values[f'{weight:g}']:.4f}"
    )
    if weight:
        reason += f", {values['0']:.4f} without BM25"
    return Tuned(bm25, weight, reason, title_weight)


def vectors_of_pool(
    index: DiskEmbeddings, catalog: Catalog, products: Records[Product], split: Split | None, pool: SearchPool
) -> ProductEmbeddings | None:
    """The vectors of the searched products out of those of `products`; None if these lack one."""
    positions = catalog.index.positions(pool.judgements.product_ids)
    if split is not None:
        assert products.rows is not None
        row_of = np.full(len(catalog.products), -1, np.int64)
        row_of[products.rows] = np.arange(len(products))
        positions = row_of[positions]
    if (positions < 0).any():
        return None
    return ProductEmbeddings(_take(index, positions), index.weights[positions])


def _take(index: DiskEmbeddings, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n D"]:
    """Some rows of vectors on disk, in the order of `rows`."""
    out = np.zeros((len(rows), index.width), np.float32)
    for first, block in index.vectors.blocks(dtype=np.float32):
        inside = (rows >= first) & (rows < first + len(block))
        out[inside] = block[rows[inside] - first]
    return out
