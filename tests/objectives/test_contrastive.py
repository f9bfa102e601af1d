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


def reference(q, p, qid, pid, w, log_scale, bias, kind, margin):
    """The formula of the module's docstring, one row at a time."""
    qid, pid = np.asarray(qid), np.asarray(pid)
    scale, n, total, weight = jnp.exp(log_scale), len(w), 0.0, np.asarray(w)
    kept = np.eye(n, dtype=bool)
    for i in range(n):
        for j in range(n):
            equal = (qid[i] == qid[j] >= 0) or (pid[i] == pid[j] >= 0)
            kept[i, j] |= not (equal or weight[i] == 0 or weight[j] == 0)
    s = scale * (jnp.dot(q, p.T, precision="highest") - margin * jnp.eye(n))
    for i in range(n):
        if kind == "softmax":
            row = jax.nn.logsumexp(s[i][kept[i]])
            column = jax.nn.logsumexp(s[:, i][kept[:, i]])
            total += w[i] * (row + column - 2 * s[i, i])
        else:
            y = 2.0 * jnp.eye(n) - 1.0
            pairs = -jax.nn.log_sigmoid(y * (s + bias))
            total += w[i] * (pairs[i][kept[i]].sum() + pairs[:, i][kept[:, i]].sum())
    return total / (2 * max(w.sum(), 1e-30))


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


def plain(q, p, qid, pid, w, s, b, kind, margin):
    return contrastive_loss(Rows(q, qid), Rows(p, pid), s, weights=w, kind=kind, bias=b, margin=margin)[0]


def agree(found, wanted, tolerance=1e-5):
    """Equal as the contract defines it: largest difference over largest reference."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.abs(x - y).max() <= tolerance * max(np.abs(y).max(), 1e-12)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_plain_form_equals_the_formula_in_value_and_gradient(kind, margin):
    e = example()
    arguments = (e["q"], e["p"], e["qid"], e["pid"], e["w"], e["s"], e["b"])
    found = jax.value_and_grad(partial(plain, kind=kind, margin=margin), argnums=(0, 1, 5, 6))(*arguments)
    wanted = jax.value_and_grad(partial(reference, kind=kind, margin=margin), argnums=(0, 1, 5, 6))(*arguments)
    agree(found, wanted)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize(("kind", "margin"), [("softmax", 0.2), ("sigmoid", 0.0)])
def test_gather_equals_plain_in_value_and_gradient(devices, kind, margin):
    e = example(1)
    arguments = (e["q"], e["p"], e["qid"], e["pid"], e["w"], e["s"], e["b"])
    mapped = sharded(devices, kind, margin)
    found = jax.jit(jax.value_and_grad(lambda *a: mapped(*a)[0], argnums=(0, 1, 5, 6)))(*arguments)
    wanted = jax.value_and_grad(partial(plain, kind=kind, margin=margin), argnums=(0, 1, 5, 6))(*arguments)
    agree(found, wanted)
    agree(mapped(*arguments)[1], contrastive_loss(
        Rows(e["q"], e["qid"]), Rows(e["p"], e["pid"]), e["s"], weights=e["w"], kind=kind, bias=e["b"], margin=margin
    )[1])  # fmt: skip


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_all_weights_zero_gives_loss_zero_and_finite_gradients(kind):
    e = example()
    mapped = sharded(4, kind, 0.1)

    def loss(q, p):
        return mapped(q, p, e["qid"], e["pid"], 0 * e["w"], e["s"], e["b"])[0]

    value, gradients = jax.value_and_grad(loss, (0, 1))(e["q"], e["p"])
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients)


def test_weight_zero_row_is_neither_anchor_nor_negative():
    e = example()
    arguments = [e["q"], e["p"], e["qid"], e["pid"], e["w"], e["s"], e["b"]]
    before = plain(*arguments, kind="softmax", margin=0.0)
    arguments[0] = e["q"].at[3].set(e["q"][3, ::-1])  # weight 0
    arguments[1] = e["p"].at[15].set(e["p"][15, ::-1])  # weight 0
    assert plain(*arguments, kind="softmax", margin=0.0) == before


def test_row_with_no_valid_negative_has_loss_zero():
    same = jnp.zeros(B, jnp.int32)
    e = example()
    value = plain(e["q"], e["p"], same, e["pid"], jnp.ones(B, jnp.float32), e["s"], e["b"], "softmax", 0.0)
    assert abs(value) < 1e-5


def test_large_scale_stays_finite_and_bfloat16_is_near():
    e = example()
    hot = jnp.float32(np.log(100.0))
    arguments = (e["q"], e["p"], e["qid"], e["pid"], e["w"], hot, e["b"])
    grad = jax.value_and_grad(partial(plain, kind="softmax", margin=0.0), argnums=(0, 1))
    value, gradients = grad(*arguments)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)
    rounded = tuple(jnp.asarray(x, jnp.bfloat16) for x in arguments[:2])
    _, coarse = grad(*rounded, *arguments[2:])
    exact = grad(*(x.astype(jnp.float32) for x in rounded), *arguments[2:])[1]
    agree([c.astype(jnp.float32) for c in coarse], exact, 2**-7)


def test_gather_moves_products_once_and_column_statistics_only():
    e = example()
    text = jax.jit(lambda *a: sharded(8, "softmax", 0.0)(*a)[0]).lower(
        e["q"], e["p"], e["qid"], e["pid"], e["w"], e["s"], e["b"]
    ).compile().as_text()  # fmt: skip
    gathered = [line for line in text.splitlines() if " all-gather(" in line and "f32[16,8]" in line]
    assert len(gathered) == 1
