"""What both forms of the contrastive loss tell of local rows, and where it is summed."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float

Axis = str | tuple[str, ...] | None  # names of mesh axes; None: one device


class Statistics(NamedTuple):
    """Of local queries against all negatives of the global batch, and of local products likewise.

    The positive stands in none of the sums: the loss adds it.
    """

    by_query: Float[Array, "b"]  # softmax: log sum_j E_ij exp(S_ij), EXCLUDED of none; sigmoid: sum_j E_ij L_ij
    by_product: Float[Array, "b"]
    best: Bool[Array, "b"]  # no negative has a larger cosine than the positive; of equal ones the first counts
    masked: Float[Array, "b"]  # share of the other rows that are no negatives of the query
