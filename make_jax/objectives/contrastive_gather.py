"""The gather form: each device holds its queries' rows of the matrix, [b, B]. With `axis=None` the plain reference."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs, cosines, false_negatives
from make_jax.objectives.statistics import Axis, Statistics


def gather_statistics(
    kind: Literal["softmax", "sigmoid"],
    axis: Axis,
    scale: Float[Array, ""],
    offset: Float[Array, ""],
    queries: ContrastiveInputs,
    products: ContrastiveInputs,
    weights: Float[Array, "b"],
) -> Statistics:
    """One block of logits [b, B] serves both directions; autodiff keeps it for the way back.

    Its rows are local queries, whose statistics are local; the statistics of its columns are summed over devices.
    """
    others = jax.tree.map(lambda x: _gather(x, axis), products)
    query_ids, all_weights = _gather(queries.ids, axis), _gather(weights, axis)
    rows = jnp.arange(weights.shape[0])
    here = rows + (0 if axis is None else jax.lax.axis_index(axis) * weights.shape[0])  # column of each row's positive
    positive = here[:, None] == jnp.arange(all_weights.shape[0])[None, :]
    false = false_negatives(queries, products, query_ids, others)
    live = (weights > 0)[:, None] & (all_weights > 0)[None, :]
    negative = live & ~false & ~positive

    dots = cosines(queries.embeddings, others.embeddings)
    logits = jnp.where(negative, scale * dots + offset, EXCLUDED)
    by_query, by_product = (_softmax if kind == "softmax" else _sigmoid)(logits, here, axis)
    best = jnp.argmax(jnp.where(negative | positive, dots, EXCLUDED), axis=1) == here
    masked = jnp.mean((live & false & ~positive).astype(jnp.float32), axis=1)
    return Statistics(by_query, by_product, best, masked)


def _softmax(
    logits: Float[Array, "b B"], here: Int[Array, "b"], axis: Axis
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Logarithms of the sums of negatives, of local queries and of local products."""
    by_query = jax.nn.logsumexp(logits, axis=1)
    # The maximum only guards exp against overflow: its gradient is zero, and pmax has none.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=0))
    top = top if axis is None else jax.lax.pmax(top, axis)
    sums = _sum_own_columns(jnp.sum(jnp.exp(logits - top[None, :]), axis=0), axis)
    return by_query, jnp.log(sums) + top[here]


def _sigmoid(
    logits: Float[Array, "b B"], here: Int[Array, "b"], axis: Axis
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Sums of the negatives' losses, of local queries and of local products."""
    del here
    pairs = jax.nn.softplus(logits)
    by_query = jnp.sum(pairs, axis=1)
    return by_query, _sum_own_columns(jnp.sum(pairs, axis=0), axis)


def _gather(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def _sum_own_columns(columns: Float[Array, "B"], axis: Axis) -> Float[Array, "b"]:
    """Column sums over devices; each device keeps those of its own products."""
    return columns if axis is None else jax.lax.psum_scatter(columns, axis, tiled=True)
