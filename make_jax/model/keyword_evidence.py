"""Keyword evidence, where Keyword Enhancement and Modal Adaptation meet [ours].

    z_m = head_m(l2(d_m))                      does modality m show keyword k? a logit for each of n keywords   [B, n]
    u_m = max(z_m - z_0, 1)^(1/2)              how much m has to say for it; z_0: a product of which nothing is known
    z = w_t z_t + w_v z_v                      w_m = u_m / (u_t + u_v), one for each product and keyword
    r = max over keywords k' of (z - z_0)_k'   k and the other values of its attribute; a term is alone in its group
    z' = z - RIVAL (r - (z - z_0))             a product that is red is less likely to be blue too
    c = log(1 + sigmoid(z') / EPS) / log(1 + 1 / EPS)
    p = l2([l2(d_p) ; s c / LENGTH])           q = l2([l2(d_q) ; s a / max(1, |a|)])      a_k = 1 where k is in K(query)

so that the score adds, over the keywords asked for, the logarithm of the probability that the product has them. A sum
of logarithms wants all of them, where a cosine of embeddings takes much of one for a little of another. `EPS` bounds
what one missing keyword costs. The title may tell the type of a product and the picture its colour: who is listened to
is decided for each product and keyword, by how far a modality raises the keyword above what any product has; that it
lowers one says little, for a title is silent about most that is true. A missing modality has weight 0. Where Modal
Adaptation has other weights than `per_keyword`, z takes those.

The heads are fitted when the encoders are done (`training/keyword_heads.py`). Until then c is the same for all products
and changes no ranking.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, UInt32

from make_jax.model.transformer import KERNEL_INIT, l2_normalize

EPS = 0.01
RIVAL = 0.25  # as LENGTH and s, chosen on validation: docs/study.md
LENGTH = 9.0


class ModalityEmbedding(NamedTuple):
    """What a head reads."""

    vectors: Float[Array, "B E"]
    present: Bool[Array, "B"]  # whether the product has the modality


class KeywordScores(NamedTuple):
    """What a product shows of keywords."""

    evidence: Float[Array, "B n"]  # c / LENGTH
    weights: dict[str, Float[Array, "B"]]  # share of the keywords to expect that each direction tells; sum 1


class KeywordHead(nn.Module):
    """One logit a keyword from a direction."""

    keywords: int

    @nn.compact
    def __call__(self, direction: Float[Array, "B E"]) -> Float[Array, "B n"]:
        width = direction.shape[-1]
        # A direction's numbers are about 1/sqrt(E); dense layers start for numbers about 1.
        x = nn.gelu(nn.Dense(2 * width, kernel_init=KERNEL_INIT, name="hidden")(l2_normalize(direction) * width**0.5))
        return nn.Dense(self.keywords, kernel_init=nn.initializers.zeros, name="predict")(x)


class KeywordEvidence(nn.Module):
    """The head of each modality, or the one of a product whose modalities have no direction of their own."""

    keywords: int
    exclusion_groups: tuple[int, ...]  # keywords with the same number usually exclude each other

    @nn.compact
    def __call__(
        self, directions: Mapping[str, ModalityEmbedding], weights: Mapping[str, Float[Array, "B"]] | None = None
    ) -> KeywordScores:
        """`directions` by name of their modality. With `weights` those are taken for every keyword."""
        known = self.param("known", nn.initializers.zeros, (self.keywords,))[None]  # z_0
        logits, says = {}, {}
        for name, direction in directions.items():
            logits[name] = KeywordHead(self.keywords, name=name)(direction.vectors)
            if weights is None:
                says[name] = jnp.sqrt(jnp.maximum(logits[name] - known, 1.0)) * direction.present[:, None]
            else:
                says[name] = jnp.broadcast_to(weights[name][:, None], logits[name].shape)
        total = sum(says.values(), jnp.zeros(()))
        shares = {name: say / jnp.where(total > 0, total, 1.0) for name, say in says.items()}
        joined = sum((shares[name] * logits[name] for name in shares), jnp.zeros(()))
        likely = jax.nn.sigmoid(self._beside_rivals(jnp.where(total > 0, joined, known), known))
        evidence = jnp.log1p(likely / EPS) / float(np.log1p(1 / EPS) * LENGTH)
        expected = jnp.sum(likely, axis=-1)
        return KeywordScores(
            evidence, {name: jnp.sum(share * likely, axis=-1) / expected for name, share in shares.items()}
        )

    def _beside_rivals(self, logits: Float[Array, "B n"], known: Float[Array, "1 n"]) -> Float[Array, "B n"]:
        """z' from z. A product of which nothing is known has z_0 before and after."""
        raised = (logits - known).T
        groups = jnp.asarray(self.exclusion_groups)
        strongest = jax.ops.segment_max(raised, groups, num_segments=max(self.exclusion_groups) + 1)[groups]
        return logits - RIVAL * (strongest - raised).T


def query_keyword_vector(keywords: UInt32[Array, "B words"], count: int) -> Float[Array, "B n"]:
    """a / max(1, |a|) of packed sets: the same for each keyword that the query holds."""
    sets = unpack_keywords(keywords, count)
    return sets * jax.lax.rsqrt(jnp.maximum(jnp.sum(sets, axis=-1, keepdims=True), 1.0))


def concat_keyword_scores(
    direction: Float[Array, "B E"], evidence: Float[Array, "B n"], scale: float
) -> Float[Array, "B Z"]:
    """[l2(direction) ; scale * evidence], Z = E + n dimensions, not of unit length."""
    return jnp.concatenate([l2_normalize(direction), scale * evidence], axis=-1)


def unpack_keywords(keywords: UInt32[Array, "B words"], count: int) -> Float[Array, "B count"]:
    """The first `count` keywords of packed sets (`catalog/keywords.py`) as zeros and ones."""
    number = jnp.arange(count)
    bits = jax.lax.shift_right_logical(keywords[:, number // 32], (number % 32).astype(jnp.uint32)[None, :])
    return (bits & jnp.uint32(1)).astype(jnp.float32)
