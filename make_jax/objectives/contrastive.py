"""QIC: queries against products of the whole global batch, in both directions [blog: inner product + AM-Softmax].

With S_ij = scale * (q_i . p_j - margin * [i = j]) and E_ij = 1 where pair (i, j) may stand in a denominator:

    l_q(i) = log sum_j E_ij exp(S_ij) - S_ii          query i against all products
    l_p(j) = log sum_i E_ij exp(S_ij) - S_jj          product j against all queries
    loss   = sum_i w_i (l_q(i) + l_p(i)) / (2 sum_i w_i)

    sigmoid (Zhai et al., arXiv 2303.15343), y_ij = +1 on the diagonal and -1 off it:
    L_ij = -log sigmoid(y_ij (S_ij + bias))
    l_q(i) = sum_j E_ij L_ij, l_p(j) = sum_i E_ij L_ij

E_ij is 1 on the diagonal; off it, 0 when query ids are equal, product ids are equal, either row has weight 0, or
product j has all of the keywords of query i, which has some (`false_negatives.py`) [ours].

    swaps   query i with one keyword replaced by one that product i has not: one more term of l_p(i), never of l_q

Both forms sum the negatives of their local rows; the positive, which is in the local rows anyway, is added here:

    log(exp(S_ii) + exp(negatives)) - S_ii = softplus(negatives - S_ii)

| form   | memory a device | collectives, of N devices; "rest" is ids, keyword bits, weights       | work |
|--------|-----------------|-----------------------------------------------------------------------|------|
| gather | O(b B + B D)    | all-gather of products [B, D] and rest, maxima and sums of columns    | 3    |
|        |                 | [B]; back: reduce-scatter of the gradient [B, D]                      |      |
| ring   | O(b D + tile b) | N hops of products [b, D], rest, columns [b]; back: N hops of the     | 4    |
|        |                 | same and of the gradient [b, D]                                       |      |

Work counts matrix products of b B D multiplications: logits and two gradients; the ring form computes logits twice.
The ring moves as many bytes of products as an all-gather, and once more on the way back, in pieces of one device's
rows. `contrastive_gather.py` with `axis=None` is the plain reference of both.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from make_jax.objectives.contrastive_gather import gather_statistics
from make_jax.objectives.contrastive_ring import Inputs, Setting, ring_statistics
from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs
from make_jax.objectives.statistics import Axis


def contrastive_loss(
    queries: ContrastiveInputs,
    products: ContrastiveInputs,
    log_logit_scale: Float[Array, ""],
    *,
    weights: Float[Array, "b"],
    kind: Literal["softmax", "sigmoid"] = "softmax",
    logit_bias: Float[Array, ""] | None = None,
    margin: float = 0.0,
    swaps: ContrastiveInputs | None = None,
    form: Literal["gather", "ring"] = "gather",
    tile: int = 256,
    axis: Axis = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss over the global batch and its metrics, both replicated; row i of both is a positive pair.

    Called on local rows inside `jax.shard_map(..., check_vma=True)` over `axis`; `axis=None` is one device: the plain
    reference, or with `form="ring"` the same tile by tile. Weight 0 takes a row out as anchor and as negative; the loss
    is 0 when all weights are. `swaps` has a row for each pair, id -1 where there is none. `tile` is how many queries
    the ring form treats at once; it need not divide their number.
    Metrics: `accuracy`, the weighted share of queries whose positive has the largest logit, `positive`, the weighted
    mean cosine of the positives, and `masked`, the weighted share of the other rows that are no negatives of a query.
    None has a gradient. Raises ValueError when `kind="sigmoid"` has no `bias`, and when `tile` is less than 1.
    """
    if kind == "sigmoid" and logit_bias is None:
        raise ValueError("the sigmoid loss needs a logit_bias")
    if tile < 1:
        raise ValueError(f"tile is {tile}, expected at least 1 row")
    scale = jnp.exp(log_logit_scale.astype(jnp.float32))
    offset = jnp.zeros((), jnp.float32) if kind == "softmax" or logit_bias is None else logit_bias.astype(jnp.float32)
    if form == "ring":
        inputs = Inputs(scale, offset, queries, products, weights)
        found = ring_statistics(Setting(kind, tile, axis), inputs)
    else:
        found = gather_statistics(kind, axis, scale, offset, queries, products, weights)

    cosine = _cosine(queries, products)
    own = scale * (cosine - margin) + offset
    by_product = found.by_product
    if swaps is not None:
        swapped = jnp.where(swaps.ids >= 0, scale * _cosine(swaps, products) + offset, EXCLUDED)
        if kind == "softmax":
            by_product = jnp.logaddexp(by_product, swapped)
        else:
            by_product += jax.nn.softplus(swapped)
    if kind == "softmax":  # log(exp(own) + exp(negatives)) - own
        losses = jax.nn.softplus(found.by_query - own) + jax.nn.softplus(by_product - own)
    else:
        losses = found.by_query + by_product + 2.0 * jax.nn.softplus(-own)

    def mean(values: Float[Array, "b"]) -> Float[Array, ""]:
        return _sum(jnp.sum(weights * values), axis) / total

    total = jnp.maximum(_sum(jnp.sum(weights), axis), 1e-30)
    metrics = {"accuracy": found.best.astype(jnp.float32), "positive": cosine, "masked": found.masked}
    return mean(losses) / 2.0, {name: mean(jax.lax.stop_gradient(values)) for name, values in metrics.items()}


def _cosine(mine: ContrastiveInputs, others: ContrastiveInputs) -> Float[Array, "b"]:
    """Row against the same row."""
    return jnp.einsum("id,id->i", mine.embeddings, others.embeddings, preferred_element_type=jnp.float32)


def _sum(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.psum(x, axis)
