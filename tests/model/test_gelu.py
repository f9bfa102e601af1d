"""Exact GELU: value and derivative, alone and on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from make_jax.model.gelu import exact_gelu


@pytest.mark.parametrize(("dtype", "rounding"), [(jnp.float32, 3e-7), (jnp.bfloat16, 2**-7)])
def test_value_and_derivative_are_those_of_flax(dtype: jnp.dtype, rounding: float) -> None:
    x = jnp.linspace(-12, 12, 4001, dtype=dtype)
    np.testing.assert_array_equal(exact_gelu(x), nn.gelu(x, approximate=False))
    ours = jax.grad(lambda x: exact_gelu(x).sum())(x)
    reference = jax.grad(lambda x: nn.gelu(x, approximate=False).sum())(x)
    assert ours.dtype == dtype
    np.testing.assert_allclose(np.float32(ours), np.float32(reference), rtol=0, atol=rounding)


def test_rows_on_several_devices_have_the_same_derivative() -> None:
    x = jnp.linspace(-3, 3, 64).reshape(8, 8)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    rows = PartitionSpec("data")
    split = jax.shard_map(jax.grad(lambda x: exact_gelu(x).sum()), mesh=mesh, in_specs=rows, out_specs=rows)
    np.testing.assert_allclose(jax.jit(split)(x), jax.grad(lambda x: exact_gelu(x).sum())(x), rtol=0, atol=3e-7)
