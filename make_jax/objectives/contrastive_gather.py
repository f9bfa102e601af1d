"""The gather implementation: each device holds the logits of its queries, [b, B]. With `axis=None`, the reference."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from make_jax.objectives.false_negatives import EXCLUDED, cosines, false_negatives
from make_jax.objectives.loss_type import LossType, Statistic
from make_jax.objectives.row_statistics import Axis, LossInputs, RowStatistics


def gather_statistics(loss_type: LossType, inputs: LossInputs, *, tile: int, axis: Axis) -> RowStatistics:
    """Returns the statistics of local rows from one block of logits [b, B]; `tile` is not used.

    Rows of the block are local queries, so their statistics are local. Those of its columns are summed over devices.
    Autodiff keeps the block for the backward pass.
    """
    del tile
    queries, weights = inputs.queries, inputs.weights
    products = jax.tree.map(lambda x: _all_gather(x, axis), inputs.products)
    query_ids, all_weights = _all_gather(queries.ids, axis), _all_gather(weights, axis)
    rows = jnp.arange(weights.shape[0])
    # Column of each row's positive.
    positions = rows + (0 if axis is None else jax.lax.axis_index(axis) * weights.shape[0])
    positive = positions[:, None] == jnp.arange(all_weights.shape[0])[None, :]
    is_false = false_negatives(queries, inputs.products, query_ids, products)
    weighted = (weights > 0)[:, None] & (all_weights > 0)[None, :]
    negative = weighted & ~is_false & ~positive

    dots = cosines(queries.embeddings, products.embeddings)
    logits = jnp.where(negative, inputs.logit_scale * dots + inputs.logit_bias, EXCLUDED)
    by_query = _reduce_rows(loss_type.statistic, logits)
    by_product = _reduce_columns(loss_type.statistic, logits, positions, axis)
    is_correct = jnp.argmax(jnp.where(negative | positive, dots, EXCLUDED), axis=1) == positions
    masked = jnp.mean((weighted & is_false & ~positive).astype(jnp.float32), axis=1)
    return RowStatistics(by_query, by_product, is_correct, masked)


def _reduce_rows(statistic: Statistic, logits: Float[Array, "b B"]) -> Float[Array, "b"]:
    maximum = _maximum(statistic, logits, 1)
    return statistic.finish(jnp.sum(statistic.term(logits, maximum[:, None]), axis=1), maximum)


def _reduce_columns(
    statistic: Statistic, logits: Float[Array, "b B"], positions: Int[Array, "b"], axis: Axis
) -> Float[Array, "b"]:
    """Reduces columns over all devices; each device keeps the statistics of its own products."""
    maximum = _maximum(statistic, logits, 0)
    if statistic.stabilized and axis is not None:
        maximum = jax.lax.pmax(maximum, axis)
    sums = jnp.sum(statistic.term(logits, maximum[None, :]), axis=0)
    sums = sums if axis is None else jax.lax.psum_scatter(sums, axis, tiled=True)
    return statistic.finish(sums, maximum[positions])


def _maximum(statistic: Statistic, logits: Float[Array, "b B"], dimension: int) -> Array:
    """The largest logit over `dimension`, without gradient: it only keeps exponentials finite, and pmax has none."""
    if not statistic.stabilized:
        return jnp.zeros(logits.shape[1 - dimension])
    return jax.lax.stop_gradient(jnp.max(logits, axis=dimension))


def _all_gather(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)
