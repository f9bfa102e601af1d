"""Rows of the contrastive loss, and which pairs are false negatives [ours].

Pair (i, j), i != j, is a false negative when query ids are equal, product ids are equal, or product j has all of the
keywords of query i, which has some: K(q_i) is not empty and a subset of K(p_j). Id -1 is absent and equals nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

# Logit of an excluded pair. Finite, so that the difference of two is 0 and not nan.
EXCLUDED = -1e30


class ContrastiveInputs(NamedTuple):
    """Embeddings of queries or products, with the ids and keywords that decide which pairs are false negatives."""

    embeddings: Float[Array, "r D"]
    ids: Int[Array, "r"]  # -1: absent, equal to nothing
    keywords: UInt32[Array, "r words"] | None = None  # bit k % 32 of word k // 32 is keyword k; None: not used


def false_negatives(
    queries: ContrastiveInputs,
    products: ContrastiveInputs,
    other_query_ids: Int[Array, "m"],
    other_products: ContrastiveInputs,
) -> Bool[Array, "b m"]:
    """Returns where product j of `other_products` is a false negative of query i; the caller excludes the diagonal.

    Row i of `products` is the positive of query i, row j of `other_products` that of query `other_query_ids[j]`.
    """
    same_query = _equal_ids(queries.ids, other_query_ids)
    same_product = _equal_ids(products.ids, other_products.ids)
    return same_query | same_product | has_query_keywords(queries, other_products)


def has_query_keywords(queries: ContrastiveInputs, products: ContrastiveInputs) -> Bool[Array, "b m"]:
    """Returns where a product has all keywords of a query that has some; makes no array [b, m, words].

    Loops over the words of bits in which a query has a keyword, as many times as the query with the most such words
    needs: queries are short, so two or three times where the vocabulary has dozens of words.
    """
    shape = (queries.ids.shape[0], products.ids.shape[0])
    if queries.keywords is None or products.keywords is None:
        return jnp.zeros(shape, bool)
    lacked = ~products.keywords.T  # one row per word: contiguous reads

    def check_next_word(state: tuple[UInt32[Array, "b words"], Bool[Array, "b m"]]) -> tuple[Array, Array]:
        unchecked, is_subset = state
        word = jnp.argmax(unchecked != 0, axis=1)  # the first with a keyword; word 0, which is 0 then, if there is none
        missing = jnp.take_along_axis(unchecked, word[:, None], axis=1) & jnp.take(lacked, word, axis=0)
        checked = jnp.arange(unchecked.shape[1])[None, :] == word[:, None]
        return jnp.where(checked, jnp.uint32(0), unchecked), is_subset & (missing == 0)

    not_empty = jnp.broadcast_to(jnp.any(queries.keywords != 0, axis=1)[:, None], shape)
    _, is_subset = jax.lax.while_loop(
        lambda state: jnp.any(state[0] != 0), check_next_word, (queries.keywords, not_empty)
    )
    return is_subset


def cosines(left: Float[Array, "b D"], right: Float[Array, "m D"]) -> Float[Array, "b m"]:
    """Returns all inner products, accumulated in float32."""
    return jnp.einsum("id,jd->ij", left, right, preferred_element_type=jnp.float32)


def _equal_ids(left: Int[Array, "b"], right: Int[Array, "m"]) -> Bool[Array, "b m"]:
    return (left[:, None] == right[None, :]) & (left >= 0)[:, None]
