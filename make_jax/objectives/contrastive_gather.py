"""The gather form: each device holds its queries' rows of the matrix, [b, B]. With `axis=None` the plain reference."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from make_jax.objectives.pairs import EXCLUDED, Rows, answered, cosines, equal, false_negatives
from make_jax.objectives.statistics import Axis, Statistics

Columns = tuple[Float[Array, "b m"], Bool[Array, "b m"]]  # logits, and which of them stand in the denominator


def gather_statistics(
    kind: Literal["softmax", "sigmoid"],
    margin: float,
    axis: Axis,
    scale: Float[Array, ""],
    offset: Float[Array, ""],
    queries: Rows,
    products: Rows,
    weights: Float[Array, "b"],
    bank: Rows | None,
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
    kept = positive | (live & ~false)

    found = cosines(queries.vectors, others.vectors)
    logits = scale * (found - margin * positive.astype(jnp.float32)) + offset
    banked = None
    if bank is not None:
        dots, there = _bank(queries, products, weights, bank, axis)
        banked = scale * dots + offset, there
    if kind == "softmax":
        by_query, by_product = _softmax(logits, kept, here, banked, axis)
    else:
        by_query, by_product = _sigmoid(logits, kept, positive, banked, axis)
    return Statistics(
        by_query,
        by_product,
        own=jnp.sum(jnp.where(positive, found, 0.0), axis=1),
        best=jnp.argmax(jnp.where(kept, found, EXCLUDED), axis=1) == here,
        masked=jnp.mean((live & false & ~positive).astype(jnp.float32), axis=1),
    )


def _bank(
    queries: Rows, products: Rows, weights: Float[Array, "b"], bank: Rows, axis: Axis
) -> tuple[Float[Array, "b M"], Bool[Array, "b M"]]:
    """Cosines of local queries with every vector of the bank, and which of the pairs are negatives."""
    everything = jax.tree.map(lambda x: _gather(jax.lax.stop_gradient(x), axis), bank)
    false = equal(products.ids, everything.ids) | answered(queries, everything)
    kept = (weights > 0)[:, None] & (everything.ids >= 0)[None, :] & ~false
    return cosines(queries.vectors, everything.vectors), kept


def _softmax(
    logits: Float[Array, "b B"], kept: Bool[Array, "b B"], here: Int[Array, "b"], banked: Columns | None, axis: Axis
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Logarithms of the denominators of local queries and of local products."""
    logits = jnp.where(kept, logits, EXCLUDED)
    by_query = jax.nn.logsumexp(logits, axis=1)
    if banked is not None:
        by_query = jnp.logaddexp(by_query, jax.nn.logsumexp(jnp.where(banked[1], banked[0], EXCLUDED), axis=1))
    # The maximum only guards exp against overflow: its gradient is zero, and pmax has none.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=0))
    top = top if axis is None else jax.lax.pmax(top, axis)
    sums = _sum_own_columns(jnp.sum(jnp.exp(logits - top[None, :]), axis=0), axis)
    return by_query, jnp.log(sums) + top[here]


def _sigmoid(
    logits: Float[Array, "b B"],
    kept: Bool[Array, "b B"],
    positive: Bool[Array, "b B"],
    banked: Columns | None,
    axis: Axis,
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Sums of the pairs' losses over the rows of local queries and over the columns of local products."""
    pairs = jnp.where(kept, -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits)), 0.0)
    by_query = jnp.sum(pairs, axis=1)
    if banked is not None:
        by_query += jnp.sum(jnp.where(banked[1], -jax.nn.log_sigmoid(-banked[0]), 0.0), axis=1)
    return by_query, _sum_own_columns(jnp.sum(pairs, axis=0), axis)


def _gather(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def _sum_own_columns(columns: Float[Array, "B"], axis: Axis) -> Float[Array, "b"]:
    """Column sums over devices; each device keeps those of its own products."""
    return columns if axis is None else jax.lax.psum_scatter(columns, axis, tiled=True)
