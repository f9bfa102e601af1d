"""Orders the first results of a search by the matching encoder (`retrieval/rerank.py`)."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from make_jax.catalog.schema import CatalogInfo, Product
from make_jax.errors import InputError
from make_jax.retrieval.embed import Encoder, Modality
from make_jax.retrieval.rerank import DEFAULT_WEIGHT, check_can_match, match_candidates
from make_jax.retrieval.top_k import TopK
from make_jax.serving.engines import EngineResult
from make_jax.serving.index.reader import OpenIndex
from make_jax.serving.search_service import RequestError


class Reranked(NamedTuple):
    """A result in its new order."""

    result: EngineResult  # scores: logit_scale * score + weight * logit of the first, shifted ones of the rest
    logits: Float32[np.ndarray, " n"]  # of the matching encoder; NaN beyond the first


class _IndexedProducts:
    """The titles and pictures of an index, as `read_products` reads a catalog's."""

    def __init__(self, index: OpenIndex) -> None:
        catalog = index.manifest.catalog
        self._index = index
        self.info = CatalogInfo(catalog.name, hide_title=catalog.hide_title)

    def image_bytes(self, product: Product) -> bytes | None:
        """The picture of the index, at most 320 pixels on a side; None without one."""
        row = self._index.row(product.id)
        return None if row is None else self._index.thumbnail(row)


def rerank(model: Encoder, index: OpenIndex, text: str, result: EngineResult, depth: int) -> Reranked:
    """The result with its first `depth` products ordered by logit_scale * score + logit.

    The matching encoder reads the pictures of the index, which are smaller than the catalog's. Raises RequestError for
    a model that cannot re-rank, and without a text.
    """
    try:
        matcher = check_can_match(model)
    except InputError as error:
        raise RequestError("rerank", str(error)) from None
    if not text:
        raise RequestError("rerank", f"rerank is {depth} without a text, which the matching encoder needs; set q")
    modality: Modality = index.manifest.model.modality
    ranking = TopK(result.scores[None], result.rows.astype(np.int32)[None])
    products = index.products
    candidates = match_candidates(matcher, _IndexedProducts(index), products, [text], ranking, depth, modality)
    first = candidates.order(DEFAULT_WEIGHT)[0]
    order: Int64[np.ndarray, " n"] = np.concatenate([first, np.arange(len(first), len(result.rows))])
    logits = np.full(len(order), np.nan, np.float32)
    logits[: len(first)] = candidates.logits[0, first]
    scores = candidates.reranked(DEFAULT_WEIGHT).scores[0]
    reordered = replace(
        result, rows=result.rows[order], scores=scores, dense=result.dense[order], lexical=result.lexical[order]
    )
    return Reranked(reordered, logits)
