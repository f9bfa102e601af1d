"""A uint32 fingerprint of all batches a run has read: equal fingerprints mean the same examples in the same order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt32

from make_jax.runs.mesh import replicated_sharding

Fingerprint = UInt32[Array, ""]
# Odd multipliers with well-mixed bits (xxHash, MurmurHash3).
_QUERY_FACTOR, _PRODUCT_FACTOR, _MIX_FACTOR = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_FNV_PRIME = np.uint32(0x01000193)


def make_fingerprint_update(mesh: Mesh) -> Callable[[Fingerprint, dict[str, jax.Array]], Fingerprint]:
    """Returns the compiled function (fingerprint, global batch) -> fingerprint including that batch [ours].

    The result does not depend on the number of devices or processes.
    """

    def update(fingerprint: Fingerprint, query_id: Int[Array, "B"], product_id: Int[Array, "B"]) -> Fingerprint:
        rows = query_id.astype(jnp.uint32) * _QUERY_FACTOR + product_id.astype(jnp.uint32) * _PRODUCT_FACTOR
        mixed = (rows ^ (rows >> 15)) * _MIX_FACTOR
        row_factors = 2 * jnp.arange(len(rows), dtype=jnp.uint32) + 1  # odd, so that no bit of a row is lost
        total = jnp.sum((mixed ^ (mixed >> 13)) * row_factors, dtype=jnp.uint32)
        return (fingerprint ^ total) * _FNV_PRIME + np.uint32(1)

    compiled = jax.jit(update, out_shardings=replicated_sharding(mesh))
    return lambda fingerprint, batch: compiled(fingerprint, batch["query_id"], batch["product_id"])
