"""Exact GELU with its derivative written out (Hendrycks & Gimpel, arXiv 1606.08415).

JAX 0.12 cannot differentiate erf or erfc inside `shard_map`: its rule mixes values that vary over devices with values
that do not. Delete this file for `nn.gelu(x, approximate=False)` when every JAX that is supported can.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def exact_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x Phi(x), Phi the distribution function of the normal distribution."""
    return _written_out(x) if jax.__version_info__ >= (0, 12) else nn.gelu(x, approximate=False)


@jax.custom_jvp
def _written_out(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return nn.gelu(x, approximate=False)


@_written_out.defjvp
def _derivative(
    primals: tuple[Float[Array, "..."]], tangents: tuple[Float[Array, "..."]]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    (x,), (tangent,) = primals, tangents
    exact = x.astype(jnp.float32)  # fused with its neighbours: costs no memory, and bfloat16 would lose half its digits
    distribution = 0.5 * jax.lax.erfc(-exact * math.sqrt(0.5))
    density = jnp.exp(-0.5 * exact * exact) / math.sqrt(2 * math.pi)
    return _written_out(x), (distribution + exact * density).astype(x.dtype) * tangent
