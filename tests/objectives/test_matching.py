"""QIM and QIM2: the negatives that are drawn and the losses, on 1 and 8 devices."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import ObjectivesConfig
from make_jax.model.make import Make, Outputs, QueryOutputs
from make_jax.model.modal_adaptation import FusedProduct, ProductStates
from make_jax.objectives.false_negatives import ContrastiveInputs
from make_jax.objectives.matching import draw_negatives, matching_losses
from make_jax.objectives.total import local_means
from make_jax.objectives.weighted_means import WeightedMean
from make_jax.runs.mesh import batch_sharding, make_mesh, replicated_sharding

B, G, D, V = 64, 8, 6, 40  # rows, group, width, keywords
CONFIG = ObjectivesConfig(qim=1.0, qim2=1.0, matching_group=G)
SCALE = np.float32(np.log(5.0))
FIRST = jnp.zeros((), jnp.int32)


def example(seed: int = 0) -> dict[str, Any]:
    """False negatives are common; all of group 0 is one query's, and group 1 has no weight."""
    rng = np.random.default_rng(seed)
    real = rng.integers(1, 4, (3, B))
    e = {
        "q": rng.normal(size=(B, D)),
        "p": rng.normal(size=(B, D)),
        "query_states": rng.normal(size=(B, 3, D)),
        "swap_states": rng.normal(size=(B, 3, D)),
        "title": rng.normal(size=(B, 4, D)),
        "image": rng.normal(size=(B, 5, D)),
        "weight": rng.choice([0.0, 0.5, 1.0, 2.0], B, p=[0.2, 0.1, 0.6, 0.1]),
    }
    e = {name: value.astype(np.float32) for name, value in e.items()}
    e["weight"][G : 2 * G] = 0
    e["query_id"] = rng.integers(0, 12, B).astype(np.int32)
    e["query_id"][:G] = 3
    e["product_id"] = rng.integers(-1, 12, B).astype(np.int32)
    e["query_keywords"] = packed([set(rng.integers(0, V, rng.integers(0, 3)).tolist()) for _ in range(B)])
    e["product_keywords"] = packed([set(rng.integers(0, V, rng.integers(0, 25)).tolist()) for _ in range(B)])
    e["query_mask"], e["title_mask"] = np.arange(3) < real[0][:, None], np.arange(4) < real[1][:, None]
    e["swap_mask"] = (np.arange(3) < real[2][:, None]) & (rng.random((B, 1)) < 0.5)
    e["has_image"] = rng.random(B) < 0.7
    return jax.tree.map(jnp.asarray, e)


def packed(sets: list[set[int]]) -> np.ndarray:
    out = np.zeros((len(sets), -(-V // 32)), np.uint32)
    for row, keywords in zip(out, sets, strict=True):
        for keyword in keywords:
            row[keyword // 32] |= np.uint32(1) << np.uint32(keyword % 32)
    return out


def unpacked(row: np.ndarray) -> set[int]:
    return {k for k in range(V) if row[k // 32] >> np.uint32(k % 32) & 1}


def negatives(e: dict[str, Any], masking: bool = True) -> np.ndarray:
    """[B, B]: whether product j may be a negative of query i; a reference on Python sets."""
    e, allowed = jax.tree.map(np.asarray, e), np.zeros((B, B), bool)
    query_keywords, product_keywords = (
        [unpacked(row) for row in e[f"{side}_keywords"]] for side in ("query", "product")
    )
    for i in range(B):
        for j in range(B):
            same = e["query_id"][i] == e["query_id"][j] or e["product_id"][i] == e["product_id"][j] >= 0
            has_all = masking and query_keywords[i] and query_keywords[i] <= product_keywords[j]
            weighted = e["weight"][i] > 0 and e["weight"][j] > 0
            allowed[i, j] = i != j and i // G == j // G and weighted and not same and not has_all
    return allowed


def on(devices: int, function: Any) -> Any:
    """Compiles a function of (example, key) with rows sharded over devices."""
    mesh = make_mesh(devices=jax.devices()[:devices])
    return jax.jit(
        function,
        in_shardings=(batch_sharding(mesh), replicated_sharding(mesh)),
        out_shardings=replicated_sharding(mesh),
    )


def drawn(e: dict[str, Any], key: Any) -> Any:
    queries = ContrastiveInputs(e["q"], e["query_id"], e["query_keywords"])
    products = ContrastiveInputs(e["p"], e["product_id"], e["product_keywords"])
    return draw_negatives(
        queries, products, jnp.asarray(SCALE), weights=e["weight"], group=G, key=key, first_group=FIRST
    )


def apply(method: Any, query: Any, mask: Any, product: ProductStates, target: str) -> jax.Array:
    """A stand-in for the matching encoder: the product of sums of real states."""
    assert method is Make.match

    def mean(states: Any, mask: Any) -> Any:
        return jnp.sum(states * mask[..., None].astype(jnp.float32), axis=-2)

    read = mean(product.image, product.image_mask)
    read = read + mean(product.title, product.title_mask) if target == "item" else read
    return jnp.sum(mean(query, mask) * read, axis=-1)


def outputs(e: dict[str, Any]) -> Outputs:
    patches = jnp.broadcast_to(e["has_image"][:, None], (B, 5))
    states = ProductStates(e["title"], e["title_mask"], e["image"], patches)
    query, swap = (QueryOutputs(e["q"], e[f"{name}_states"], None, None) for name in ("query", "swap"))
    return Outputs(query, swap, FusedProduct(e["p"], jnp.ones((B, 2))), states, jnp.asarray(SCALE), jnp.zeros(()))


def losses(e: dict[str, Any], key: Any) -> Any:
    found = matching_losses(CONFIG, outputs(e), e, apply, key, FIRST)
    return jax.tree.map(lambda mean: mean.value, found, is_leaf=lambda x: isinstance(x, WeightedMean))


@pytest.fixture(scope="module")
def programs() -> dict[int, Any]:
    return {devices: on(devices, drawn) for devices in (1, 8)}


@pytest.mark.parametrize("devices", [1, 8])
def test_drawn_negatives_are_never_false_and_drawn_wherever_one_exists(programs, devices):
    masked = 0
    for seed in range(12):
        e = example(seed)
        allowed = negatives(e)
        masked += (negatives(e, masking=False) & ~allowed).sum()
        found = jax.tree.map(np.asarray, programs[devices](e, jax.random.key(seed)))
        start = np.arange(B) // G * G
        for i in range(B):
            j, n = int(found.products[i]), int(found.queries[i])
            assert allowed[i, start[i] + j] if j >= 0 else not allowed[i].any()
            assert allowed[start[i] + n, i] if n >= 0 else not allowed[:, i].any()
        assert (found.products[: 2 * G] == -1).all()  # one query's group, and one without weight
    assert masked > 50  # or else keywords were not tested


def test_draws_are_a_function_of_the_key_and_not_of_the_device_count(programs):
    e = example()
    one, eight = (programs[devices](e, jax.random.key(5)) for devices in (1, 8))
    jax.tree.map(np.testing.assert_array_equal, one, eight)
    assert not np.array_equal(one.products, programs[1](e, jax.random.key(6)).products)


def test_draws_are_as_frequent_as_exp_of_the_score():
    rng, times = np.random.default_rng(1), 4000
    q, p = rng.normal(size=(2, 4, D)).astype(np.float32) / 3
    ids = jnp.tile(jnp.arange(4), times)
    rows = [ContrastiveInputs(jnp.tile(jnp.asarray(x), (times, 1)), ids) for x in (q, p)]
    weights = jnp.ones(4 * times)
    key, scale = jax.random.key(0), jnp.asarray(SCALE)
    found = jax.jit(lambda: draw_negatives(*rows, scale, weights=weights, group=4, key=key, first_group=FIRST))()
    chance = np.exp(5.0 * q @ p.T) * (1 - np.eye(4))
    for side, table in ((found.products, chance), (found.queries, chance.T)):
        counts = np.stack([np.bincount(np.asarray(side)[i::4], minlength=4) for i in range(4)])
        np.testing.assert_allclose(counts / times, table / table.sum(1, keepdims=True), atol=0.03)


def reference(e: dict[str, Any], found: Any, target: str) -> tuple[float, float]:
    """Loss and accuracy, pair by pair."""
    e, found = jax.tree.map(np.asarray, (e, found))
    pairs = []  # (query states, their mask, product, label, weight)
    for i in range(B):
        start, w = i // G * G, float(e["weight"][i])
        pairs.append((e["query_states"][i], e["query_mask"][i], i, 1, w))
        if (j := int(found.products[i])) >= 0:
            pairs.append((e["query_states"][i], e["query_mask"][i], start + j, 0, w))
        if (n := int(found.queries[i])) >= 0:
            pairs.append((e["query_states"][start + n], e["query_mask"][start + n], i, 0, w))
        if e["swap_mask"][i].any():
            pairs.append((e["swap_states"][i], e["swap_mask"][i], i, 0, w))
    if target == "image":
        pairs = [pair for pair in pairs if e["has_image"][pair[2]]]
    total = right = weight = 0.0
    for states, mask, i, label, w in pairs:
        read = e["image"][i].sum(0) * e["has_image"][i]
        if target == "item":
            read = read + e["title"][i][e["title_mask"][i]].sum(0)
        logit = float(states[mask].sum(0) @ read)
        total += w * np.logaddexp(0, -logit if label else logit)
        right += w * ((logit > 0) == bool(label))
        weight += w
    return total / weight, right / weight


def test_losses_equal_those_of_the_pairs_one_by_one_in_value_and_gradient_on_1_and_8_devices(programs):
    e, key = example(2), jax.random.key(3)
    names = ("query_states", "swap_states", "title", "image", "q")

    def both(e: dict[str, Any], key: Any) -> Any:
        def total(moved: dict[str, Any]) -> Any:
            found, metrics = losses(e | moved, key)
            return found["qim"] + 0.5 * found["qim2"], found | metrics

        return jax.value_and_grad(total, has_aux=True)({name: e[name] for name in names})

    compiled = {devices: on(devices, both) for devices in (1, 8)}
    (value, metrics_by_name), gradients = compiled[1](e, key)
    for name, target in (("qim", "item"), ("qim2", "image")):
        loss, accuracy = reference(e, programs[1](e, key), target)
        np.testing.assert_allclose(metrics_by_name[name], loss, rtol=1e-5)
        np.testing.assert_allclose(metrics_by_name[f"{name}_accuracy"], accuracy, rtol=1e-5)
    assert not np.asarray(gradients["q"]).any()  # drawing has no gradient
    assert all(np.asarray(gradients[name]).any() for name in names[:-1])
    (other, _), others = compiled[8](e, key)
    np.testing.assert_allclose(other, value, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), others, gradients)


def test_no_states_cross_devices():
    mesh = make_mesh(devices=jax.devices()[:8])

    def total(e: dict[str, Any], key: Any) -> Any:
        found, _ = losses(e, key)
        return found["qim"] + found["qim2"]

    rows, replicated = batch_sharding(mesh), replicated_sharding(mesh)
    states = {name: value for name, value in example().items() if value.dtype == np.float32}
    rest = {name: value for name, value in example().items() if name not in states}
    step = jax.jit(
        jax.value_and_grad(lambda moved, rest, key: total(rest | moved, key)),
        in_shardings=(rows, rows, replicated),
        out_shardings=(replicated, rows),
    )
    text = step.lower(states, rest, jax.random.key(0)).compile().as_text()
    assert not re.search(r" (all-gather|all-to-all|collective-permute|collective-broadcast)", text)
    assert any(" all-reduce" in line and "f32[]" in line for line in text.splitlines())


def test_all_weights_zero_give_loss_zero_and_finite_gradients():
    e = example() | {"weight": jnp.zeros(B)}

    def total(title: Any) -> Any:
        return losses(e | {"title": title}, jax.random.key(0))[0]["qim"]

    value, gradient = jax.jit(jax.value_and_grad(total))(e["title"])
    assert value == 0 and not np.asarray(gradient).any()


@pytest.mark.parametrize(("qim", "qim2"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_an_objective_of_weight_0_is_not_traced(qim, qim2):
    targets = []

    def recording_apply(method: Any, *arguments: Any) -> jax.Array:
        targets.append(arguments[-1])
        return apply(method, *arguments)

    config = ObjectivesConfig(qic=0.0, key=0.0, qim=qim, qim2=qim2, matching_group=G)
    metrics_by_name = jax.eval_shape(
        lambda e: local_means(config, outputs(e), e, recording_apply, jax.random.key(0), FIRST), example()
    )
    assert targets == ["item"] * bool(qim) + ["image"] * bool(qim2)
    assert set(metrics_by_name) == {name for name in ("qim", "qim_accuracy") if qim} | {
        n for n in ("qim2", "qim2_accuracy") if qim2
    }
