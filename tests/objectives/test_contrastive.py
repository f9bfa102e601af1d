"""The contrastive loss against a plain NumPy reference, in value and gradient, on 1 to 8 devices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

from make_jax.objectives.contrastive import contrastive_loss
from make_jax.objectives.pairs import Rows, answered

B, D, V, BANKED = 16, 8, 40, 24
ROWS, WHOLE = PartitionSpec(("data", "fsdp")), PartitionSpec()


def members(packed: Any) -> list[set[int]]:
    """Packed sets as sets."""
    return [{k for k in range(V) if row[k // 32] >> (k % 32) & 1} for row in np.asarray(packed).tolist()]


def packed(sets: Any) -> np.ndarray:
    words = [[sum(1 << k % 32 for k in of if k // 32 == w) for w in range(-(-V // 32))] for of in sets]
    return np.array(words, np.uint32)


def kept_pairs(e: dict[str, Any]) -> np.ndarray:
    """Which pairs may stand in a denominator, pair by pair; columns after the first B are the bank's."""
    qid, pid, w, bid = (np.asarray(e[name]) for name in ("qid", "pid", "w", "bid"))
    asked, held, banked = (members(e[name]) for name in ("qk", "pk", "bk"))
    kept = np.zeros((B, B + BANKED), bool)
    for i in range(B):
        for j in range(B):
            equal = (qid[i] == qid[j] >= 0) or (pid[i] == pid[j] >= 0)
            answered = bool(asked[i]) and asked[i] <= held[j]
            kept[i, j] = i == j or not (equal or answered or w[i] == 0 or w[j] == 0)
        for j in range(BANKED):
            answered = bool(asked[i]) and asked[i] <= banked[j]
            kept[i, B + j] = not (answered or w[i] == 0 or bid[j] < 0 or pid[i] == bid[j])
    return kept


def reference(a, *, e, kind, margin):
    """The formula of the module's docstring."""
    kept, eye = kept_pairs(e), jnp.eye(B)
    scale = jnp.exp(a["s"])
    logits = scale * (jnp.dot(a["q"], a["p"].T, precision="highest") - margin * eye)
    swapped = scale * jnp.sum(a["swap"] * a["p"], 1)
    banked = scale * jnp.dot(a["q"], e["bank"].T, precision="highest")
    there = np.asarray(e["sid"]) >= 0
    if kind == "softmax":
        rows = jnp.where(kept, jnp.concatenate([logits, banked], 1), -jnp.inf)
        columns = jnp.where(kept[:, :B], logits, -jnp.inf)
        columns = jnp.concatenate([columns, jnp.where(there, swapped, -jnp.inf)[None]], 0)
        losses = jax.nn.logsumexp(rows, 1) + jax.nn.logsumexp(columns, 0) - 2 * jnp.diag(logits)
    else:
        pairs = jnp.where(kept[:, :B], -jax.nn.log_sigmoid((2 * eye - 1) * (logits + a["b"])), 0)
        losses = pairs.sum(1) + pairs.sum(0)
        losses += jnp.where(kept[:, B:], -jax.nn.log_sigmoid(-(banked + a["b"])), 0).sum(1)
        losses += jnp.where(there, -jax.nn.log_sigmoid(-(swapped + a["b"])), 0)
    return jnp.sum(e["w"] * losses) / (2 * e["w"].sum())


def example(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def vectors(rows: int) -> np.ndarray:
        x = rng.normal(size=(rows, D)).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def sets(rows: int, most: int) -> np.ndarray:
        few = [0, 1, 31, 32, 39]  # on both sides of a word's end, and few, so that subsets are frequent
        return packed([rng.choice(few, rng.integers(most + 1), replace=False).tolist() for _ in range(rows)])

    arrays = {
        "q": vectors(B),
        "p": vectors(B),
        "qid": np.array([0, 0, 2, 3, 4, 5, 5, 5, -1, -1, 10, 11, 12, 13, 14, 15], np.int32),
        "pid": np.array([0, 1, 1, 3, 4, 5, 6, 7, 8, 9, -1, -1, 12, 12, 12, 15], np.int32),
        "qk": sets(B, 2),
        "pk": sets(B, 4),
        "swap": vectors(B),
        "sid": np.array([0, -1] * (B // 2), np.int32),
        "bank": vectors(BANKED),
        "bid": np.array([-1, 0, 1, 3, 4, 30, 31, 32] * (BANKED // 8), np.int32),
        "bk": sets(BANKED, 4),
        "w": np.array([1, 1, 1, 0, 1, 1, 1, 0.5, 1, 1, 1, 1, 1, 2, 1, 0], np.float32),
        "s": np.float32(np.log(20.0)),
        "b": np.float32(-3.0),
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


LEARNT = ("q", "p", "swap", "s", "b")


def rows_of(a: dict[str, Any], e: dict[str, Any]) -> tuple[Rows, Rows, Rows, Rows]:
    """Queries, products, swaps and bank."""
    return (
        Rows(a["q"], e["qid"], e["qk"]),
        Rows(a["p"], e["pid"], e["pk"]),
        Rows(a["swap"], e["sid"]),
        Rows(e["bank"], e["bid"], e["bk"]),
    )


def plain(a, *, e, kind, margin):
    queries, products, swaps, bank = rows_of(a, e)
    return contrastive_loss(
        queries, products, a["s"], weights=e["w"], kind=kind, bias=a["b"], margin=margin, swaps=swaps, bank=bank
    )


def sharded(devices: int, kind: str, margin: float):
    """The same over `devices` devices."""
    mesh = jax.make_mesh(
        (max(devices // 2, 1), min(devices, 2)),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[:devices],
    )

    def local(queries, products, swaps, bank, w, s, b):
        loss = partial(contrastive_loss, weights=w, kind=kind, bias=b, margin=margin, axis=("data", "fsdp"))
        return loss(queries, products, s, swaps=swaps, bank=bank)

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(ROWS,) * 5 + (WHOLE,) * 2, out_specs=(WHOLE, WHOLE), check_vma=True
    )
    return lambda a, *, e: mapped(*rows_of(a, e), e["w"], a["s"], a["b"])


def value_and_gradient(loss, e, has_aux=True):
    """By all that is learnt, compiled."""
    return jax.jit(jax.value_and_grad(loss, has_aux=has_aux))({name: e[name] for name in LEARNT})


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
    found = value_and_gradient(partial(sharded(devices, kind, margin), e=e), e)
    agree(found, value_and_gradient(partial(plain, e=e, kind=kind, margin=margin), e))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_all_weights_zero_gives_loss_zero_and_finite_gradients(kind):
    e = example()
    e |= {"w": 0 * e["w"]}
    (value, _), gradients = value_and_gradient(partial(sharded(4, kind, 0.1), e=e), e)
    assert value == 0
    assert all(not np.asarray(g).any() for g in gradients.values())


def test_weight_zero_row_is_neither_anchor_nor_negative():
    e = example()
    loss = jax.jit(partial(plain, e=e, kind="softmax", margin=0.0))
    a = {name: e[name] for name in LEARNT}
    other = {name: a[name].at[3].set(a[name][3, ::-1]) for name in ("q", "swap")}  # weight 0
    other |= {"p": a["p"].at[15].set(a["p"][15, ::-1])}  # weight 0
    assert loss(a | other)[0] == loss(a)[0]
    other["q"] = a["q"].at[4].set(a["q"][4, ::-1])  # weight 1
    assert loss(a | other)[0] != loss(a)[0]


def test_row_with_no_valid_negative_has_loss_zero():
    e = example() | {"qid": jnp.zeros(B, jnp.int32), "w": jnp.ones(B, jnp.float32)}
    e |= {"sid": jnp.full(B, -1, jnp.int32), "bid": jnp.full(BANKED, -1, jnp.int32)}
    (value, _), _ = value_and_gradient(partial(plain, e=e, kind="softmax", margin=0.0), e)
    assert abs(value) < 1e-5


def test_large_scale_stays_finite_and_bfloat16_is_near():
    e = example() | {"s": jnp.float32(np.log(100.0))}
    rounded = e | {name: e[name].astype(jnp.bfloat16) for name in ("q", "p")}
    widened = rounded | {name: rounded[name].astype(jnp.float32) for name in ("q", "p")}
    loss = partial(plain, e=e, kind="softmax", margin=0.0)
    (value, _), coarse = value_and_gradient(loss, rounded)
    assert np.isfinite(value) and all(np.isfinite(np.asarray(g, np.float32)).all() for g in coarse.values())
    fine = value_and_gradient(loss, widened)[1]
    agree([np.asarray(coarse[name], np.float32) for name in "qp"], [fine[name] for name in "qp"], 2**-7)


def test_gather_moves_products_once_and_column_statistics_only():
    e = example()
    loss = partial(sharded(8, "softmax", 0.0), e=e)
    text = jax.jit(lambda a: loss(a)[0]).lower({name: e[name] for name in LEARNT}).compile().as_text()
    gathered = [line for line in text.splitlines() if " all-gather(" in line and f"f32[{B},{D}]" in line]
    assert len(gathered) == 1


def test_swap_is_a_negative_of_its_product_and_of_no_query():
    e = example() | {"w": jnp.ones(B, jnp.float32)}
    _, gradients = value_and_gradient(partial(plain, e=e, kind="softmax", margin=0.0), e)
    gradients = np.asarray(gradients["swap"])
    there = np.asarray(e["sid"]) >= 0
    assert gradients[there].any(axis=1).all() and not gradients[~there].any()


def test_bank_has_no_gradient():
    e = example()
    gradient = jax.jit(jax.grad(lambda bank: plain(e, e=e | {"bank": bank}, kind="softmax", margin=0.0)[0]))(e["bank"])
    assert not np.asarray(gradient).any()


@pytest.fixture(scope="module")
def masked_on():
    """Which pairs the keywords mask, by count of devices, compiled once."""

    def function(devices: int):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        rows = PartitionSpec("data")

        def local(queries, products):
            everything = jax.tree.map(lambda x: jax.lax.all_gather(x, "data", tiled=True), products)
            return answered(queries, everything)

        mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows))
        return lambda e: mapped(Rows(e["q"], e["qid"], e["qk"]), Rows(e["p"], e["pid"], e["pk"]))

    return {devices: function(devices) for devices in (1, 8)}


_SETS = st.lists(st.frozensets(st.integers(0, V - 1), max_size=4), min_size=B, max_size=B)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(asked=_SETS, extra=_SETS, answers=st.lists(st.integers(0, B - 1), min_size=B, max_size=B))
def test_keywords_mask_exactly_the_pairs_that_the_sets_say(masked_on, asked, extra, answers):
    """Products hold random sets, joined with what some query asks so that subsets are frequent."""
    held = [own | asked[query] for own, query in zip(extra, answers, strict=True)]
    e = example() | {"qk": packed(asked), "pk": packed(held)}
    wanted = np.array([[bool(q) and q <= p for p in held] for q in asked])
    for devices in (1, 8):
        np.testing.assert_array_equal(np.asarray(masked_on[devices](e)), wanted)
