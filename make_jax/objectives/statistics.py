"""What both forms of the contrastive loss tell of local rows."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float

Axis = str | tuple[str, ...] | None


class Statistics(NamedTuple):
    """Of local queries and local products, over all columns and all rows of the whole matrix."""

    by_query: Float[Array, "b"]  # softmax: log of the denominator, sigmoid: sum of the pairs' losses; bank included
    by_product: Float[Array, "b"]  # the same, without swaps
    own: Float[Array, "b"]  # cosine of the positive
    best: Bool[Array, "b"]  # the positive has the largest cosine of those kept; of equal ones the first counts
    masked: Float[Array, "b"]  # share of the other rows that are no negatives of the query
