"""Weighted means over rows that are never in one place: micro-batches and devices add up sums, division comes last.

    mean = sum_parts total / sum_parts weight,    total = sum_i w_i x_i,  weight = sum_i w_i

Dividing in each part and averaging afterwards would weigh the rows of a part that has little weight too much.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Mean(NamedTuple):
    """What parts of a weighted mean add up; trees of them may be summed leaf by leaf."""

    total: Float[Array, "*parts"]
    weight: Float[Array, "*parts"]

    @property
    def value(self) -> Float[Array, "*parts"]:
        """The mean; 0 where all weights are."""
        return self.total / jnp.maximum(self.weight, 1e-30)


def mean(values: Float[Array, "*n"], weights: Float[Array, "*n"]) -> Mean:
    """The weighted mean of all values, not divided yet."""
    return Mean(jnp.sum(weights * values), jnp.sum(weights))
