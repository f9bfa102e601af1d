"""The ring form: a device never holds more logits than a tile, or more products than its own and a neighbour's.

Each device keeps its queries. Its products travel around the ring with all that belongs to them (ids, keyword bits,
weights, the running maximum and sum of their columns) and are home again after N hops. At each stop, tiles of `tile`
local queries meet the visiting products, and one tile of logits feeds both its rows and its columns:

    m' = max(m, max_j S_ij),  s' = s exp(m - m') + sum_j exp(S_ij - m'),  in the end  log sum_j exp(S_ij) = m + log s

Autodiff through these loops would keep every tile for the way back, and need more memory than no ring at all. So the
derivative is written by hand: the products travel a second time, now with the final statistics of their columns and
their gradients, and every tile is computed again. With g_q, g_p the cotangents of rows and columns, over negatives:

    softmax   G_ij = g_q(i) exp(S_ij - by_query(i)) + g_p(j) exp(S_ij - by_product(j))
    sigmoid   G_ij = (g_q(i) + g_p(j)) sigmoid(S_ij)
    dq_i = scale sum_j G_ij p_j,    dp_j = scale sum_i G_ij q_i,    dscale = sum_i q_i . dq_i / scale

Running softmax statistics: Milakov and Gimelshein, arXiv 1805.02867. Tiles with a hand-written derivative: Dao et al.,
arXiv 2205.14135. A ring for the contrastive loss: Cheng et al., arXiv 2410.17243. One tile for both directions, masks
by ids and keywords are [ours].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs, cosines, false_negatives
from make_jax.objectives.statistics import Axis, Statistics


class Setting(NamedTuple):
    """What is known when the program is compiled."""

    kind: Literal["softmax", "sigmoid"]
    tile: int
    axis: Axis


class Inputs(NamedTuple):
    """What differs from step to step: local rows."""

    scale: Float[Array, ""]
    offset: Float[Array, ""]
    queries: ContrastiveInputs
    products: ContrastiveInputs
    weights: Float[Array, "b"]


class Anchors(NamedTuple):
    """A tile of local queries; rows that only fill the last tile are not live."""

    queries: ContrastiveInputs
    product_ids: Int[Array, "tile"]  # of their positives
    live: Bool[Array, "tile"]  # weight above 0
    place: Int[Array, "tile"]  # number of the local row


class Guests(NamedTuple):
    """What travels unchanged: one device's products, and what tells which of them are no negatives."""

    products: ContrastiveInputs
    query_ids: Int[Array, "b"]
    live: Bool[Array, "b"]


class Sums(NamedTuple):
    """Running statistics of rows or of columns; the sigmoid's need no maximum."""

    top: Float[Array, "*n"]
    sum: Float[Array, "*n"]


class Found(NamedTuple):
    """What a tile's rows know so far."""

    sums: Sums
    own: Float[Array, "*n"]  # cosine of the positive
    beaten: Bool[Array, "*n"]  # by a larger cosine, or by an equal one in a lower column
    negatives: Int[Array, "*n"]


class Side(NamedTuple):
    """Final statistics of rows or columns, and their cotangents."""

    value: Float[Array, "*n"]
    cotangent: Float[Array, "*n"]


class Slopes(NamedTuple):
    """What a tile's rows have of the gradient so far, not yet times the scale."""

    queries: Float[Array, "*n D"]
    offset: Float[Array, "*n"]


def ring_statistics(setting: Setting, inputs: Inputs) -> Statistics:
    """The statistics of local rows in memory O(b D + tile b); gradients for scale, offset, queries and products."""
    # Varying copies, so that autodiff and not this file sums their gradients over the devices.
    scale, offset = (_varying(x, setting.axis) for x in (inputs.scale, inputs.offset))
    return _statistics(setting, inputs._replace(scale=scale, offset=offset))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _statistics(setting: Setting, inputs: Inputs) -> Statistics:
    return _forward(setting, inputs)[0]


def _forward(setting: Setting, inputs: Inputs) -> tuple[Statistics, tuple[Inputs, Statistics]]:
    """The first journey: with the products travel the sums of their columns."""
    b, axis = inputs.weights.shape[0], setting.axis
    anchors = _anchors(setting, inputs)

    def meet(guests: Guests, hops: Array, columns: Sums, tile: tuple[Anchors, Found]) -> tuple[Sums, Found]:
        anchors, found = tile
        dots, logits = _meet_products(inputs, anchors, guests, hops)
        sums = _add(setting, found.sums, logits, 1)
        # ContrastiveInputs past the last fill the tile; whose cosine they take for their own does not matter.
        diagonal = jnp.take_along_axis(dots, jnp.minimum(anchors.place, b - 1)[:, None], axis=1)
        own = jnp.where(hops == 0, diagonal[:, 0], found.own)
        negative = logits > EXCLUDED
        above = (dots > own[:, None]) | ((dots == own[:, None]) & _lower(anchors, b, hops, axis))
        return _add(setting, columns, logits, 0), Found(
            sums,
            own,
            found.beaten | jnp.any(negative & above, axis=1),
            found.negatives + jnp.sum(negative, axis=1, dtype=jnp.int32),
        )

    zero = _zeros(anchors.place.shape, axis)
    start = Found(_no_sums(anchors.place.shape, axis), zero, zero > 0, zero.astype(jnp.int32))
    columns, found = _journey(axis, meet, _guests(inputs), _no_sums((b,), axis), anchors, start)
    sums, _, beaten, negatives = jax.tree.map(partial(_join, b), found)
    live = inputs.weights > 0
    others = jnp.sum(live, dtype=jnp.int32)
    others = (others if axis is None else jax.lax.psum(others, axis)) - 1
    masked = jnp.where(live, others - negatives, 0).astype(jnp.float32) / (b * _devices(axis))
    statistics = Statistics(_value(setting, sums), _value(setting, columns), ~beaten, masked)
    return statistics, (inputs, statistics)


def _backward(setting: Setting, kept: tuple[Inputs, Statistics], cotangents: Statistics) -> tuple[Inputs]:
    """The second journey: with the products travel their columns' final statistics and their gradients."""
    inputs, statistics = kept
    b, axis, queries, products = inputs.weights.shape[0], setting.axis, inputs.queries, inputs.products
    anchors = _anchors(setting, inputs)
    rows = _split(setting, Side(statistics.by_query, cotangents.by_query))
    columns = Side(statistics.by_product, cotangents.by_product)

    def meet(
        guests: Guests, hops: Array, moving: tuple[Side, Array], tile: tuple[tuple[Anchors, Side], Slopes]
    ) -> tuple[tuple[Side, Array], Slopes]:
        (anchors, row), slopes = tile
        columns, for_products = moving
        _, logits = _meet_products(inputs, anchors, guests, hops)
        by_pair = _slopes(setting, logits, row, columns)
        slopes = _pass(setting, slopes, by_pair, guests.products.embeddings)
        narrow = by_pair.astype(queries.embeddings.dtype)
        for_products += jnp.einsum("ij,id->jd", narrow, anchors.queries.embeddings, preferred_element_type=jnp.float32)
        return (columns, for_products), slopes

    start = Slopes(_zeros(anchors.queries.embeddings.shape, axis), _zeros(anchors.place.shape, axis))
    moving = columns, _zeros(products.embeddings.shape, axis)
    (_, for_products), slopes = _journey(axis, meet, _guests(inputs), moving, (anchors, rows), start)
    for_queries = _join(b, slopes.queries)
    none: Any = None  # has no gradient
    gradients = Inputs(
        scale=jnp.sum(queries.embeddings.astype(jnp.float32) * for_queries),
        offset=jnp.sum(slopes.offset),
        queries=ContrastiveInputs((inputs.scale * for_queries).astype(queries.embeddings.dtype), none),
        products=ContrastiveInputs((inputs.scale * for_products).astype(products.embeddings.dtype), none),
        weights=none,
    )
    return (gradients,)


_statistics.defvjp(_forward, _backward)


def _journey(axis: Axis, meet: Callable[..., Any], guests: Guests, moving: Any, anchors: Any, found: Any) -> Any:
    """`moving` and `found` after `guests` and `moving` have met each tile of `anchors` on each device.

    `meet(guests, hops, moving, (anchors, found))` gives `moving` and `found` anew, for one tile.
    """

    def stop(carry: tuple[Guests, Any, Any], hops: Array) -> tuple[tuple[Guests, Any, Any], None]:
        guests, moving, found = carry
        moving, found = jax.lax.scan(partial(meet, guests, hops), moving, (anchors, found))
        return (*_hop((guests, moving), axis), found), None

    (_, moving, found), _ = jax.lax.scan(stop, (guests, moving, found), jnp.arange(_devices(axis)))
    return moving, found


def _hop(tree: Any, axis: Axis) -> Any:
    """Everything to the next device of the ring."""
    devices = _devices(axis)
    if axis is None or devices == 1:
        return tree
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, ring), tree)


def _meet_products(
    inputs: Inputs, anchors: Anchors, guests: Guests, hops: Array
) -> tuple[Float[Array, "tile b"], Float[Array, "tile b"]]:
    """Cosines and logits of a tile; EXCLUDED is the logit of what is no negative, the positive among them."""
    positives = ContrastiveInputs(anchors.queries.embeddings, anchors.product_ids)
    out = false_negatives(anchors.queries, positives, guests.query_ids, guests.products)
    out |= (hops == 0) & (anchors.place[:, None] == jnp.arange(guests.live.shape[0])[None, :])
    out |= ~(anchors.live[:, None] & guests.live[None, :])
    dots = cosines(anchors.queries.embeddings, guests.products.embeddings)
    return dots, jnp.where(out, EXCLUDED, inputs.scale * dots + inputs.offset)


def _add(setting: Setting, sums: Sums, logits: Float[Array, "tile m"], axis: int) -> Sums:
    """The statistics with a tile more; `axis` is summed over."""
    if setting.kind == "sigmoid":
        return Sums(sums.top, sums.sum + jnp.sum(jax.nn.softplus(logits), axis=axis))
    top = jnp.maximum(sums.top, jnp.max(logits, axis=axis))
    new = jnp.sum(jnp.exp(logits - jnp.expand_dims(top, axis)), axis=axis)
    return Sums(top, sums.sum * jnp.exp(sums.top - top) + new)


def _value(setting: Setting, sums: Sums) -> Array:
    return sums.sum if setting.kind == "sigmoid" else sums.top + jnp.log(sums.sum)


def _slopes(setting: Setting, logits: Float[Array, "tile m"], row: Side, column: Side) -> Array:
    """The derivative by each logit of a tile."""
    value, cotangent = row.value[:, None], row.cotangent[:, None]
    if setting.kind == "sigmoid":
        return (cotangent + column.cotangent[None, :]) * jax.nn.sigmoid(logits)
    by_row = cotangent * jnp.exp(logits - value)
    return by_row + column.cotangent[None, :] * jnp.exp(logits - column.value[None, :])


def _pass(setting: Setting, slopes: Slopes, by_pair: Float[Array, "tile m"], vectors: Float[Array, "m D"]) -> Slopes:
    """The rows' gradients with a tile more."""
    narrow = by_pair.astype(vectors.dtype)
    queries = slopes.queries + jnp.einsum("ij,jd->id", narrow, vectors, preferred_element_type=jnp.float32)
    # The softmax has no offset.
    offset = slopes.offset + jnp.sum(by_pair, axis=1) if setting.kind == "sigmoid" else slopes.offset
    return Slopes(queries, offset)


def _lower(anchors: Anchors, b: int, hops: Array, axis: Axis) -> Bool[Array, "tile b"]:
    """Where a column of the whole matrix is lower than that of the row's positive."""
    here = jnp.arange(b)[None, :] < anchors.place[:, None]
    if axis is None:
        return here
    return jnp.where(hops == 0, here, hops <= jax.lax.axis_index(axis))  # guests come from as many devices before this


def _guests(inputs: Inputs) -> Guests:
    """What leaves this device."""
    return Guests(inputs.products, inputs.queries.ids, inputs.weights > 0)


def _anchors(setting: Setting, inputs: Inputs) -> Anchors:
    """Local queries in tiles [tiles, tile, ...]."""
    live = inputs.weights > 0
    return _split(setting, Anchors(inputs.queries, inputs.products.ids, live, jnp.arange(live.shape[0])))


def _split(setting: Setting, tree: Any) -> Any:
    rows: int = jax.tree.leaves(tree)[0].shape[0]
    return _cut(tree, min(setting.tile, rows))


def _cut(tree: Any, size: int) -> Any:
    """Arrays [r, ...] as [parts, size, ...]; the last part is filled: ids and places with -1, all else with 0."""

    def cut(x: Array) -> Array:
        more = [(0, -x.shape[0] % size)] + [(0, 0)] * (x.ndim - 1)
        filled = jnp.pad(x, more, constant_values=-1 if x.dtype == jnp.int32 else 0)
        return filled.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _join(rows: int, x: Array) -> Array:
    """[parts, size, ...] as [rows, ...], without what filled the last part."""
    return x.reshape(-1, *x.shape[2:])[:rows]


def _no_sums(shape: tuple[int, ...], axis: Axis) -> Sums:
    zeros = _zeros(shape, axis)
    return Sums(zeros + EXCLUDED, zeros)


def _zeros(shape: tuple[int, ...], axis: Axis) -> Array:
    return jnp.broadcast_to(_varying(jnp.zeros((), jnp.float32), axis), shape)


def _varying(x: Float[Array, ""], axis: Axis) -> Float[Array, ""]:
    """The same number, for shard_map one that differs between devices, as loops and gradients of local rows want it."""
    return x if axis is None else x + (0 * jax.lax.axis_index(axis)).astype(x.dtype)


def _devices(axis: Axis) -> int:
    return 1 if axis is None else jax.lax.axis_size(axis)
