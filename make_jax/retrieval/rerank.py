"""Re-ranking: the matching encoder scores each query jointly with its top products of the vector search.

The score of a pair among the first K of a query [ours]:

    S + weight * m        S = logit_scale * q . p, m the logit of the matching encoder

QIM samples its negatives in proportion to exp(S), so m estimates the log odds that S leaves unexplained, and weight 1
adds the two; evaluation tunes the weight on validation queries. Weight 0 is retrieval alone, a large weight the
matching encoder alone. Ties keep the order of retrieval, and products below K keep their positions.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32, Int64

from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.retrieval.embed import Modality, ProductImages, read_products
from make_jax.retrieval.top_k import Progress, TopK, no_progress

DEFAULT_WEIGHT = 1.0  # of the matching logit, where none was tuned
DEFAULT_DEPTH = 50  # K, for a model with a matching encoder
_PRODUCTS_PER_CHUNK = 1024  # whose images are in memory together
_QUERIES_PER_CHUNK = 4096


@runtime_checkable
class Matcher(Protocol):
    """The interface of a model that can re-rank."""

    @property
    def can_match(self) -> bool:
        """Whether the model has a trained matching encoder."""
        ...

    @property
    def logit_scale(self) -> float:
        """The factor of cosines in the contrastive loss."""
        ...

    def matching_logits(
        self,
        texts: Sequence[str],
        titles: Sequence[str],
        images: Sequence[bytes | None],
        pairs: Int32[np.ndarray, "n 2"],
    ) -> Float32[np.ndarray, "n"]:
        """The matching logit of each pair (position of a text, position of a product)."""
        ...


def can_match(encoder: object) -> bool:
    """Whether the encoder can re-rank."""
    return isinstance(encoder, Matcher) and encoder.can_match


def check_can_match(encoder: object) -> Matcher:
    """The encoder as a Matcher. Raises InputError when it cannot re-rank."""
    if isinstance(encoder, Matcher) and encoder.can_match:
        return encoder
    raise InputError(
        "this model cannot re-rank: it has no trained matching encoder; train with model.matching.layers and "
        "objectives.qim more than 0, or set rerank 0"
    )


class Candidates(NamedTuple):
    """A ranking by vectors and the matching logits of its first K columns."""

    ranking: TopK
    logits: Float32[np.ndarray, "Q K"]  # -inf beyond the last result
    logit_scale: float

    def order(self, weight: float) -> Int64[np.ndarray, "Q K"]:
        """The first K columns of each query in their new order."""
        return np.argsort(-self._scores(weight), axis=1, kind="stable")

    def reranked(self, weight: float) -> TopK:
        """The new ranking with descending scores: S + weight * m of the first K, S shifted below those for the rest."""
        scores, indices = self.ranking.scores * np.float32(self.logit_scale), self.ranking.indices.copy()
        depth = self.logits.shape[1]
        if depth == 0 or len(scores) == 0:
            return TopK(scores, indices)
        order = self.order(weight)
        last = scores[:, depth - 1 : depth].copy()
        scores[:, :depth] = np.take_along_axis(self._scores(weight), order, axis=1)
        indices[:, :depth] = np.take_along_axis(indices[:, :depth], order, axis=1)
        scores[:, depth:] += scores[:, depth - 1 : depth] - np.where(np.isfinite(last), last, np.float32(0))
        return TopK(scores, indices)

    def _scores(self, weight: float) -> Float32[np.ndarray, "Q K"]:
        exists = self.ranking.indices[:, : self.logits.shape[1]] >= 0
        first = np.where(exists, self.ranking.scores[:, : self.logits.shape[1]], np.float32(0))
        logits = np.where(exists, self.logits, np.float32(0))
        scores = np.float32(self.logit_scale) * first + np.float32(weight) * logits
        return np.where(exists, scores, np.float32(-np.inf))


def match_candidates(
    matcher: Matcher,
    catalog: ProductImages,
    products: Sequence[Product],
    texts: Sequence[str],
    ranking: TopK,
    depth: int,
    modality: Modality = "both",
    progress: Progress = no_progress,
) -> Candidates:
    """The matching logits of the first `depth` products of each query; `ranking` holds positions in `products`.

    Reads the products' titles and images, or only the one of `modality`, a bounded number at a time. Raises InputError
    when a logit is not finite.
    """
    candidates = ranking.indices[:, :depth]
    logits = np.full(candidates.shape, -np.inf, np.float32)
    done, total = 0, int(np.count_nonzero(candidates >= 0))
    for start in range(0, len(texts), _QUERIES_PER_CHUNK):
        rows, columns = np.nonzero(candidates[start : start + _QUERIES_PER_CHUNK] >= 0)
        rows += start
        distinct, positions = np.unique(candidates[rows, columns], return_inverse=True)
        for first in range(0, len(distinct), _PRODUCTS_PER_CHUNK):
            chunk = distinct[first : first + _PRODUCTS_PER_CHUNK]
            selected = np.flatnonzero((positions >= first) & (positions < first + len(chunk)))
            titles, images = read_products(catalog, [products[i] for i in chunk], modality)
            distinct_rows, query = np.unique(rows[selected], return_inverse=True)
            pairs = np.stack([query, positions[selected] - first], axis=1).astype(np.int32)
            logits[rows[selected], columns[selected]] = matcher.matching_logits(
                [texts[i] for i in distinct_rows], titles, images, pairs
            )
            done += len(selected)
            progress("re-ranking", done, total)
    if not np.isfinite(logits[candidates >= 0]).all():
        raise InputError("the matching encoder gives logits that are not finite: its training diverged")
    return Candidates(ranking, logits, matcher.logit_scale)
