"""Rows of vectors that face each other, and which of the pairs are no negatives [ours].

Pair (i, j), i != j, is no negative when query ids are equal, product ids are equal, or product j has all of the
keywords of query i, which has some: K(q_i) is not empty and a subset of K(p_j). Id -1 is absent and equals nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

EXCLUDED = -1e30  # the logit of a pair that stands in no denominator: finite, so that differences of two are 0, not nan


class ContrastiveInputs(NamedTuple):
    """Vectors with what tells which pairs are no negatives."""

    embeddings: Float[Array, "r D"]
    ids: Int[Array, "r"]  # -1: absent, equal to nothing
    keywords: UInt32[Array, "r words"] | None = None  # bit k % 32 of word k // 32 is keyword k; None: nothing is known


def false_negatives(
    queries: ContrastiveInputs, products: ContrastiveInputs, query_ids: Int[Array, "m"], others: ContrastiveInputs
) -> Bool[Array, "b m"]:
    """Where product j of `others` is no negative of query i, by ids and keywords; the diagonal is told by ids alone.

    Row i of `products` is the positive of query i, row j of `others` that of the query with id `query_ids[j]`.
    """
    return equal(queries.ids, query_ids) | equal(products.ids, others.ids) | has_query_keywords(queries, others)


def has_query_keywords(queries: ContrastiveInputs, products: ContrastiveInputs) -> Bool[Array, "b m"]:
    """Where a product has all keywords of a query that has some. No array [b, m, words].

    A loop over the words of bits in which a query has a keyword, as many as the query has that fills most: queries
    are short, so these are two or three where the vocabulary has dozens.
    """
    shape = (queries.ids.shape[0], products.ids.shape[0])
    if queries.keywords is None or products.keywords is None:
        return jnp.zeros(shape, bool)
    lacked = ~products.keywords.T  # words of one number side by side, which is faster to read
    asked = queries.keywords

    def narrow(left: tuple[UInt32[Array, "b words"], Bool[Array, "b m"]]) -> tuple[Array, Array]:
        untold, inside = left
        word = jnp.argmax(untold != 0, axis=1)  # the first that has a keyword; word 0, which is 0 then, if none has
        missing = jnp.take_along_axis(untold, word[:, None], axis=1) & jnp.take(lacked, word, axis=0)
        told = jnp.arange(untold.shape[1])[None, :] == word[:, None]
        return jnp.where(told, jnp.uint32(0), untold), inside & (missing == 0)

    some = jnp.any(asked != 0, axis=1)[:, None]
    _, inside = jax.lax.while_loop(lambda left: jnp.any(left[0] != 0), narrow, (asked, jnp.broadcast_to(some, shape)))
    return inside


def equal(mine: Int[Array, "b"], others: Int[Array, "m"]) -> Bool[Array, "b m"]:
    """Where ids are equal and not absent."""
    return (mine[:, None] == others[None, :]) & (mine >= 0)[:, None]


def cosines(mine: Float[Array, "b D"], others: Float[Array, "m D"]) -> Float[Array, "b m"]:
    """Products of all vectors with all, accumulated in f32."""
    return jnp.einsum("id,jd->ij", mine, others, preferred_element_type=jnp.float32)
