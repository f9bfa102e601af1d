"""Keyword Enhancement, the part inside the model: a short query is enriched by what it is expected to mean.

That the query representation is enriched by keywords is [paper]; how is [ours]. With h the pooled query state [D]:

    z = W_k h + b_k                         one logit a keyword; objectives/keywords.py trains them (KEY)
    e = sum_k sigmoid(z_k) E_k / max(1, sum_k sigmoid(z_k))        expected keyword embedding [D]
    g = sigmoid(w_g [h ; e])                how much of it the query takes, one number
    h' = h + g e

The other two parts, false-negative masking and keyword-swap negatives, are in objectives/contrastive.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from make_jax.model.transformer import EMBEDDING_INIT, KERNEL_INIT

RARE = -4.0  # first bias of the logits: a product has few of all keywords


class EnhancedQuery(NamedTuple):
    """A query after enrichment."""

    pooled: Float[Array, "B D"]  # h'
    logits: Float[Array, "B V"]  # z
    gate: Float[Array, "B"]  # g


class KeywordEnhancement(nn.Module):
    """Predicts the keywords of products that answer a query, and adds their expected embedding to it."""

    keywords: int

    @nn.compact
    def __call__(self, pooled: Float[Array, "B D"]) -> EnhancedQuery:
        rare = nn.initializers.constant(RARE)
        logits = nn.Dense(self.keywords, kernel_init=KERNEL_INIT, bias_init=rare, name="predict")(pooled)
        probabilities = jax.nn.sigmoid(logits)
        embeddings = self.param("embedding", EMBEDDING_INIT, (self.keywords, pooled.shape[-1]), jnp.float32)
        expected = probabilities @ embeddings / jnp.maximum(jnp.sum(probabilities, axis=-1, keepdims=True), 1.0)
        gate = nn.Dense(1, kernel_init=KERNEL_INIT, name="gate")(jnp.concatenate([pooled, expected], axis=-1))
        gate = jax.nn.sigmoid(gate)
        return EnhancedQuery(pooled + gate * expected, logits, gate[:, 0])
