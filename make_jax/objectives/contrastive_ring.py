"""The ring form: no device ever holds more than a tile of logits, or more products than its own and a neighbour's.

Each device keeps its queries. Its products start a journey around the ring with all that belongs to them (ids, keyword
bits, weights, the running maximum and sum of their columns), and are home again after N hops. At each stop, tiles of
`tile` local queries meet the visiting products, and one tile of logits feeds both its rows and its columns:

    m' = max(m, max_j S_ij),  s' = s exp(m - m') + sum_j exp(S_ij - m'),  at last  log sum_j exp(S_ij) = m + log s

A scan that autodiff goes through would keep every tile for the way back, and need more memory than no ring at all. So
the derivative is written by hand: a second journey, on which the products take along their final columns' statistics
and their gradient, and every tile is computed again. With g_q, g_p the cotangents of rows and columns:

    softmax   G_ij = E_ij (g_q(i) exp(S_ij - lse_q(i)) + g_p(j) exp(S_ij - lse_p(j)))
    sigmoid   G_ij = E_ij (g_q(i) + g_p(j)) (sigmoid(S_ij + bias) - [i = j])
    dq_i = scale sum_j G_ij p_j,   dp_j = scale sum_i G_ij q_i,   dscale = sum_ij G_ij (q_i . p_j - margin [i = j])

Online statistics of a softmax are Milakov and Gimelshein's (arXiv 1805.02867); tiles with a hand-written derivative as
in FlashAttention (Dao et al., arXiv 2205.14135); one journey around a ring as in Inf-CL (Cheng et al., arXiv
2410.17243), which neither masks pairs nor subtracts a maximum. That one tile serves both directions is [ours].
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from make_jax.objectives.pairs import EXCLUDED, Rows, answered, cosines, equal, false_negatives
from make_jax.objectives.statistics import Axis, Statistics


class Setting(NamedTuple):
    """What is known when the program is compiled."""

    kind: Literal["softmax", "sigmoid"]
    margin: float
    tile: int
    axis: Axis


class Anchors(NamedTuple):
    """A tile of local queries with their positives' ids. Rows that only fill the last tile have weight 0."""

    queries: Rows
    product_ids: Int[Array, "tile"]
    live: Bool[Array, "tile"]  # weight above 0
    place: Int[Array, "tile"]  # number of the local row


class Block(NamedTuple):
    """What travels: the products of one device, and what tells which of them are no negatives."""

    products: Rows
    query_ids: Int[Array, "b"]
    live: Bool[Array, "b"]


class Sums(NamedTuple):
    """Running statistics of rows or of columns; the softmax has a maximum, the sigmoid needs none."""

    top: Float[Array, "n"]
    sum: Float[Array, "n"]


class Guests(NamedTuple):
    block: Block
    bank: Rows | None  # in chunks


class Side(NamedTuple):
    value: Any
    cotangent: Any


class Gradients(NamedTuple):
    queries: Any
    scale: Any
    offset: Any


class Local(NamedTuple):
    """What a tile's rows have found so far."""

    sums: Sums
    own: Float[Array, "tile"]  # cosine of the positive
    beaten: Bool[Array, "tile"]  # by a larger cosine, or by an equal one of a lower column
    kept: Int[Array, "tile"]  # columns in the denominator


class Pairs(NamedTuple):
    """One tile of the matrix."""

    cosines: Float[Array, "tile b"]
    positive: Bool[Array, "tile b"]
    kept: Bool[Array, "tile b"]
    logits: Float[Array, "tile b"]  # EXCLUDED where not kept


def ring_statistics(
    setting: Setting,
    scale: Float[Array, ""],
    offset: Float[Array, ""],
    queries: Rows,
    products: Rows,
    weights: Float[Array, "b"],
    bank: Rows | None,
) -> Statistics:
    """What `contrastive_gather.gather_statistics` gives, of local rows, in memory O(b D + tile b)."""
    # Varying copies, so that autodiff, not this file, sums their gradients over the devices.
    scale, offset = _varying(scale, setting.axis), _varying(offset, setting.axis)
    return _ring(setting, scale, offset, queries, products, weights, bank)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(setting: Setting, scale: Any, offset: Any, queries: Rows, products: Rows, weights: Any, bank: Any) -> Any:
    return _ring_forward(setting, scale, offset, queries, products, weights, bank)[0]


def _ring_forward(
    setting: Setting, scale: Any, offset: Any, queries: Rows, products: Rows, weights: Any, bank: Any
) -> Any:
    """The first journey, with which statistics of the columns travel."""
    b, axis = weights.shape[0], setting.axis
    anchors = _tiles(setting, queries, products, weights)
    zero = _varying(jnp.zeros(anchors.place.shape, jnp.int32), axis)
    local = Local(_no_sums(zero), zero.astype(jnp.float32), zero > 0, zero)

    def meet(guests: Guests, hops: Array, columns: Sums, tile: tuple[Anchors, Local]) -> tuple[Sums, Local]:
        anchors, local = tile
        pairs = _pairs(setting, scale, offset, anchors, guests.block, hops == 0)
        diagonal = jnp.sum(jnp.where(pairs.positive, pairs.cosines, 0.0), axis=1)
        own = jnp.where(hops == 0, diagonal, local.own)
        sums = _over(guests.bank, local.sums, lambda sums, chunk: _add(
            setting, sums, _bank_pairs(scale, offset, anchors, chunk), 1))
        above = pairs.cosines > own[:, None]
        above |= (pairs.cosines == own[:, None]) & _lower(anchors.place, b, hops, axis)
        return _add(setting, columns, pairs, 0), Local(
            _add(setting, sums, pairs, 1),
            own,
            local.beaten | jnp.any(pairs.kept & above, axis=1),
            local.kept + jnp.sum(pairs.kept, axis=1, dtype=jnp.int32),
        )

    columns = _no_sums(_varying(jnp.zeros(b, jnp.int32), axis))
    columns, local = _journey(axis, meet, _guests(queries, products, weights, bank), columns, anchors, local)
    sums, own, beaten, kept = jax.tree.map(lambda x: _joined(x, b), local)
    by_query, by_product = _value(setting, sums), _value(setting, columns)
    live = weights > 0
    lives = jnp.sum(live, dtype=jnp.int32)
    lives = lives if axis is None else jax.lax.psum(lives, axis)
    masked = jnp.where(live, lives - kept, 0).astype(jnp.float32) / (b * _devices(axis))
    found = Statistics(by_query, by_product, own, ~beaten, masked)
    return found, ((scale, offset, queries, products, weights, bank), by_query, by_product)


def _ring_backward(setting: Setting, kept: Any, cotangents: Statistics) -> Any:
    """The second journey, with which the products' gradients travel."""
    (scale, offset, queries, products, weights, bank), by_query, by_product = kept
    b, axis, dtype = weights.shape[0], setting.axis, queries.vectors.dtype
    anchors = _tiles(setting, queries, products, weights)
    rows = _split(setting, (Side(by_query, cotangents.by_query), cotangents.own))
    columns = Side(by_product, cotangents.by_product)

    def meet(guests: Any, hops: Array, moving: Any, tile: Any) -> Any:
        (anchors, (row, own)), local = tile
        column, for_products = moving
        pairs = _pairs(setting, scale, offset, anchors, guests.block, hops == 0)
        slopes = _slopes(setting, pairs, row, column)
        margined = pairs.cosines - setting.margin * pairs.positive.astype(jnp.float32)
        local = local._replace(
            scale=local.scale + jnp.sum(slopes * margined), offset=local.offset + jnp.sum(slopes)
        )
        slopes = (scale * slopes + jnp.where(pairs.positive, own[:, None], 0.0)).astype(dtype)
        local = local._replace(queries=local.queries + _dot("ij,jd->id", slopes, guests.block.products.vectors))
        for_products += _dot("ij,id->jd", slopes, anchors.queries.vectors)

        def meet_bank(local: Gradients, chunk: Rows) -> Gradients:
            pairs = _bank_pairs(scale, offset, anchors, chunk)
            slopes = _slopes(setting, pairs, row, None)
            return Gradients(
                local.queries + _dot("ij,jd->id", (scale * slopes).astype(dtype), chunk.vectors),
                local.scale + jnp.sum(slopes * pairs.cosines),
                local.offset + jnp.sum(slopes),
            )

        return (column, for_products), _over(guests.bank, local, meet_bank)

    zeros = [jnp.zeros(x, jnp.float32) for x in (anchors.queries.vectors.shape, anchors.place.shape[:1])]
    zeros = [_varying(x, axis) for x in zeros]
    for_products = _varying(jnp.zeros(products.vectors.shape, jnp.float32), axis)
    (_, for_products), local = _journey(
        axis, meet, _guests(queries, products, weights, bank), (columns, for_products), (anchors, rows),
        Gradients(zeros[0], zeros[1], zeros[1]),
    )
    for_queries = _joined(local.queries, b)
    return (
        jnp.sum(local.scale), jnp.sum(local.offset),
        Rows(for_queries.astype(dtype), None, None), Rows(for_products.astype(products.vectors.dtype), None, None),
        None, None,
    )


_ring.defvjp(_ring_forward, _ring_backward)


def _journey(axis, meet, guests, moving, anchors, local):
    """Takes `guests` and `moving` around the ring."""

    def stop(carry, hops):
        guests, moving, local = carry
        moving, local = jax.lax.scan(partial(meet, guests, hops), moving, (anchors, local))
        return (*_hop((guests, moving), axis), local), None

    (_, moving, local), _ = jax.lax.scan(stop, (guests, moving, local), jnp.arange(_devices(axis)))
    return moving, local


def _hop(tree, axis):
    if _devices(axis) == 1:
        return tree
    ring = [(i, (i + 1) % _devices(axis)) for i in range(_devices(axis))]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, ring), tree)


def _devices(axis):
    return 1 if axis is None else jax.lax.axis_size(axis)


def _varying(x, axis):
    return x if axis is None else x + (0 * jax.lax.axis_index(axis)).astype(x.dtype)


def _no_sums(zero):
    return Sums(zero + jnp.float32(EXCLUDED), zero.astype(jnp.float32))


def _guests(queries, products, weights, bank):
    chunks = None
    if bank is not None:
        size = max(1, min(bank.ids.shape[0], weights.shape[0]))
        chunks = _chunks(bank, size)
    return Guests(Block(products, queries.ids, weights > 0), chunks)


def _chunks(rows, size):
    return jax.tree.map(partial(_cut, size), rows._replace(ids=rows.ids + 1))._replace(ids=_cut(size, rows.ids + 1) - 1)


def _cut(size, x):
    more = -x.shape[0] % size
    x = jnp.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, size, *x.shape[1:])


def _split(setting, tree):
    rows = jax.tree.leaves(tree)[0].shape[0]
    return jax.tree.map(partial(_cut, min(setting.tile, rows)), tree)


def _joined(x, b):
    return x.reshape(-1, *x.shape[2:])[:b]


def _tiles(setting, queries, products, weights):
    anchors = Anchors(queries, products.ids, weights > 0, jnp.arange(weights.shape[0]) + 1)
    anchors = _split(setting, anchors)
    return anchors._replace(place=anchors.place - 1)


def _lower(place, b, hops, axis):
    columns = jnp.arange(b)[None, :]
    home = columns < place[:, None]
    if axis is None:
        return home
    return jnp.where(hops == 0, home, hops <= jax.lax.axis_index(axis))


def _pairs(setting, scale, offset, anchors, block, home):
    positive = home & (anchors.place[:, None] == jnp.arange(block.live.shape[0])[None, :])
    mine = Rows(anchors.queries.vectors, anchors.product_ids)
    false = false_negatives(anchors.queries, mine, block.query_ids, block.products)
    kept = positive | (anchors.live[:, None] & block.live[None, :] & ~false)
    dots = cosines(anchors.queries.vectors, block.products.vectors)
    logits = scale * (dots - setting.margin * positive.astype(jnp.float32)) + offset
    return Pairs(dots, positive, kept, jnp.where(kept, logits, EXCLUDED))


def _bank_pairs(scale, offset, anchors, chunk):
    false = equal(anchors.product_ids, chunk.ids) | answered(anchors.queries, chunk)
    kept = anchors.live[:, None] & (chunk.ids >= 0)[None, :] & ~false
    dots = cosines(anchors.queries.vectors, chunk.vectors)
    return Pairs(dots, jnp.zeros_like(kept), kept, jnp.where(kept, scale * dots + offset, EXCLUDED))


def _add(setting, sums, pairs, axis):
    if setting.kind == "sigmoid":
        losses = -jax.nn.log_sigmoid(jnp.where(pairs.positive, pairs.logits, -pairs.logits))
        return sums._replace(sum=sums.sum + jnp.sum(jnp.where(pairs.kept, losses, 0.0), axis=axis))
    top = jnp.maximum(sums.top, jnp.max(pairs.logits, axis=axis))
    new = jnp.sum(jnp.exp(pairs.logits - jnp.expand_dims(top, axis)), axis=axis)
    return Sums(top, sums.sum * jnp.exp(sums.top - top) + new)


def _value(setting, sums):
    return sums.sum if setting.kind == "sigmoid" else jnp.log(sums.sum) + sums.top


def _slopes(setting, pairs, row, column):
    if setting.kind == "sigmoid":
        both = row.cotangent[:, None] + (0.0 if column is None else column.cotangent[None, :])
        return jnp.where(pairs.kept, both * (jax.nn.sigmoid(pairs.logits) - pairs.positive.astype(jnp.float32)), 0.0)
    slopes = row.cotangent[:, None] * jnp.exp(pairs.logits - row.value[:, None])
    if column is not None:
        slopes += column.cotangent[None, :] * jnp.exp(pairs.logits - column.value[None, :])
    return slopes


def _over(chunks, carry, function):
    if chunks is None:
        return carry
    return jax.lax.scan(lambda carry, chunk: (function(carry, chunk), None), carry, chunks)[0]


def _dot(what, x, y):
    return jnp.einsum(what, x, y, preferred_element_type=jnp.float32)
