"""Loss types of the contrastive loss: softmax, sigmoid, and what a new one defines.

A loss type never sees the matrix of logits. An implementation (gather or ring) accumulates one statistic over the
negatives of each query and of each product, tile by tile; the loss type then makes the loss of a pair from the logit of
its positive and the two statistics. A statistic has the form

    finish(sum_j term(S_ij, m), m)          m = max_j S_ij, which keeps exponentials finite

over the negatives j; m is computed only for statistics that are `stabilized`. `derivative` is needed because the ring
computes its gradient by hand.

    statistic       value over negatives        derivative by S_ij
    LOG_SUM_EXP     log sum_j exp(S_ij)         exp(S_ij - value)
    SOFTPLUS_SUM    sum_j log(1 + exp(S_ij))    sigmoid(S_ij)

Excluded pairs have the logit EXCLUDED, whose `term` must be 0 where another logit is finite. A row without negatives
has the statistic `finish` of EXCLUDED logits alone: about EXCLUDED, or 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Statistic(NamedTuple):
    """A reduction over the negatives of a row or of a column; all functions are elementwise."""

    term: Callable[[Array, Array], Array]  # (logit, maximum) -> what is summed over negatives
    finish: Callable[[Array, Array], Array]  # (sum, maximum) -> the statistic
    derivative: Callable[[Array, Array], Array]  # (logit, statistic) -> derivative of the statistic by the logit
    add: Callable[[Array, Array], Array]  # (statistic, logit) -> the statistic with one more negative
    stabilized: bool  # True: terms are exp(logit - maximum). False: maximum and statistic arguments are not used


class LossType(NamedTuple):
    """One contrastive loss."""

    statistic: Statistic
    # (positive [b], statistic over products [b], statistic over queries [b]) -> l_q(i) + l_p(i) of pair i, [b]
    pair_loss: Callable[[Float[Array, "b"], Float[Array, "b"], Float[Array, "b"]], Float[Array, "b"]]
    uses_bias: bool = False  # logits are S_ij + logit_bias


LOG_SUM_EXP = Statistic(
    term=lambda logit, maximum: jnp.exp(logit - maximum),
    finish=lambda total, maximum: maximum + jnp.log(total),
    derivative=lambda logit, statistic: jnp.exp(logit - statistic),
    add=jnp.logaddexp,
    stabilized=True,
)

SOFTPLUS_SUM = Statistic(
    term=lambda logit, _: jax.nn.softplus(logit),
    finish=lambda total, _: total,
    derivative=lambda logit, _: jax.nn.sigmoid(logit),
    add=lambda statistic, logit: statistic + jax.nn.softplus(logit),
    stabilized=False,
)


def _softmax(positive: Float[Array, "b"], by_query: Float[Array, "b"], by_product: Float[Array, "b"]) -> Array:
    # log(exp(positive) + exp(negatives)) - positive = softplus(negatives - positive)
    return jax.nn.softplus(by_query - positive) + jax.nn.softplus(by_product - positive)


def _sigmoid(positive: Float[Array, "b"], by_query: Float[Array, "b"], by_product: Float[Array, "b"]) -> Array:
    return by_query + by_product + 2.0 * jax.nn.softplus(-positive)


SOFTMAX = LossType(LOG_SUM_EXP, _softmax)
SIGMOID = LossType(SOFTPLUS_SUM, _sigmoid, uses_bias=True)
