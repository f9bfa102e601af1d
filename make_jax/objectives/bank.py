"""The memory bank: product vectors of the last steps, as negatives that cost no encoding [sister; Wang et al., arXiv
1912.06798].

Vectors [S, B, E] of the last S steps, without gradient, with the ids and keywords that tell false negatives. Axis 1 is
split over the devices as the batch is: each device writes what it encoded itself, and any number of devices reads it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from make_jax.objectives.pairs import Rows


class Bank(NamedTuple):
    """What is remembered of S steps."""

    vectors: Float[Array, "S B E"]
    ids: Int[Array, "S B"]  # of products; -1: nothing yet
    keywords: UInt32[Array, "S B words"]

    def rows(self) -> Rows:
        """All of it as rows of the contrastive loss."""
        return Rows(*(x.reshape(-1, *x.shape[2:]) for x in self))


def empty(steps: int, batch: int, width: int, words: int) -> Bank:
    """A bank that remembers nothing yet."""
    return Bank(
        jnp.zeros((steps, batch, width), jnp.float32),
        jnp.full((steps, batch), -1, jnp.int32),
        jnp.zeros((steps, batch, words), jnp.uint32),
    )


def remember(bank: Bank, products: Rows, weights: Float[Array, "B"], step: Int[Array, ""]) -> Bank:
    """The bank with the products of this step in place of the oldest; rows of weight 0 are not remembered."""
    assert products.keywords is not None
    new = Bank(products.vectors, jnp.where(weights > 0, products.ids, -1), products.keywords)
    place = step % bank.ids.shape[0]
    return jax.tree.map(
        lambda old, rows: jax.lax.dynamic_update_index_in_dim(
            old, jax.lax.stop_gradient(rows).astype(old.dtype), place, 0
        ),
        bank,
        new,
    )
