"""Which examples a run has read, as one number: runs that tell the same have read the same, in the same order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt32

from make_jax.runs.mesh import replicated_sharding

Seen = UInt32[Array, ""]
_A, _B, _C = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)  # odd, their bits well mixed


def make_fold(mesh: Mesh) -> Callable[[Seen, dict[str, jax.Array]], Seen]:
    """The compiled (number, global batch) -> number after it, the same on any count of devices and processes."""

    def fold(seen: Seen, query_id: Int[Array, "B"], product_id: Int[Array, "B"]) -> Seen:
        rows = query_id.astype(jnp.uint32) * _A + product_id.astype(jnp.uint32) * _B
        mixed = (rows ^ (rows >> 15)) * _C
        places = 2 * jnp.arange(len(rows), dtype=jnp.uint32) + 1  # odd, so that no bit of a row is lost
        total = jnp.sum((mixed ^ (mixed >> 13)) * places, dtype=jnp.uint32)
        return (seen ^ total) * np.uint32(0x01000193) + np.uint32(1)

    compiled = jax.jit(fold, out_shardings=replicated_sharding(mesh))
    return lambda seen, batch: compiled(seen, batch["query_id"], batch["product_id"])
