"""Exact GELU: x Phi(x), Phi the normal distribution function (Hendrycks & Gimpel, arXiv 1606.08415).

Like Flax's, but with a custom derivative of erfc: JAX 0.12 cannot differentiate erfc inside `shard_map`, because its
rule mixes values that vary over devices with values that do not. Replace this file by `nn.gelu(x, approximate=False)`
when every supported JAX version can.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `nn.gelu(x, approximate=False)`, with the same value and derivative."""
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
