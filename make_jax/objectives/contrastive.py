"""QIC: queries against products of the global batch, in both directions [blog: inner product + AM-Softmax].

With S_ij = logit_scale * (q_i . p_j - margin * [i = j]) and E_ij = 1 where pair (i, j) may stand in a denominator:

    l_q(i) = log sum_j E_ij exp(S_ij) - S_ii          query i against all products
    l_p(j) = log sum_i E_ij exp(S_ij) - S_jj          product j against all queries
    loss   = sum_i w_i (l_q(i) + l_p(i)) / (2 sum_i w_i)

    sigmoid (Zhai et al., arXiv 2303.15343), y_ij = +1 on the diagonal and -1 off it:
    L_ij = -log sigmoid(y_ij (S_ij + logit_bias))
    l_q(i) = sum_j E_ij L_ij, l_p(j) = sum_i E_ij L_ij

E_ij is 1 on the diagonal; off it, 0 when query ids are equal, product ids are equal, either row has weight 0, or
product j has all of the keywords of query i, which has some (`false_negatives.py`) [ours].

    swaps   query i with one keyword replaced by one that product i lacks: one more term of l_p(i), never of l_q

`LOSS_TYPES` and `IMPLEMENTATIONS` are the tables to extend (docs/extending.md). An implementation returns statistics
over the negatives of its local rows; the positive, which is local anyway, is added by the loss type.

| implementation | memory per device | collectives on N devices; "rest" is ids, keyword bits, weights   | matmuls |
|----------------|-------------------|------------------------------------------------------------------|---------|
| gather         | O(b B + B D)      | all-gather of products [B, D] and rest, maxima and sums of       | 3       |
|                |                   | columns [B]; backward: reduce-scatter of the gradient [B, D]     |         |
| ring           | O(b D + tile b)   | N permutes of products [b, D], rest, columns [b]; backward: N    | 4       |
|                |                   | permutes of the same and of the gradient [b, D]                  |         |

Matmuls have b B D multiplications each: logits and two gradients; the ring computes logits twice. It moves as many
bytes of products as an all-gather, and again in the backward pass, in blocks of one device's rows.
`contrastive_gather.py` with `axis=None` is the reference of both.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from make_jax.errors import lookup
from make_jax.objectives.contrastive_gather import gather_statistics
from make_jax.objectives.contrastive_ring import ring_statistics
from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs
from make_jax.objectives.loss_type import SIGMOID, SOFTMAX, LossType
from make_jax.objectives.row_statistics import Axis, LossInputs, RowStatistics

LOSS_TYPES: dict[str, LossType] = {
    "softmax": SOFTMAX,
    "sigmoid": SIGMOID,
}
# (loss type, local rows, tile=, axis=) -> statistics of local rows
IMPLEMENTATIONS: dict[str, Callable[..., RowStatistics]] = {
    "gather": gather_statistics,
    "ring": ring_statistics,
}


def contrastive_loss(
    queries: ContrastiveInputs,
    products: ContrastiveInputs,
    log_logit_scale: Float[Array, ""],
    *,
    weights: Float[Array, "b"],
    loss_type: str = "softmax",
    logit_bias: Float[Array, ""] | None = None,
    margin: float = 0.0,
    swaps: ContrastiveInputs | None = None,
    implementation: str = "gather",
    tile: int = 256,
    axis: Axis = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns the loss over the global batch and its metrics, both replicated; row i of both inputs is a positive pair.

    Call it on local rows inside `jax.shard_map(..., check_vma=True)` over `axis`; `axis=None` is one device: the
    reference, or with `implementation="ring"` the same tile by tile. A row of weight 0 is neither query nor negative;
    the loss is 0 when all weights are. `swaps` has a row per pair, id -1 for none. `tile` is the number of queries that
    the ring processes at a time; it need not divide their number.

    Metrics, without gradient: `accuracy`, the weighted share of queries whose positive has the largest logit;
    `positive`, the weighted mean cosine of the positives; `masked`, the weighted share of other rows that are excluded
    as false negatives.

    Raises InputError for a loss type or an implementation that does not exist, ValueError for a loss type that needs
    `logit_bias` without one, and for a `tile` below 1.
    """
    loss = lookup(LOSS_TYPES, loss_type, "objectives.loss_type")
    statistics_of = lookup(IMPLEMENTATIONS, implementation, "objectives.implementation")
    if loss.uses_bias and logit_bias is None:
        raise ValueError(f"loss_type {loss_type!r} needs a logit_bias")
    if tile < 1:
        raise ValueError(f"tile is {tile}, expected at least 1 row")
    scale = jnp.exp(log_logit_scale.astype(jnp.float32))
    bias = logit_bias.astype(jnp.float32) if loss.uses_bias and logit_bias is not None else jnp.zeros((), jnp.float32)
    statistics = statistics_of(loss, LossInputs(scale, bias, queries, products, weights), tile=tile, axis=axis)

    cosine = _row_cosines(queries, products)
    positive = scale * (cosine - margin) + bias
    by_product = statistics.by_product
    if swaps is not None:
        swapped = jnp.where(swaps.ids >= 0, scale * _row_cosines(swaps, products) + bias, EXCLUDED)
        by_product = loss.statistic.add(by_product, swapped)
    losses = loss.pair_loss(positive, statistics.by_query, by_product)

    def weighted_mean(values: Float[Array, "b"]) -> Float[Array, ""]:
        return _sum(jnp.sum(weights * values), axis) / total

    total = jnp.maximum(_sum(jnp.sum(weights), axis), 1e-30)
    metrics = {
        "accuracy": statistics.is_correct.astype(jnp.float32),
        "positive": cosine,
        "masked": statistics.masked,
    }
    return weighted_mean(losses) / 2.0, {
        name: weighted_mean(jax.lax.stop_gradient(values)) for name, values in metrics.items()
    }


def _row_cosines(left: ContrastiveInputs, right: ContrastiveInputs) -> Float[Array, "b"]:
    """Row i against row i."""
    return jnp.einsum("id,id->i", left.embeddings, right.embeddings, preferred_element_type=jnp.float32)


def _sum(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.psum(x, axis)
