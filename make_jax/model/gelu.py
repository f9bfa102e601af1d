"""Exact GELU: x Phi(x), Phi the normal distribution function (Hendrycks & Gimpel, arXiv 1606.08415).

As Flax has it, but the derivative of erfc is written out: JAX 0.12 cannot differentiate it inside `shard_map`, where
its rule mixes values that vary over devices with values that do not. Delete this file for
`nn.gelu(x, approximate=False)` when every JAX that is supported can.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """What `nn.gelu(x, approximate=False)` gives, in value and derivative."""
    return 0.5 * x * _erfc(-x * math.sqrt(0.5))


@jax.custom_jvp
def _erfc(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.erfc(x)


@_erfc.defjvp
def _derivative(
    primals: tuple[Float[Array, "..."]], tangents: tuple[Float[Array, "..."]]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    (x,), (tangent,) = primals, tangents
    return _erfc(x), tangent * (-2 / math.sqrt(math.pi) * jnp.exp(-jnp.square(x)))
