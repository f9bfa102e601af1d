"""Input and output of the implementations of the contrastive loss."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float

from make_jax.objectives.false_negatives import ContrastiveInputs

Axis = str | tuple[str, ...] | None  # names of mesh axes; None: one device


class LossInputs(NamedTuple):
    """Local rows of the contrastive loss; logits are logit_scale * cosine + logit_bias."""

    logit_scale: Float[Array, ""]
    logit_bias: Float[Array, ""]  # 0 for loss types without one
    queries: ContrastiveInputs
    products: ContrastiveInputs
    weights: Float[Array, "b"]


class RowStatistics(NamedTuple):
    """Statistics of local queries and local products over their negatives in the global batch.

    No positive is part of them: the loss type adds it.
    """

    by_query: Float[Array, "b"]  # over products
    by_product: Float[Array, "b"]  # over queries
    is_correct: Bool[Array, "b"]  # the positive has the largest cosine; among equal ones the first column counts
    masked: Float[Array, "b"]  # share of the other rows that are false negatives of the query
