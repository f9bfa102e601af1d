"""Keyword evidence: embedding dimensions that state, keyword by keyword, what a product has [ours].

    z_m = head_m(l2(d_m))                      a logit for each of n keywords, from the embedding of modality m   [B, n]
    z = w_t z_t + w_v z_v                      weights of `model/modal_adaptation.py`, sum 1
    r = max over competing k' of (z - z_0)_k'  k and the other values of its attribute; a term competes with none
    z' = z - EXCLUSION (r - (z - z_0))         a product that is red is less likely to be blue too
    c = log(1 + sigmoid(z') / EPS) / log(1 + 1 / EPS)
    p = l2([l2(d_p) ; s c / SCORE_NORM])       q = l2([l2(d_q) ; s a / max(1, |a|)])      a_k = 1 where k is in K(query)

z_0 are the logits of a product of which nothing is known. The score thus adds, over the keywords of the query, the
logarithm of the probability that the product has them: a sum of logarithms requires all of them, where a cosine of
embeddings trades much of one for little of another. `EPS` bounds the cost of one missing keyword.

Each evaluation fits the heads to the encoders of its step (`training/keyword_heads.py`). In training c is the same for
all products, since the heads predict nothing yet, and changes no ranking.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, UInt32

from make_jax.model.modal_adaptation import KeywordLogits, keyword_weights, reported_weights
from make_jax.model.transformer import KERNEL_INIT, l2_normalize

EPS = 0.01
EXCLUSION = 0.25  # as SCORE_NORM and s, chosen on validation: docs/study.md
SCORE_NORM = 9.0


class ModalityEmbedding(NamedTuple):
    """The input of a keyword head."""

    vectors: Float[Array, "B E"]
    present: Bool[Array, "B"]  # whether the product has the modality


class KeywordScores(NamedTuple):
    """The keyword dimensions of products, before they are scaled."""

    scores: Float[Array, "B n"]  # c / SCORE_NORM
    weights: Float[Array, "B 2"]  # (w_t, w_v) that the scores were fused with, averaged over keywords; sum 1


class KeywordHead(nn.Module):
    """Predicts one logit per keyword from an embedding."""

    num_keywords: int

    @nn.compact
    def __call__(self, embedding: Float[Array, "B E"]) -> Float[Array, "B n"]:
        width = embedding.shape[-1]
        # Coordinates of a unit vector are about 1/sqrt(E); dense layers are initialized for inputs of about 1.
        x = nn.gelu(nn.Dense(2 * width, kernel_init=KERNEL_INIT, name="hidden")(l2_normalize(embedding) * width**0.5))
        return nn.Dense(self.num_keywords, kernel_init=nn.initializers.zeros, name="predict")(x)


class KeywordEvidence(nn.Module):
    """Scores keywords with a head per modality, or one head where a product has a single embedding."""

    num_keywords: int
    exclusion_groups: tuple[int, ...]  # keywords with the same number compete
    weights: str = "per_keyword"  # a name of MODALITY_WEIGHTS

    @nn.compact
    def __call__(
        self, embeddings: Mapping[str, ModalityEmbedding], product_weights: Float[Array, "B 2"]
    ) -> KeywordScores:
        """Scores products from `embeddings`, by modality: "title" and "image", or "product" alone."""
        prior = self.param("known", nn.initializers.zeros, (self.num_keywords,))[None]  # z_0
        logits = {name: KeywordHead(self.num_keywords, name=name)(e.vectors) for name, e in embeddings.items()}
        present = {name: e.present for name, e in embeddings.items()}
        weights = keyword_weights(self.weights, KeywordLogits(logits, present, prior), product_weights)
        fused = sum((weights[name] * logits[name] for name in weights), jnp.zeros(()))
        has_any = sum(weights.values(), jnp.zeros(())) > 0
        probabilities = jax.nn.sigmoid(self._exclude(jnp.where(has_any, fused, prior), prior))
        scores = jnp.log1p(probabilities / EPS) / float(np.log1p(1 / EPS) * SCORE_NORM)
        return KeywordScores(scores, reported_weights(self.weights, weights, probabilities, product_weights))

    def _exclude(self, logits: Float[Array, "B n"], prior: Float[Array, "1 n"]) -> Float[Array, "B n"]:
        """Returns z' for z: each logit lowered by its distance to the strongest competing keyword."""
        raised = (logits - prior).T
        groups = jnp.asarray(self.exclusion_groups)
        strongest = jax.ops.segment_max(raised, groups, num_segments=max(self.exclusion_groups) + 1)[groups]
        return logits - EXCLUSION * (strongest - raised).T


def query_keyword_vector(keywords: UInt32[Array, "B words"], count: int) -> Float[Array, "B n"]:
    """Returns a / max(1, |a|) of packed keyword sets: equal entries for the keywords of a query, 0 for all others."""
    sets = unpack_keywords(keywords, count)
    return sets * jax.lax.rsqrt(jnp.maximum(jnp.sum(sets, axis=-1, keepdims=True), 1.0))


def concat_keyword_scores(
    embedding: Float[Array, "B E"], scores: Float[Array, "B n"], scale: float
) -> Float[Array, "B Z"]:
    """Returns [l2(embedding) ; scale * scores], of Z = E + n dimensions and not of unit length."""
    return jnp.concatenate([l2_normalize(embedding), scale * scores], axis=-1)


def unpack_keywords(keywords: UInt32[Array, "B words"], count: int) -> Float[Array, "B count"]:
    """Returns the first `count` keywords of packed sets (`catalog/keywords.py`) as zeros and ones."""
    number = jnp.arange(count)
    bits = jax.lax.shift_right_logical(keywords[:, number // 32], (number % 32).astype(jnp.uint32)[None, :])
    return (bits & jnp.uint32(1)).astype(jnp.float32)
