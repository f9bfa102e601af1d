"""Weighted means as pairs of sums, so that micro-batches and devices can add them up and divide once, at the end.

    mean = sum_parts total / sum_parts weight,    total = sum_i w_i x_i,  weight = sum_i w_i

A mean of the means of the parts would overweight the rows of parts with little weight.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class WeightedMean(NamedTuple):
    """What parts of a weighted weighted_mean add up; trees of them may be summed leaf by leaf."""

    total: Float[Array, "*parts"]
    weight: Float[Array, "*parts"]

    @property
    def value(self) -> Float[Array, "*parts"]:
        """The weighted_mean; 0 where all weights are."""
        return self.total / jnp.maximum(self.weight, 1e-30)


def weighted_mean(values: Float[Array, "*n"], weights: Float[Array, "*n"]) -> WeightedMean:
    """The weighted weighted_mean of all values, not divided yet."""
    return WeightedMean(jnp.sum(weights * values), jnp.sum(weights))
