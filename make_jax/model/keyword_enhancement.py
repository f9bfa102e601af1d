"""Keyword Enhancement, the part inside the model: enriches a short query by the keywords that it predicts.

That the query representation is enriched by keywords is [paper]; how is [ours]. With h the pooled query state [D]:

    z = W_k h + b_k                         one logit per keyword, trained by objectives/keywords.py (KEY)
    e = sum_k sigmoid(z_k) E_k / max(1, sum_k sigmoid(z_k))        expected keyword embedding [D]
    g = sigmoid(w_g [h ; e])                one gate per query
    h' = h + g e

The other two parts, false-negative masking and keyword-swap negatives, are in objectives/contrastive.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from make_jax.model.transformer import EMBEDDING_INIT, KERNEL_INIT

INITIAL_BIAS = -4.0  # of the logits: a product has few of all keywords


class EnhancedQuery(NamedTuple):
    """A query after enrichment."""

    pooled: Float[Array, "B D"]  # h'
    logits: Float[Array, "B V"]  # z
    gate: Float[Array, "B"]  # g


class KeywordEnhancement(nn.Module):
    """Predicts the keywords of matching products and adds their expected embedding to the query."""

    num_keywords: int

    @nn.compact
    def __call__(self, pooled: Float[Array, "B D"]) -> EnhancedQuery:
        initial_bias = nn.initializers.constant(INITIAL_BIAS)
        logits = nn.Dense(self.num_keywords, kernel_init=KERNEL_INIT, bias_init=initial_bias, name="predict")(pooled)
        probabilities = jax.nn.sigmoid(logits)
        embeddings = self.param("embedding", EMBEDDING_INIT, (self.num_keywords, pooled.shape[-1]), jnp.float32)
        expected = probabilities @ embeddings / jnp.maximum(jnp.sum(probabilities, axis=-1, keepdims=True), 1.0)
        gate = nn.Dense(1, kernel_init=KERNEL_INIT, name="gate")(jnp.concatenate([pooled, expected], axis=-1))
        gate = jax.nn.sigmoid(gate)
        return EnhancedQuery(pooled + gate * expected, logits, gate[:, 0])
