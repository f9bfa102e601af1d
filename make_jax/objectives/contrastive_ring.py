"""The ring implementation: a device holds one tile of logits, its own products and one remote block of products.

Each device keeps its queries. Product blocks rotate around the ring with everything that belongs to them (ids, keyword
bits, weights, running column statistics) and return to their device after N steps. At each ring step, tiles of `tile`
local queries are compared with the current block, and one tile of logits updates both its rows and its columns:

    m' = max(m, max_j S_ij),  s' = s exp(m - m') + sum_j term(S_ij, m'),  finally  finish(s, m)

Autodiff would keep every tile for the backward pass, and need more memory than the gather implementation. So the
gradient is computed by hand: the product blocks rotate a second time, with the final statistics and gradients of their
columns, and every tile is computed again. With d the derivative of the statistic (`loss_type.py`) and g_q, g_p the
cotangents of rows and columns, over negatives:

    G_ij = g_q(i) d(S_ij, by_query(i)) + g_p(j) d(S_ij, by_product(j))
    dq_i = scale sum_j G_ij p_j,    dp_j = scale sum_i G_ij q_i,    dscale = sum_i q_i . dq_i / scale

Online softmax: Milakov and Gimelshein, arXiv 1805.02867. Tiles with a hand-written gradient: Dao et al., arXiv
2205.14135. A ring for the contrastive loss: Cheng et al., arXiv 2410.17243. One tile for both directions and the
exclusion of false negatives are [ours].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from make_jax.objectives.false_negatives import EXCLUDED, ContrastiveInputs, cosines, false_negatives
from make_jax.objectives.loss_type import LossType, Statistic
from make_jax.objectives.row_statistics import Axis, LossInputs, RowStatistics


class Static(NamedTuple):
    """Compile-time settings."""

    loss_type: LossType
    tile: int
    axis: Axis


class QueryTile(NamedTuple):
    """A tile of local queries; rows that pad the last tile have no weight."""

    queries: ContrastiveInputs
    product_ids: Int[Array, "tile"]  # of the positives
    weighted: Bool[Array, "tile"]  # weight above 0
    row: Int[Array, "tile"]  # number of the local row


class RemoteBlock(NamedTuple):
    """The products of one device and what excludes pairs with them; constant while it rotates."""

    products: ContrastiveInputs
    query_ids: Int[Array, "b"]
    weighted: Bool[Array, "b"]


class Running(NamedTuple):
    """A running statistic of rows or columns; `maximum` is constant for statistics that are not stabilized."""

    maximum: Float[Array, "*n"]
    sum: Float[Array, "*n"]


class TileState(NamedTuple):
    """What is known of the rows of a query tile after some ring steps."""

    running: Running
    positive: Float[Array, "*n"]  # cosine of the positive
    is_wrong: Bool[Array, "*n"]  # a negative has a larger cosine, or an equal one in a lower column
    negatives: Int[Array, "*n"]


class Final(NamedTuple):
    """The final statistic of rows or columns, and its cotangent."""

    value: Float[Array, "*n"]
    cotangent: Float[Array, "*n"]


class PartialGradients(NamedTuple):
    """Gradients of the rows of a query tile after some ring steps, without the factor logit_scale."""

    queries: Float[Array, "*n D"]
    bias: Float[Array, "*n"]


def ring_statistics(loss_type: LossType, inputs: LossInputs, *, tile: int, axis: Axis) -> RowStatistics:
    """Returns the statistics of local rows in memory O(b D + tile b).

    Differentiable by scale, bias and the embeddings of queries and products.
    """
    # Varying copies, so that autodiff and not this file sums their gradients over the devices.
    scale, bias = (_varying(x, axis) for x in (inputs.logit_scale, inputs.logit_bias))
    return _statistics(Static(loss_type, tile, axis), inputs._replace(logit_scale=scale, logit_bias=bias))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _statistics(static: Static, inputs: LossInputs) -> RowStatistics:
    return _forward(static, inputs)[0]


def _forward(static: Static, inputs: LossInputs) -> tuple[RowStatistics, tuple[LossInputs, RowStatistics]]:
    """Forward pass: running column statistics rotate with the product block."""
    b, axis, statistic = inputs.weights.shape[0], static.axis, static.loss_type.statistic
    tiles = _query_tiles(static, inputs)

    def process_block(
        block: RemoteBlock, step: Array, columns: Running, tile_and_state: tuple[QueryTile, TileState]
    ) -> tuple[Running, TileState]:
        tile, state = tile_and_state
        dots, logits = _tile_logits(inputs, tile, block, step)
        # Padding rows read the cosine of another row; it is not used.
        diagonal = jnp.take_along_axis(dots, jnp.minimum(tile.row, b - 1)[:, None], axis=1)
        positive = jnp.where(step == 0, diagonal[:, 0], state.positive)
        negative = logits > EXCLUDED
        above = (dots > positive[:, None]) | ((dots == positive[:, None]) & _is_lower_column(tile, b, step, axis))
        return _accumulate(statistic, columns, logits, 0), TileState(
            _accumulate(statistic, state.running, logits, 1),
            positive,
            state.is_wrong | jnp.any(negative & above, axis=1),
            state.negatives + jnp.sum(negative, axis=1, dtype=jnp.int32),
        )

    zero = _zeros(tiles.row.shape, axis)
    start = TileState(_start(tiles.row.shape, axis), zero, zero > 0, zero.astype(jnp.int32))
    columns, states = _ring_scan(axis, process_block, _own_block(inputs), _start((b,), axis), tiles, start)
    running, _, is_wrong, negatives = jax.tree.map(partial(_merge_tiles, b), states)
    weighted = inputs.weights > 0
    others = jnp.sum(weighted, dtype=jnp.int32)
    others = (others if axis is None else jax.lax.psum(others, axis)) - 1
    masked = jnp.where(weighted, others - negatives, 0).astype(jnp.float32) / (b * _num_devices(axis))
    by_query, by_product = (statistic.finish(each.sum, each.maximum) for each in (running, columns))
    statistics = RowStatistics(by_query, by_product, ~is_wrong, masked)
    return statistics, (inputs, statistics)


def _backward(
    static: Static, residuals: tuple[LossInputs, RowStatistics], cotangents: RowStatistics
) -> tuple[LossInputs]:
    """Backward pass: final column statistics and the gradients of the products rotate with the product block."""
    inputs, statistics = residuals
    b, axis, queries, products = inputs.weights.shape[0], static.axis, inputs.queries, inputs.products
    tiles = _query_tiles(static, inputs)
    rows = _split_tiles(static, Final(statistics.by_query, cotangents.by_query))
    columns = Final(statistics.by_product, cotangents.by_product)

    def process_block(
        block: RemoteBlock,
        step: Array,
        moving: tuple[Final, Array],
        tile_and_state: tuple[tuple[QueryTile, Final], PartialGradients],
    ) -> tuple[tuple[Final, Array], PartialGradients]:
        (tile, row), gradients = tile_and_state
        columns, for_products = moving
        _, logits = _tile_logits(inputs, tile, block, step)
        for_logits = _logit_gradients(static.loss_type.statistic, logits, row, columns)
        narrow = for_logits.astype(queries.embeddings.dtype)
        for_queries = jnp.einsum("ij,jd->id", narrow, block.products.embeddings, preferred_element_type=jnp.float32)
        bias = gradients.bias + jnp.sum(for_logits, axis=1) if static.loss_type.uses_bias else gradients.bias
        for_products += jnp.einsum("ij,id->jd", narrow, tile.queries.embeddings, preferred_element_type=jnp.float32)
        return (columns, for_products), PartialGradients(gradients.queries + for_queries, bias)

    start = PartialGradients(_zeros(tiles.queries.embeddings.shape, axis), _zeros(tiles.row.shape, axis))
    moving = columns, _zeros(products.embeddings.shape, axis)
    (_, for_products), gradients = _ring_scan(axis, process_block, _own_block(inputs), moving, (tiles, rows), start)
    for_queries = _merge_tiles(b, gradients.queries)
    none: Any = None  # not differentiable
    result = LossInputs(
        logit_scale=jnp.sum(queries.embeddings.astype(jnp.float32) * for_queries),
        logit_bias=jnp.sum(gradients.bias),
        queries=ContrastiveInputs((inputs.logit_scale * for_queries).astype(queries.embeddings.dtype), none),
        products=ContrastiveInputs((inputs.logit_scale * for_products).astype(products.embeddings.dtype), none),
        weights=none,
    )
    return (result,)


_statistics.defvjp(_forward, _backward)


def _ring_scan(
    axis: Axis, process_block: Callable[..., Any], block: RemoteBlock, moving: Any, tiles: Any, states: Any
) -> Any:
    """Returns `moving` and `states` after every block, with its `moving`, has been processed on every device.

    `process_block(block, step, moving, (tile, state))` returns the new `moving` and `state` of one tile.
    """

    def ring_step(carry: tuple[RemoteBlock, Any, Any], step: Array) -> tuple[tuple[RemoteBlock, Any, Any], None]:
        block, moving, states = carry
        moving, states = jax.lax.scan(partial(process_block, block, step), moving, (tiles, states))
        return (*_rotate((block, moving), axis), states), None

    (_, moving, states), _ = jax.lax.scan(ring_step, (block, moving, states), jnp.arange(_num_devices(axis)))
    return moving, states


def _rotate(tree: Any, axis: Axis) -> Any:
    """Sends everything to the next device of the ring."""
    devices = _num_devices(axis)
    if axis is None or devices == 1:
        return tree
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, ring), tree)


def _tile_logits(
    inputs: LossInputs, tile: QueryTile, block: RemoteBlock, step: Array
) -> tuple[Float[Array, "tile b"], Float[Array, "tile b"]]:
    """Returns the cosines and logits of a tile; pairs that are no negatives, and the positive, are EXCLUDED."""
    positives = ContrastiveInputs(tile.queries.embeddings, tile.product_ids)
    excluded = false_negatives(tile.queries, positives, block.query_ids, block.products)
    excluded |= (step == 0) & (tile.row[:, None] == jnp.arange(block.weighted.shape[0])[None, :])
    excluded |= ~(tile.weighted[:, None] & block.weighted[None, :])
    dots = cosines(tile.queries.embeddings, block.products.embeddings)
    return dots, jnp.where(excluded, EXCLUDED, inputs.logit_scale * dots + inputs.logit_bias)


def _accumulate(statistic: Statistic, running: Running, logits: Float[Array, "tile m"], dimension: int) -> Running:
    """Adds a tile to a running statistic; `dimension` is reduced."""
    if not statistic.stabilized:
        return running._replace(sum=running.sum + jnp.sum(statistic.term(logits, logits), axis=dimension))
    maximum = jnp.maximum(running.maximum, jnp.max(logits, axis=dimension))
    new = jnp.sum(statistic.term(logits, jnp.expand_dims(maximum, dimension)), axis=dimension)
    return Running(maximum, running.sum * jnp.exp(running.maximum - maximum) + new)


def _logit_gradients(
    statistic: Statistic, logits: Float[Array, "tile m"], row: Final, column: Final
) -> Float[Array, "tile m"]:
    """Returns G of a tile."""
    if not statistic.stabilized:  # one derivative for both directions: it depends on the logit alone
        return (row.cotangent[:, None] + column.cotangent[None, :]) * statistic.derivative(logits, logits)
    by_row = row.cotangent[:, None] * statistic.derivative(logits, row.value[:, None])
    return by_row + column.cotangent[None, :] * statistic.derivative(logits, column.value[None, :])


def _is_lower_column(tile: QueryTile, b: int, step: Array, axis: Axis) -> Bool[Array, "tile b"]:
    """Where a column of the global matrix is lower than that of the row's positive."""
    own_block = jnp.arange(b)[None, :] < tile.row[:, None]
    if axis is None:
        return own_block
    return jnp.where(step == 0, own_block, step <= jax.lax.axis_index(axis))  # the block comes from `step` devices back


def _own_block(inputs: LossInputs) -> RemoteBlock:
    """The block that leaves this device."""
    return RemoteBlock(inputs.products, inputs.queries.ids, inputs.weights > 0)


def _query_tiles(static: Static, inputs: LossInputs) -> QueryTile:
    """Local queries in tiles [tiles, tile, ...]."""
    weighted = inputs.weights > 0
    tiles = QueryTile(inputs.queries, inputs.products.ids, weighted, jnp.arange(weighted.shape[0]))
    split: QueryTile = _split_tiles(static, tiles)
    return split


def _split_tiles(static: Static, tree: Any) -> Any:
    """Arrays [b, ...] as [tiles, tile, ...]; the last tile is padded: ids and row numbers by -1, all else by 0."""
    size = min(static.tile, jax.tree.leaves(tree)[0].shape[0])

    def split(x: Array) -> Array:
        padding = [(0, -x.shape[0] % size)] + [(0, 0)] * (x.ndim - 1)
        padded = jnp.pad(x, padding, constant_values=-1 if x.dtype == jnp.int32 else 0)
        return padded.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(split, tree)


def _merge_tiles(rows: int, x: Array) -> Array:
    """[tiles, tile, ...] as [rows, ...], without padding."""
    return x.reshape(-1, *x.shape[2:])[:rows]


def _start(shape: tuple[int, ...], axis: Axis) -> Running:
    zeros = _zeros(shape, axis)
    return Running(zeros + EXCLUDED, zeros)


def _zeros(shape: tuple[int, ...], axis: Axis) -> Array:
    return jnp.broadcast_to(_varying(jnp.zeros((), jnp.float32), axis), shape)


def _varying(x: Float[Array, ""], axis: Axis) -> Float[Array, ""]:
    """The same number as one that varies over devices for shard_map, as scan carries and local gradients require."""
    return x if axis is None else x + (0 * jax.lax.axis_index(axis)).astype(x.dtype)


def _num_devices(axis: Axis) -> int:
    return 1 if axis is None else jax.lax.axis_size(axis)
