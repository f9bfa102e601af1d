"""QIC: queries against products of the whole global batch, in both directions [blog: inner product + AM-Softmax].

With S_ij = scale * (q_i . p_j - margin * [i = j]) and E_ij = 1 where pair (i, j) may stand in a denominator:

    l_q(i) = log sum_j E_ij exp(S_ij) - S_ii          query i against all products
    l_p(j) = log sum_i E_ij exp(S_ij) - S_jj          product j against all queries
    loss   = sum_i w_i (l_q(i) + l_p(i)) / (2 sum_i w_i)

    sigmoid (Zhai et al., arXiv 2303.15343), y_ij = +1 on the diagonal and -1 off it:
    L_ij = -log sigmoid(y_ij (S_ij + bias))
    l_q(i) = sum_j E_ij L_ij, l_p(j) = sum_i E_ij L_ij

E_ij is 1 on the diagonal; off it, 0 when query ids are equal, product ids are equal, either row has weight 0, or
product j has all of the keywords of query i, which has some: K(q_i) is not empty and a subset of K(p_j) [ours].

    swaps   query i with one keyword replaced by one that product i has not: one more term of l_p(i), never of l_q
    bank    product vectors of earlier steps, without gradient: more columns of l_q, masked alike, never of l_p

One block of logits [b, B] a device serves both directions: its rows are local queries, whose statistics are local; the
statistics of its columns are summed over devices.

| form   | memory a device | collectives                                                           |
|--------|-----------------|-----------------------------------------------------------------------|
| gather | O(b B + B D)    | all-gather products [B, D] and the bank; column max [B], column sum [B] |
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

Axis = str | tuple[str, ...] | None
EXCLUDED = -1e30


class Rows(NamedTuple):
    """Vectors with what tells which pairs are no negatives."""

    vectors: Float[Array, "r D"]
    ids: Int[Array, "r"]  # -1: absent, equal to nothing
    keywords: UInt32[Array, "r words"] | None = None  # bit k % 32 of word k // 32 is keyword k; None: nothing is known


def contrastive_loss(
    queries: Rows,
    products: Rows,
    log_scale: Float[Array, ""],
    *,
    weights: Float[Array, "b"],
    kind: Literal["softmax", "sigmoid"] = "softmax",
    bias: Float[Array, ""] | None = None,
    margin: float = 0.0,
    swaps: Rows | None = None,
    bank: Rows | None = None,
    axis: Axis = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss over the global batch and its metrics, both replicated; row i of both is a positive pair.

    Called on local rows inside `jax.shard_map(..., check_vma=True)` over `axis`; `axis=None` is the plain one-device
    reference. Weight 0 takes a row out as anchor and as negative; the loss is 0 when all weights are. `swaps` has a row
    for each pair, id -1 where there is none; `bank` any number of rows on each device, id -1 where it is empty yet.
    Metrics: `accuracy`, the weighted share of queries whose positive has the largest logit, `positive`, the weighted
    mean cosine of the positives, and `masked`, the weighted share of the other rows that are no negatives of a query.
    Raises ValueError when `kind="sigmoid"` has no `bias`.
    """
    if kind == "sigmoid" and bias is None:
        raise ValueError("the sigmoid loss needs a bias")
    scale = jnp.exp(log_scale.astype(jnp.float32))
    offset = jnp.zeros((), jnp.float32) if kind == "softmax" or bias is None else bias.astype(jnp.float32)
    others = jax.tree.map(lambda x: _gather(x, axis), products)
    query_ids, all_weights = _gather(queries.ids, axis), _gather(weights, axis)
    rows = jnp.arange(weights.shape[0])
    here = rows + (0 if axis is None else jax.lax.axis_index(axis) * weights.shape[0])  # column of each row's positive
    positive = here[:, None] == jnp.arange(all_weights.shape[0])[None, :]
    false = false_negatives(queries, products, query_ids, others)
    live = (weights > 0)[:, None] & (all_weights > 0)[None, :]
    kept = positive | (live & ~false)

    cosines = _products(queries.vectors, others.vectors)
    logits = scale * (cosines - margin * positive.astype(jnp.float32)) + offset
    swapped = None
    if swaps is not None:
        cosine = jnp.einsum("id,id->i", swaps.vectors, products.vectors, preferred_element_type=jnp.float32)
        swapped = scale * cosine + offset, swaps.ids >= 0
    banked = None
    if bank is not None:
        banked = _bank(queries, products, weights, bank, axis)
        banked = scale * banked[0] + offset, banked[1]
    form = _softmax if kind == "softmax" else _sigmoid
    losses = form(logits, kept, positive, here, swapped, banked, axis)
    total = jnp.maximum(_sum(jnp.sum(weights), axis), 1e-30)
    loss = _sum(jnp.sum(weights * losses), axis) / (2.0 * total)

    best = jnp.argmax(jnp.where(kept, cosines, EXCLUDED), axis=1) == here
    own = jnp.sum(jnp.where(positive, cosines, 0.0), axis=1)
    masked = jnp.mean((live & false & ~positive).astype(jnp.float32), axis=1)
    return loss, {
        "accuracy": _sum(jnp.sum(weights * best.astype(jnp.float32)), axis) / total,
        "positive": _sum(jnp.sum(weights * own), axis) / total,
        "masked": _sum(jnp.sum(weights * masked), axis) / total,
    }


def false_negatives(queries: Rows, products: Rows, query_ids: Int[Array, "m"], others: Rows) -> Bool[Array, "b m"]:
    """Where product j of `others` is no negative of query i, by ids and keywords; the diagonal is told by ids alone.

    Row i of `products` is the positive of query i, row j of `others` that of the query with id `query_ids[j]`.
    """
    return _equal(queries.ids, query_ids) | _equal(products.ids, others.ids) | answered(queries, others)


Columns = tuple[Float[Array, "b m"], Bool[Array, "b m"]]  # logits, and which of them stand in the denominator
Row = tuple[Float[Array, "b"], Bool[Array, "b"]]


def _bank(
    queries: Rows, products: Rows, weights: Float[Array, "b"], bank: Rows, axis: Axis
) -> tuple[Float[Array, "b M"], Bool[Array, "b M"]]:
    """Cosines of local queries with every vector of the bank, and which of the pairs are negatives."""
    everything = jax.tree.map(lambda x: _gather(jax.lax.stop_gradient(x), axis), bank)
    false = _equal(products.ids, everything.ids) | answered(queries, everything)
    kept = (weights > 0)[:, None] & (everything.ids >= 0)[None, :] & ~false
    return _products(queries.vectors, everything.vectors), kept


def _softmax(
    logits: Float[Array, "b B"],
    kept: Bool[Array, "b B"],
    positive: Bool[Array, "b B"],
    here: Int[Array, "b"],
    swapped: Row | None,
    banked: Columns | None,
    axis: Axis,
) -> Float[Array, "b"]:
    """l_q + l_p of the local rows."""
    logits = jnp.where(kept, logits, EXCLUDED)
    own = jnp.sum(jnp.where(positive, logits, 0.0), axis=1)
    by_query = jax.nn.logsumexp(logits, axis=1)
    if banked is not None:
        by_query = jnp.logaddexp(by_query, jax.nn.logsumexp(jnp.where(banked[1], banked[0], EXCLUDED), axis=1))
    # The maximum only guards exp against overflow: its gradient is zero, and pmax has none.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=0))
    top = top if axis is None else jax.lax.pmax(top, axis)
    sums = _sum_own_columns(jnp.sum(jnp.exp(logits - top[None, :]), axis=0), axis)
    by_product = jnp.log(sums) + top[here]
    if swapped is not None:
        by_product = jnp.logaddexp(by_product, jnp.where(swapped[1], swapped[0], EXCLUDED))
    return by_query + by_product - 2.0 * own


def _sigmoid(
    logits: Float[Array, "b B"],
    kept: Bool[Array, "b B"],
    positive: Bool[Array, "b B"],
    here: Int[Array, "b"],
    swapped: Row | None,
    banked: Columns | None,
    axis: Axis,
) -> Float[Array, "b"]:
    """l_q + l_p of the local rows."""
    del here
    pairs = jnp.where(kept, -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits)), 0.0)
    losses = jnp.sum(pairs, axis=1) + _sum_own_columns(jnp.sum(pairs, axis=0), axis)
    if banked is not None:
        losses += jnp.sum(jnp.where(banked[1], -jax.nn.log_sigmoid(-banked[0]), 0.0), axis=1)
    if swapped is not None:
        losses += jnp.where(swapped[1], -jax.nn.log_sigmoid(-swapped[0]), 0.0)
    return losses


def _products(mine: Float[Array, "b D"], others: Float[Array, "m D"]) -> Float[Array, "b m"]:
    return jnp.einsum("id,jd->ij", mine, others, preferred_element_type=jnp.float32)


def answered(queries: Rows, products: Rows) -> Bool[Array, "b m"]:
    """Where a product has all keywords of a query that has some. A loop over words: no array [b, m, words]."""
    shape = (queries.ids.shape[0], products.ids.shape[0])
    if queries.keywords is None or products.keywords is None:
        return jnp.zeros(shape, bool)
    inside = jnp.broadcast_to(jnp.any(queries.keywords != 0, axis=1)[:, None], shape)
    for word in range(queries.keywords.shape[1]):
        inside &= (queries.keywords[:, word, None] & ~products.keywords[None, :, word]) == 0
    return inside


def _equal(mine: Int[Array, "b"], others: Int[Array, "B"]) -> Bool[Array, "b B"]:
    return (mine[:, None] == others[None, :]) & (mine >= 0)[:, None]


def _gather(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def _sum(x: Array, axis: Axis) -> Array:
    return x if axis is None else jax.lax.psum(x, axis)


def _sum_own_columns(columns: Float[Array, "B"], axis: Axis) -> Float[Array, "b"]:
    """Column sums over devices; each device keeps those of its own products."""
    return columns if axis is None else jax.lax.psum_scatter(columns, axis, tiled=True)
