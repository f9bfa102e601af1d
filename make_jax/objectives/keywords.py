"""KEY: the query predicts the keywords of its clicked product [ours].

    KEY = sum_i w_i sum_k BCE(z_ik, y_ik) / sum_i w_i            y_ik = 1 where K(p_i) holds keyword k

z [B, V] are the logits of `model/keyword_enhancement.py`; K(p) are the keywords of title and attributes. Over all
clicks of a query, sigmoid(z_k) converges to the share of its clicked products that have keyword k.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt32

from make_jax.model.keyword_evidence import unpack_keywords
from make_jax.objectives.weighted_means import WeightedMean, weighted_mean


def keyword_loss(
    logits: Float[Array, "B V"], keywords: UInt32[Array, "B words"], weights: Float[Array, "B"]
) -> WeightedMean:
    """Returns the weighted mean over rows."""
    losses = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, unpack_keywords(keywords, logits.shape[-1])), axis=-1)
    return weighted_mean(losses, weights)
