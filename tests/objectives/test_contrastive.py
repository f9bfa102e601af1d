"""The contrastive loss against a plain NumPy reference, in value and gradient, on 1 to 8 devices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from make_jax.objectives.contrastive import Rows, contrastive_loss

B, D = 16, 8
ROWS, WHOLE = PartitionSpec(("data", "fsdp")), PartitionSpec()


def kept_pairs(e: dict[str, Any]) -> np.ndarray:
    """Which pairs may stand in a denominator, pair by pair."""
    qid, pid, w = (np.asarray(e[name]) for name in ("qid", "pid", "w"))
    kept = np.eye(B, dtype=bool)
    for i in range(B):
        for j in range(B):
            equal = (qid[i] == qid[j] >= 0) or (pid[i] == pid[j] >= 0)
            kept[i, j] |= not (equal or w[i] == 0 or w[j] == 0)
    return kept


def reference(q, p, s, b, *, e, kind, margin):
    """The formula of the module's docstring."""
    kept, eye = kept_pairs(e), jnp.eye(B)
    logits = jnp.exp(s) * (jnp.dot(q, p.T, precision="highest") - margin * eye)
    if kind == "softmax":
        masked = jnp.where(kept, logits, -jnp.inf)
        losses = jax.nn.logsumexp(masked, 1) + jax.nn.logsumexp(masked, 0) - 2 * jnp.diag(logits)
    else:
        pairs = jnp.where(kept, -jax.nn.log_sigmoid((2 * eye - 1) * (logits + b)), 0)
        losses = pairs.sum(1) + pairs.sum(0)
    return jnp.sum(e["w"] * losses) / (2 * e["w"].sum())


def example(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    q, p = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.normal(size=(2, B, D)).astype(np.float32))
    arrays = {
        "q": q,
        "p": p,
        "qid": np.array([0, 0, 2, 3, 4, 5, 5, 5, -1, -1, 10, 11, 12, 13, 14, 15], np.int32),
        "pid": np.array([0, 1, 1, 3, 4, 5, 6, 7, 8, 9, -1, -1, 12, 12, 12, 15], np.int32),
        "w": np.array([1, 1, 1, 0, 1, 1, 1, 0.5, 1, 1, 1, 1, 1, 2, 1, 0], np.float32),
        "s": np.float32(np.log(20.0)),
        "b": np.float32(-3.0),
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


def sharded(devices: int, kind: str, margin: float):
    """Loss of global arrays over `devices` devices."""
    mesh = jax.make_mesh(
        (max(devices // 2, 1), min(devices, 2)),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[:devices],
    )

    def local(q, p, qid, pid, w, s, b):
        loss = partial(contrastive_loss, weights=w, kind=kind, bias=b, margin=margin, axis=("data", "fsdp"))
        return loss(Rows(q, qid), Rows(p, pid), s)

    return jax.shard_map(
        local, mesh=mesh, in_specs=(ROWS,) * 5 + (WHOLE,) * 2, out_specs=(WHOLE, WHOLE), check_vma=True
    )


def plain(q, p, s, b, *, e, kind, margin):
    return contrastive_loss(Rows(q, e["qid"]), Rows(p, e["pid"]), s, weights=e["w"], kind=kind, bias=b, margin=margin)


def value_and_gradient(loss, e, has_aux=True):
    """By queries, products, scale and bias, compiled."""
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=has_aux))(e["q"], e["p"], e["s"], e["b"])


def agree(found, wanted, tolerance=1e-5):
    """Equal as the contract defines it: largest difference over largest reference."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.abs(x - y).max() <= tolerance * max(np.abs(y).max(), 1e-12)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_plain_form_equals_the_formula_in_value_and_gradient(kind, margin):
    e = example()
    (value, _), gradients = value_and_gradient(partial(plain, e=e, kind=kind, margin=margin), e)
    agree((value, gradients), value_and_gradient(partial(reference, e=e, kind=kind, margin=margin), e, False))


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize(("kind", "margin"), [("softmax", 0.2), ("sigmoid", 0.0)])
def test_gather_equals_plain_in_value_and_gradient(devices, kind, margin):
    e = example(1)
    mapped = sharded(devices, kind, margin)
    found = value_and_gradient(lambda q, p, s, b: mapped(q, p, e["qid"], e["pid"], e["w"], s, b), e)
    agree(found, value_and_gradient(partial(plain, e=e, kind=kind, margin=margin), e))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_all_weights_zero_gives_loss_zero_and_finite_gradients(kind):
    e = example()
    mapped = sharded(4, kind, 0.1)

    def loss(q, p):
        return mapped(q, p, e["qid"], e["pid"], 0 * e["w"], e["s"], e["b"])[0]

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(e["q"], e["p"])
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients)


def test_weight_zero_row_is_neither_anchor_nor_negative():
    e = example()
    loss = jax.jit(partial(plain, e=e, kind="softmax", margin=0.0))
    q = e["q"].at[3].set(e["q"][3, ::-1])  # weight 0
    p = e["p"].at[15].set(e["p"][15, ::-1])  # weight 0
    assert loss(q, p, e["s"], e["b"])[0] == loss(e["q"], e["p"], e["s"], e["b"])[0]
    q = e["q"].at[4].set(e["q"][4, ::-1])  # weight 1
    assert loss(q, p, e["s"], e["b"])[0] != loss(e["q"], e["p"], e["s"], e["b"])[0]


def test_row_with_no_valid_negative_has_loss_zero():
    e = example() | {"qid": jnp.zeros(B, jnp.int32), "w": jnp.ones(B, jnp.float32)}
    (value, _), _ = value_and_gradient(partial(plain, e=e, kind="softmax", margin=0.0), e)
    assert abs(value) < 1e-5


def test_large_scale_stays_finite_and_bfloat16_is_near():
    e = example() | {"s": jnp.float32(np.log(100.0))}
    rounded = e | {name: e[name].astype(jnp.bfloat16) for name in ("q", "p")}
    widened = rounded | {name: rounded[name].astype(jnp.float32) for name in ("q", "p")}
    loss = partial(plain, e=e, kind="softmax", margin=0.0)
    (value, _), coarse = value_and_gradient(loss, rounded)
    assert np.isfinite(value) and all(np.isfinite(np.asarray(g, np.float32)).all() for g in coarse)
    agree([np.asarray(g, np.float32) for g in coarse[:2]], value_and_gradient(loss, widened)[1][:2], 2**-7)


def test_gather_moves_products_once_and_column_statistics_only():
    e = example()
    text = jax.jit(lambda *a: sharded(8, "softmax", 0.0)(*a)[0]).lower(
        e["q"], e["p"], e["qid"], e["pid"], e["w"], e["s"], e["b"]
    ).compile().as_text()  # fmt: skip
    gathered = [line for line in text.splitlines() if " all-gather(" in line and "f32[16,8]" in line]
    assert len(gathered) == 1
