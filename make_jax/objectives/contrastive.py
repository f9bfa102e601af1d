"""QIC: queries against products of the whole global batch, in both directions [blog: inner product + AM-Softmax].

With S_ij = scale * (q_i . p_j - margin * [i = j]) and E_ij = 1 where pair (i, j) may stand in a denominator:

    l_q(i) = log sum_j E_ij exp(S_ij) - S_ii          query i against all products
    l_p(j) = log sum_i E_ij exp(S_ij) - S_jj          product j against all queries
    loss   = sum_i w_i (l_q(i) + l_p(i)) / (2 sum_i w_i)

    sigmoid (Zhai et al., arXiv 2303.15343), y_ij = +1 on the diagonal and -1 off it:
    L_ij = -log sigmoid(y_ij (S_ij + bias))
    l_q(i) = sum_j E_ij L_ij, l_p(j) = sum_i E_ij L_ij

E_ij is 1 on the diagonal; off it, 0 when query ids are equal, product ids are equal, or either row has weight 0.

One block of logits [b, B] a device serves both directions: its rows are local queries, whose statistics are local; the
statistics of its columns are summed over devices.

| form   | memory a device | collectives                                              |
|--------|-----------------|----------------------------------------------------------|
| gather | O(b B + B D)    | all-gather products [B, D]; column max [B], column sum [B] |
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Axis = str | tuple[str, ...] | None
EXCLUDED = -1e30


class Rows(NamedTuple):
    """Vectors with the ids that tell which pairs are no negatives."""

    vectors: Float[Array, "r D"]
    ids: Int[Array, "r"]  # -1: absent, equal to nothing


def contrastive_loss(
    queries: Rows,
    products: Rows,
    log_scale: Float[Array, ""],
    *,
    weights: Float[Array, "b"],
    kind: Literal["softmax", "sigmoid"] = "softmax",
    bias: Float[Array, ""] | None = None,
    margin: float = 0.0,
    axis: Axis = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss over the global batch and its metrics, both replicated; row i of both is a positive pair.

    Called on local rows inside `jax.shard_map(..., check_vma=True)` over `axis`; `axis=None` is the plain one-device
    reference. Weight 0 takes a row out as anchor and as negative; the loss is 0 when all weights are. Metrics:
    `accuracy`, the weighted share of queries whose positive has the largest logit, and `positive`, the weighted mean
    cosine of the positives. Raises ValueError when `kind="sigmoid"` has no `bias`.
    """
    if kind == "sigmoid" and bias is None:
        raise ValueError("the sigmoid loss needs a bias")
    scale = jnp.exp(log_scale.astype(jnp.float32))
    all_vectors, all_products, all_queries, all_weights = (
        _gather(x, axis) for x in (products.vectors, products.ids, queries.ids, weights)
    )
    rows = jnp.arange(weights.shape[0])
    here = rows + (0 if axis is None else jax.lax.axis_index(axis) * weights.shape[0])  # column of each row's positive
    positive = here[:, None] == jnp.arange(all_weights.shape[0])[None, :]
    equal = _equal(queries.ids, all_queries) | _equal(products.ids, all_products)
    live = (weights > 0)[:, None] & (all_weights > 0)[None, :]
    kept = positive | (live & ~equal)

    cosines = jnp.einsum("id,jd->ij", queries.vectors, all_vectors, preferred_element_type=jnp.float32)
    logits = scale * (cosines - margin * positive.astype(jnp.float32))
    if kind == "softmax":
        losses = _softmax(logits, kept, positive, here, axis)
    else:
        assert bias is not None
        losses = _sigmoid(logits + bias.astype(jnp.float32), kept, positive, axis)
    total = jnp.maximum(_sum(jnp.sum(weights), axis), 1e-30)
    loss = _sum(jnp.sum(weights * losses), axis) / (2.0 * total)

    best = jnp.argmax(jnp.where(kept, cosines, EXCLUDED), axis=1) == here
    own = jnp.sum(jnp.where(positive, cosines, 0.0), axis=1)
    return loss, {
        "accuracy": _sum(jnp.sum(weights * best.astype(jnp.float32)), axis) / total,
        "positive": _sum(jnp.sum(weights * own), axis) / total,
    }


def _softmax(
    logits: Float[Array, "b B"],
    kept: Bool[Array, "b B"],
    positive: Bool[Array, "b B"],
    here: Int[Array, "b"],
    axis: Axis,
) -> Float[Array, "b"]:
    """l_q + l_p of the local rows."""
    logits = jnp.where(kept, logits, EXCLUDED)
    own = jnp.sum(jnp.where(positive, logits, 0.0), axis=1)
    by_query = jax.nn.logsumexp(logits, axis=1)
    # The maximum only guards exp against overflow: its gradient is zero, and pmax has none.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=0))
    top = top if axis is None else jax.lax.pmax(top, axis)
    sums = _sum_own_columns(jnp.sum(jnp.exp(logits - top[None, :]), axis=0), axis)
    by_product = jnp.log(sums) + top[here]
    return by_query + by_product - 2.0 * own


def _sigmoid(
    logits: Float[Array, "b B"],
    kept: Bool[Array, "b B"],
    positive: Bool[Array, "b B"],
    axis: Axis,
) -> Float[Array, "b"]:
    """l_q + l_p of the local rows."""
    pairs = jnp.where(kept, -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits)), 0.0)
    return jnp.sum(pairs, axis=1) + _sum_own_columns(jnp.sum(pairs, axis=0), axis)


def _equal(mine: Int[Array, "b"], others: Int[Array, "B"]) -> Bool[Array, "b B"]:
    return (mine[:, None] == others[None, :]) & (mine >= 0)[:, None]


def _gather(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def _sum(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.psum(x, axis)


def _sum_own_columns(columns: Float[Array, "B"], axis: Axis) -> Float[Array, "b"]:
    """Column sums over devices; each device keeps those of its own products."""
    return columns if axis is None else jax.lax.psum_scatter(columns, axis, tiled=True)
