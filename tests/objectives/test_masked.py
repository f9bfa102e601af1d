"""MLM and MPM against plain NumPy references, in value and gradient, on 1 and 8 devices."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import AdaptationConfig, ImageConfig, InputsConfig, ModelConfig, ObjectivesConfig, TextConfig
from make_jax.model.make import Make
from make_jax.model.masked import PredictedPatches, PredictedTokens, first_true, take_positions
from make_jax.objectives.masked import patch_loss, token_loss
from make_jax.objectives.total import contrast_embeddings, local_means, total_loss
from make_jax.runs.mesh import make_mesh, shard_batch
from tests.objectives.contrasts import agree

# --- tokens ---


def text(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits at every token [5, length, 11], and labels of which a row has at most 3."""
    rng = np.random.default_rng(seed)
    labels = np.full((5, length), -1, np.int32)
    for row, count in enumerate((3, 1, 0, 2, 1)):
        labels[row, rng.permutation(length)[:count]] = rng.integers(0, 11, count)
    return rng.normal(size=(5, length, 11)).astype(np.float32), labels


def token_reference(texts: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy, token by token."""
    losses = right = total = 0.0
    for logits, labels in texts:
        for row, place in np.argwhere(labels >= 0):
            z, y = logits[row, place].astype(np.float64), labels[row, place]
            losses += weights[row] * (np.log(np.exp(z).sum()) - z[y])
            right += weights[row] * (z.argmax() == y)
            total += weights[row]
    return losses / total, right / total


def test_mlm_equals_the_reference_over_the_logits_of_all_tokens():
    texts, weights = [text(6, 0), text(9, 1)], np.array([1, 0.5, 1, 0, 2], np.float32)

    @jax.jit
    def found(texts: Any, weights: jax.Array) -> Any:
        places = [first_true(labels >= 0, 3) for _, labels in texts]
        picked = [(take_positions(z, p), take_positions(y, p)) for (z, y), p in zip(texts, places, strict=True)]
        return token_loss([PredictedTokens(*tokens) for tokens in picked], weights)

    loss, metrics = found(texts, weights)
    agree((loss.value, metrics["mlm_accuracy"].value), token_reference(texts, weights))


# --- patches ---


def hidden_patches(rows: int, seed: int = 0) -> PredictedPatches:
    rng = np.random.default_rng(seed)
    predictions, targets = rng.normal(size=(2, rows, 3, 8)).astype(np.float32)
    pixels = rng.normal(size=(rows, 3, 12)).astype(np.float32)
    pixels[1, 0] = pixels[0, 1] + 0.05 * pixels[1, 0]  # look the same
    pixels[3, 2] = 2 * pixels[0, 0]
    there = rng.random((rows, 3)) < 0.8
    there[0], there[1, 0], there[3, 2], there[-1] = True, True, True, False
    return PredictedPatches(*map(jnp.asarray, (predictions, targets, pixels, there)))


def patch_reference(predicted: PredictedPatches, weights: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy of the contrastive variant, patch by patch."""
    p, z, x, there = (np.asarray(value) for value in predicted)
    group = {32: 16, 6: 2}[len(p)]
    everything = [(r, k) for r in range(len(p)) for k in range(3) if there[r, k] and weights[r] > 0]
    losses = right = 0.0
    for r, k in everything:
        own = float(p[r, k] @ z[r, k]) / 0.1
        others = []
        for s, m in everything:
            alike = x[r, k] @ x[s, m] / np.linalg.norm(x[r, k]) / np.linalg.norm(x[s, m]) > 0.95
            if s // group == r // group and not alike:
                others.append(float(p[r, k] @ z[s, m]) / 0.1)
        losses += weights[r] * (np.logaddexp.reduce([own, *others]) - own)
        right += weights[r] * (own >= max([own, *others]))
    total = sum(weights[r] for r, _ in everything)
    return losses / total, right / total


compared = jax.jit(patch_loss)


@pytest.mark.parametrize("rows", [32, 6])
def test_contrastive_mpm_equals_the_reference_whatever_the_rows(rows):
    predicted, weights = hidden_patches(rows), np.linspace(0, 2, rows).astype(np.float32)  # row 0 has weight 0
    weights[:2] = weights[1::-1]
    loss, metrics = compared(predicted, weights)
    agree((loss.value, metrics["mpm_accuracy"].value), patch_reference(predicted, weights))


def test_patches_that_look_the_same_are_no_negatives_of_each_other():
    predicted, weights = hidden_patches(6), np.ones(6, np.float32)
    two = predicted._replace(valid=jnp.zeros_like(predicted.valid).at[[0, 1], [1, 0]].set(True))
    assert abs(compared(two, weights)[0].value) < 1e-6
    assert compared(two._replace(pixels=predicted.pixels.at[1, 0].set(predicted.pixels[2, 2])), weights)[0].value > 0.1


def test_regression_mpm_equals_the_reference():
    predicted, weights = hidden_patches(6), np.array([1, 0.5, 1, 0, 2, 1], np.float32)
    predictions = np.random.default_rng(1).normal(size=(6, 3, 12)).astype(np.float32)
    counted = weights[:, None] * np.asarray(predicted.valid)
    expected = (counted * ((predictions - np.asarray(predicted.pixels)) ** 2).mean(-1)).sum() / counted.sum()
    loss, metrics = compared(predicted._replace(predictions=jnp.asarray(predictions), targets=None), weights)
    agree(loss.value, expected)
    assert metrics == {}


# --- through the model ---

B, VOCABULARY = 128, 30
TEXT = TextConfig(layers=0, width=8, heads=1, mlp_width=8)  # the heads are what is looked at
MODEL = Make(
    ModelConfig(
        query=TEXT, title=TEXT, image=ImageConfig(layers=0, width=8, heads=1, mlp_width=8), embedding_dim=8,
        adaptation=AdaptationConfig(gate_width=8), mlm=True, mpm="contrastive",
    ),
    InputsConfig(max_query_tokens=5, max_title_tokens=7, image_height=16, image_width=24),
    VOCABULARY,
)  # fmt: skip
OBJECTIVES = ObjectivesConfig(qic=0.0, mlm=1.0, mpm=0.5)


@cache
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    has_title, has_image = np.arange(B) % 5 != 0, np.arange(B) % 5 != 1
    arrays: dict[str, np.ndarray] = {
        "image": rng.integers(0, 256, (B, 16, 24, 3)).astype(np.uint8),
        "has_title": has_title,
        "has_image": has_image,
        "patch_mask": has_image[:, None] & (rng.random((B, 6)).argsort(axis=1).argsort(axis=1) < 2),
        "weight": (np.arange(B) % 7 != 3).astype(np.float32),
    }
    for name, length, there in (("query", 5, np.ones(B, bool)), ("title", 7, has_title)):
        mask = there[:, None] & (np.arange(length)[None] < rng.integers(1, length + 1, B)[:, None])
        tokens = np.where(mask, rng.integers(0, VOCABULARY, (B, length)), 0).astype(np.int32)
        labels = np.where(mask & (np.arange(length)[None] == 0), tokens, -1).astype(np.int32)
        arrays |= {f"{name}_tokens": tokens, f"{name}_mask": mask}
        arrays |= {f"{name}_masked": np.where(labels >= 0, 1, tokens).astype(np.int32), f"{name}_labels": labels}
    return arrays


@cache
def params() -> Any:
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), {name: rows[:1] for name, rows in batch().items()})
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes["params"])


@cache
def program(devices: int) -> Any:
    """(loss, metrics) and gradient of (parameters, batch), compiled for so many devices."""
    mesh = make_mesh(devices=jax.devices()[:devices])

    def loss(params: Any, rows: dict[str, jax.Array]) -> Any:
        def apply(method: Any, *args: Any) -> Any:
            return MODEL.apply({"params": params}, *args, method=method)

        out = MODEL.apply({"params": params}, rows)
        means = local_means(OBJECTIVES, out, rows, apply, jax.random.key(0), jnp.zeros((), jnp.int32))
        vectors = contrast_embeddings(OBJECTIVES, out)
        return total_loss(OBJECTIVES, vectors, means, rows, out.log_logit_scale, out.logit_bias, None)

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params(), shard_batch(batch(), mesh)).compile()
    return compiled, mesh


def value_and_gradient(devices: int, **changed: np.ndarray) -> Any:
    compiled, mesh = program(devices)
    return jax.device_get(compiled(params(), shard_batch(batch() | changed, mesh)))


def test_device_count_changes_neither_losses_nor_gradients():
    (loss, metrics), gradient = value_and_gradient(1)
    assert metrics.keys() == {"mlm", "mlm_accuracy", "mpm", "mpm_accuracy"}
    agree(loss, metrics["mlm"] + 0.5 * metrics["mpm"])
    assert abs(metrics["mlm"] - np.log(VOCABULARY)) < 0.5  # at initialization
    (other_loss, other_metrics), other_gradient = value_and_gradient(8)
    agree((other_loss, other_metrics), (loss, metrics))
    largest = max(np.abs(g).max() for g in jax.tree.leaves(gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), other_gradient, gradient)


def test_devices_exchange_sums_only():
    text = program(8)[0].as_text()
    assert " all-reduce(" in text
    for name in ("all-gather", "all-to-all", "collective-permute"):
        assert f" {name}(" not in text and f" {name}-start(" not in text


def test_rows_of_weight_0_and_missing_images_change_nothing():
    (before, _), _ = value_and_gradient(1)
    image = np.array(batch()["image"])
    image[1::5] = 255 - image[1::5]  # not there
    tokens = np.where(batch()["weight"][:, None] == 0, 9, batch()["query_masked"]).astype(np.int32)
    image[3::7] = 255 - image[3::7]  # weight 0
    (after, _), _ = value_and_gradient(1, image=image, query_masked=tokens)
    agree(after, before, 1e-6)
    image[0] = 255 - image[0]
    (after, _), _ = value_and_gradient(1, image=image)
    assert abs(after - before) > 1e-6


def test_all_weights_0_give_loss_0_and_gradients_0():
    (loss, _), gradient = value_and_gradient(1, weight=np.zeros(B, np.float32))
    assert loss == 0
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(gradient))


def test_weight_0_in_the_config_is_not_traced():
    def never(*args: Any) -> Any:
        raise AssertionError

    config, number = ObjectivesConfig(qic=0.0), jnp.zeros((), jnp.int32)
    rows = {name: jnp.asarray(value) for name, value in batch().items()}
    out = jax.eval_shape(MODEL.apply, {"params": params()}, rows)
    assert jax.eval_shape(lambda: local_means(config, out, rows, never, jax.random.key(0), number)) == {}
