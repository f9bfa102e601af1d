from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from make_jax.planning.flops import count_flops, step_flops
from make_jax.planning.hardware import CHIPS
from make_jax.runs.mesh import BATCH_AXES, make_mesh
from tests.model.test_attention import pretend_cudnn

X, W = jnp.ones((16, 32)), jnp.ones((32, 32))
ONE = 2 * 16 * 32 * 32  # FLOPs of X @ W


def scanned(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ w), None), x, length=5)[0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(lambda x, w: x @ w, ONE, id="product"),
        pytest.param(scanned, 5 * ONE, id="scan"),
        pytest.param(lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: (x @ w) @ w, lambda: x @ w), 2 * ONE, id="cond"),
        pytest.param(jax.grad(lambda x, w: jnp.sum(scanned(x, w)), argnums=1), 15 * ONE, id="gradient of a scan"),
        pytest.param(
            jax.grad(lambda x, w: jnp.sum(jax.checkpoint(scanned)(x, w)), argnums=1),
            20 * ONE,
            id="recomputation",
        ),
        pytest.param(
            lambda x, w: jax.lax.conv(x.reshape(1, 32, 4, 4), w.reshape(8, 32, 2, 2), (1, 1), "VALID"),
            2 * (8 * 3 * 3) * (32 * 2 * 2),
            id="convolution",
        ),
    ],
)
def test_flops_of_matrix_products(function, expected):
    assert step_flops(jax.jit(function), X, W) == expected


def test_flops_of_a_pallas_kernel_are_those_of_all_programs_of_its_grid():
    def kernel(x: Any, w: Any, out: Any) -> None:
        out[...] = x[...] @ w[...]

    rows = pl.BlockSpec((4, 32), lambda i: (i, 0))
    product = pl.pallas_call(
        kernel,
        grid=(4,),
        in_specs=[rows, pl.BlockSpec((32, 32), lambda i: (0, 0))],
        out_specs=rows,
        out_shape=jax.ShapeDtypeStruct((16, 32), X.dtype),
    )
    assert step_flops(jax.jit(product), X, W) == ONE


def test_flops_of_fused_attention_are_its_two_products_and_five_backward(monkeypatch: pytest.MonkeyPatch):
    pretend_cudnn(monkeypatch)
    query, key = (jnp.ones((2, length, 3, 8), jnp.bfloat16) for length in (4, 6))

    def loss(query: Any) -> Any:
        return jnp.sum(jax.nn.dot_product_attention(query, key, key, implementation="cudnn").astype(jnp.float32))

    product = 2 * (2 * 3) * 4 * 6 * 8
    assert step_flops(jax.jit(loss), query) == 2 * product
    assert step_flops(jax.jit(jax.grad(loss)), query) == 7 * product


def test_flops_of_a_shard_map_are_summed_over_devices():
    rows = PartitionSpec(BATCH_AXES)
    split = jax.shard_map(lambda x, w: x @ w, mesh=make_mesh(), in_specs=(rows, PartitionSpec()), out_specs=rows)
    assert step_flops(jax.jit(split), X, W) == ONE


def test_flops_equal_the_compilers_without_loops():
    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(((x @ w) @ w.T) ** 2)

    step = jax.jit(jax.value_and_grad(loss, argnums=1))
    counted = step.lower(X, W).compile().cost_analysis()["flops"]
    assert step_flops(step, X, W) == pytest.approx(counted, rel=0.05)  # XLA adds elementwise work


def test_flops_of_a_function_that_is_not_jitted_are_none():
    assert step_flops(lambda x: x, X) is None
    assert count_flops(jax.make_jaxpr(lambda x: x + 1)(X).jaxpr) == 0


def test_chip_specs_have_plausible_ratios():
    for name, chip in CHIPS.items():
        assert 0.1 <= chip.float32 / chip.bfloat16 <= 1, name
        assert 100 < chip.bfloat16 / chip.memory_bandwidth < 1000, name  # FLOPs a byte
        assert 0.05 < chip.interconnect / chip.memory_bandwidth < 0.5, name
    assert CHIPS["TPU v5 lite"].flops("bfloat16") == 197e12
    assert CHIPS["NVIDIA H100 80GB HBM3"].flops("float32") == 494.7e12
