"""Exact GELU with its derivative written out (Hendrycks & Gimpel, arXiv 1606.08415).

JAX 0.12 cannot differentiate erf or erfc inside `shard_map`: its rule mixes values that vary over devices with values
that do not. Delete this file for `nn.gelu(x, approximate=False)` when every JAX that is supported can.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


@jax.custom_jvp
def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x Phi(x), Phi the distribution function of the normal distribution."""
    return nn.gelu(x, approximate=False)


@exact_gelu.defjvp
def _derivative(
    primals: tuple[Float[Array, "..."]], tangents: tuple[Float[Array, "..."]]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    (x,), (tangent,) = primals, tangents
    distribution = 0.5 * jax.lax.erfc(-x * math.sqrt(0.5))
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return exact_gelu(x), (distribution + x * density) * tangent
