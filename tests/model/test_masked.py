"""The heads of masked modeling: parameters, formulas, and which inputs reach them."""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import AdaptationConfig, ImageConfig, InputsConfig, ModelConfig, TextConfig
from make_jax.model.layer_config import ComputeConfig, layer_config
from make_jax.model.make import Make, Outputs
from make_jax.model.masked import FLAT, PatchHead, PredictedPatches, PredictedTokens
from make_jax.model.transformer import PreNormLayer

B, VOCABULARY, PATCH = 4, 50, 4
TEXT = TextConfig(layers=1, width=16, heads=2, mlp_width=32)
TINY = ModelConfig(
    query=TEXT, title=TEXT, image=ImageConfig(layers=1, width=24, heads=2, mlp_width=32, patch_size=PATCH),
    embedding_dim=16,
    adaptation=AdaptationConfig(gate_width=8), mlm=True, mpm="contrastive",
)  # fmt: skip
INPUTS = InputsConfig(
    max_query_tokens=6, max_title_tokens=16, image_height=8, image_width=12
)  # 6 patches, 2 of them hidden
HEADS = {"query_head", "title_head", "patch_head"}
FORMS = {
    "full": (TINY, HEADS),
    "no MLM": (replace(TINY, mlm=False), {"patch_head"}),
    "no MPM": (replace(TINY, mpm="none"), {"query_head", "title_head"}),
    "regression": (replace(TINY, mpm="regression"), HEADS),
    "shared text": (replace(TINY, shared_text=True), HEADS),
    "single stream": (replace(TINY, adaptation=AdaptationConfig(single_stream=True)), {"query_head", "title_head"}),
    "title": (replace(TINY, adaptation=AdaptationConfig(modalities="title")), {"query_head", "title_head"}),
    "image": (replace(TINY, adaptation=AdaptationConfig(modalities="image")), {"query_head", "patch_head"}),
}


@cache
def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (B, 8, 12, 3)).astype(np.uint8)
    image[0, :PATCH, :PATCH] = 255  # patch 0 of row 0 is flat
    hidden = np.zeros((B, 6), bool)
    hidden[[0, 0, 1, 1, 3, 3], [0, 4, 2, 5, 1, 3]] = True
    title_labels, query_labels = np.full((B, 16), -1, np.int32), np.full((B, 6), -1, np.int32)
    title_labels[[0, 0, 0, 2, 3], [2, 9, 15, 1, 0]] = [7, 3, 49, 0, 11]  # row 0 predicts as many as fit
    query_labels[[0, 3], [4, 1]] = [5, 6]
    arrays = {
        "query_tokens": rng.integers(0, VOCABULARY, (B, 6)).astype(np.int32),
        "query_mask": np.arange(6)[None] < np.array([6, 3, 1, 2])[:, None],
        "query_labels": query_labels,
        "title_tokens": rng.integers(0, VOCABULARY, (B, 16)).astype(np.int32),
        "title_mask": np.arange(16)[None] < np.array([16, 0, 2, 4])[:, None],
        "title_labels": title_labels,
        "image": image,
        "has_title": np.array([True, False, True, True]),
        "has_image": np.array([True, True, False, True]),
        "patch_mask": hidden,
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


class AllOutputs(NamedTuple):
    """All outputs of a model for a batch."""

    out: Outputs
    query: PredictedTokens | None
    title: PredictedTokens | None
    patches: PredictedPatches | None


def all_outputs(model: Make, b: dict[str, jax.Array], heads: set[str]) -> AllOutputs:
    out, query, title, patches = model(b), None, None, None
    if "query_head" in heads:
        query = model.predict_query(b["query_tokens"], b["query_mask"], b["query_labels"])
    if "title_head" in heads:
        texts = b["title_tokens"], b["title_mask"], b["title_labels"]
        title = model.predict_title(*texts, b["image"], b["has_title"], b["has_image"], out.states)
    if "patch_head" in heads:
        patches = model.predict_patches(b["image"], b["patch_mask"])
    return AllOutputs(out, query, title, patches)


def filled(init: Any, *args: Any) -> Any:
    """Random parameters, biases included, with the shapes of `init` and without compiling it."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), jax.eval_shape(init, *args))


@cache
def params() -> Any:
    return filled(Make(TINY, INPUTS, VOCABULARY).init, jax.random.key(0), batch())["params"]


@jax.jit
def run(params: Any, rows: dict[str, jax.Array]) -> AllOutputs:
    return Make(TINY, INPUTS, VOCABULARY).apply({"params": params}, rows, HEADS, method=all_outputs)


def run_model(**changed: Any) -> AllOutputs:
    return jax.device_get(run(params(), batch() | changed))


@pytest.mark.parametrize("form", FORMS)
def test_init_on_a_plain_batch_creates_the_parameters_of_each_configured_head(form):
    config, expected = FORMS[form]
    model = Make(config, INPUTS, VOCABULARY)
    found = jax.eval_shape(model.init, jax.random.key(0), batch())
    assert {name for name in found["params"] if name in HEADS} == expected
    if "title_head" in expected:
        assert ("attends_image" in found["params"]["title_head"]) == (form not in ("title", "single stream"))
    shapes = jax.eval_shape(lambda p: model.apply(p, batch(), expected, method=all_outputs), found)
    assert shapes.title is None or shapes.title.logits.shape == (B, 3, VOCABULARY)


def test_heads_change_neither_other_parameters_nor_what_the_model_computes():
    text, image = replace(TEXT, layers=0), replace(TINY.image, layers=0)  # quick to initialize
    config = replace(TINY, query=text, title=text, image=image)
    model = Make(config, INPUTS, VOCABULARY)
    plain = Make(replace(config, mlm=False, mpm="none"), INPUTS, VOCABULARY)
    less, more = (jax.jit(m.init)(jax.random.key(0), batch())["params"] for m in (plain, model))
    assert less.keys() == more.keys() - HEADS
    jax.tree.map(np.testing.assert_array_equal, less, {name: more[name] for name in less})
    programs = [str(jax.make_jaxpr(m.apply)({"params": less}, batch())) for m in (plain, model)]
    assert programs[0] == programs[1]


def test_logits_are_those_of_the_formula_at_every_token_taken_at_the_masked_ones():
    block = PreNormLayer(layer_config(TEXT, ComputeConfig(), layer_norm_eps=TINY.image.layer_norm_eps))
    attend = jax.jit(lambda p, *x: block.apply({"params": p}, x[0], False, *x[1:]))
    found, s, b = run_model(), run_model().out.states, batch()
    given = attend(params()["title_head"]["attends_image"], s.title, s.image, s.image_mask)
    for name, states, most in (("title", given, 3), ("query", found.out.query.states, 1)):
        head = jax.device_get(params()[f"{name}_head"])
        x = np.asarray(jax.nn.gelu(states @ head["transform"]["kernel"] + head["transform"]["bias"][None, None], False))
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + TEXT.layer_norm_eps)
        x = x * head["norm"]["scale"] + head["norm"]["bias"]
        logits = x @ params()[f"{name}_encoder"]["word"]["embedding"].T + head["bias"]
        predicted: PredictedTokens = getattr(found, name)
        labels = np.asarray(b[f"{name}_labels"])
        assert predicted.labels.shape == (B, most)  # 15 % of 16 tokens and of 6, rounded up
        for row in range(B):
            (places,) = np.nonzero(labels[row] >= 0)
            count = len(places)
            assert predicted.labels[row].tolist() == [*labels[row, places].tolist(), *[-1] * (most - count)]
            np.testing.assert_allclose(predicted.logits[row, :count], logits[row, places], atol=1e-5)


def test_titles_are_predicted_given_the_image_if_it_exists():
    before, after = run_model().title, run_model(image=255 - batch()["image"]).title
    assert np.abs(before.logits[0] - after.logits[0]).max() > 1e-6
    np.testing.assert_array_equal(before.logits[2, 0], after.logits[2, 0])  # row 2 has no picture


def test_pixels_of_masked_patches_reach_no_prediction_and_others_do():
    hidden = np.kron(np.asarray(batch()["patch_mask"]).reshape(B, 2, 3), np.ones((PATCH, PATCH), bool))[..., None]
    image, other = np.asarray(batch()["image"]), 255 - np.asarray(batch()["image"])
    before, after = run_model().patches, run_model(image=jnp.asarray(np.where(hidden, other, image))).patches
    np.testing.assert_array_equal(before.predictions, after.predictions)
    assert not np.array_equal(before.pixels, after.pixels)
    seen = run_model(image=jnp.asarray(np.where(hidden, image, other))).patches
    assert (np.abs(before.predictions - seen.predictions).max(axis=(1, 2)) > 1e-6).all()
    np.testing.assert_array_equal(before.pixels[before.valid], seen.pixels[before.valid])


def test_targets_are_normalized_pixels_of_masked_patches_that_are_not_flat():
    found, dense = run_model().patches, params()["patch_head"]["target"]
    assert found.valid.tolist() == [[False, True], [True, True], [False, False], [True, True]]  # flat; no picture
    image = np.asarray(batch()["image"]) / 255.0
    for row in range(B):
        for k, place in enumerate(np.flatnonzero(batch()["patch_mask"][row])):
            if found.valid[row, k]:
                top, left = place // 3 * PATCH, place % 3 * PATCH
                x = image[row, top : top + PATCH, left : left + PATCH].reshape(-1)
                assert x.std() > FLAT
                x = (x - x.mean()) / x.std()
                np.testing.assert_allclose(found.pixels[row, k], x, atol=1e-4)
                target = x @ dense["kernel"] + dense["bias"]
                np.testing.assert_allclose(found.targets[row, k], target / np.linalg.norm(target), atol=1e-5)
                np.testing.assert_allclose(np.linalg.norm(found.predictions[row, k]), 1, atol=1e-5)


def test_regression_predicts_the_pixels_themselves():
    head = PatchHead("regression", 24, PATCH, 2)
    states = jax.random.normal(jax.random.key(0), (B, 6, 24))
    variables = filled(head.init, jax.random.key(1), states, batch()["image"], batch()["patch_mask"])
    found = jax.jit(head.apply)(variables, states, batch()["image"], batch()["patch_mask"])
    assert found.targets is None and found.predictions.shape == found.pixels.shape == (B, 2, 48)
    dense = variables["params"]["predict"]
    np.testing.assert_allclose(found.predictions[0, 1], states[0, 4] @ dense["kernel"] + dense["bias"], atol=1e-5)
