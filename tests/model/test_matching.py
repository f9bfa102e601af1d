"""The matching encoder: every product tower, missing modalities, padding, number formats."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import AdaptationConfig, MatchingConfig
from make_jax.model.make import Make
from make_jax.model.modal_adaptation import ProductStates
from tests.model.test_make import INPUTS, TINY, VOCABULARY, B, batch

MATCHING = MatchingConfig(layers=1, width=12, heads=2, mlp_width=16)
FORMS = {
    "both": AdaptationConfig(gate_width=8),
    "single stream": AdaptationConfig(single_stream=True),
    "title": AdaptationConfig(modalities="title"),
    "image": AdaptationConfig(modalities="image"),
}


@cache
def made(form: str = "both") -> tuple[Make, Any]:
    model = Make(replace(TINY, adaptation=FORMS[form], matching=MATCHING), INPUTS, VOCABULARY)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch())["params"]  # shapes of init, without compiling it
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@cache
def program(form: str = "both") -> Any:
    """Both logits of (parameters, batch), compiled once per form."""
    model, _ = made(form)

    @jax.jit
    def logits(params: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        variables = {"params": params}
        out = model.apply(variables, rows)
        targets = ["item"] if out.states.image is None else ["item", "image"]
        states = (out.query.states, rows["query_mask"], out.states)
        return {target: model.apply(variables, *states, target, method=Make.match) for target in targets}

    return logits


def match(form: str = "both", **changed: Any) -> dict[str, np.ndarray]:
    return jax.tree.map(np.asarray, program(form)(made(form)[1], dict(batch()) | changed))


@pytest.mark.parametrize("form", FORMS)
def test_init_on_a_plain_batch_creates_all_parameters_of_matching(form):
    found = match(form)
    assert set(found) == ({"item"} if form == "title" else {"item", "image"})
    for logits in found.values():
        assert logits.shape == (B,) and logits.dtype == np.float32
        assert np.isfinite(logits).all() and len(np.unique(logits)) == B
    names = set(made(form)[1]["matching"])
    assert ("image_head" in names, "title" in names) == (form != "title", form != "image")
    assert "matching" not in jax.eval_shape(Make(TINY, INPUTS, VOCABULARY).init, jax.random.key(0), batch())["params"]


@pytest.mark.parametrize("form", ["both", "single stream"])
def test_missing_modality_does_not_leak_and_a_present_one_counts(form):
    before = match(form)
    pixels, tokens = batch()["image"], batch()["title_tokens"]
    after = match(form, image=pixels.at[2].set(255 - pixels[2]), title_tokens=tokens.at[1].set(7),
                  title_mask=batch()["title_mask"].at[1].set(True))  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert match(form, image=pixels.at[0].set(255 - pixels[0]))["item"][0] != before["item"][0]
    assert match(form, title_tokens=tokens.at[0].set(7))["item"][0] != before["item"][0]


def test_image_logit_reads_no_title():
    before, after = match(), match(title_tokens=(batch()["title_tokens"] + 1) % VOCABULARY)
    np.testing.assert_array_equal(before["image"], after["image"])
    assert not np.array_equal(before["item"], after["item"])


def test_no_gradient_enters_states_that_are_masked_and_nothing_in_them_counts():
    model, params = made()
    rng = np.random.default_rng(0)
    query, title, image = (jnp.asarray(rng.normal(size=(2, n, 16)), jnp.float32) for n in (3, 4, 6))
    query_mask = jnp.asarray([[True, True, False], [False, False, False]])
    title_mask = jnp.asarray([[True, False, True, True], [False] * 4])
    image_mask = jnp.asarray([[False] * 6, [True] * 6])

    def total(query: jax.Array, title: jax.Array, image: jax.Array) -> jax.Array:
        states = ProductStates(title, title_mask, image, image_mask)
        return model.apply({"params": params}, query, query_mask, states, "item", method=Make.match).sum()

    program = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    value, gradients = program(query, title, image)
    for gradient, mask in zip(gradients, (query_mask, title_mask, image_mask), strict=True):
        assert not np.asarray(gradient)[~np.asarray(mask)].any()
    assert all(np.asarray(gradient)[0].any() for gradient in gradients[:2])
    spoiled = [jnp.where(m[..., None], x, jnp.inf) for x, m in ((title, title_mask), (image, image_mask))]
    assert program(query, *spoiled)[0] == value


def test_bfloat16_with_remat_computes_near_float32():
    model, params = made()
    coarse = Make(replace(model.config, dtype="bfloat16", remat=True), INPUTS, VOCABULARY)

    @jax.jit
    def logits(rows: dict[str, jax.Array]) -> jax.Array:
        out = coarse.apply({"params": params}, rows)
        states = (out.query.states, rows["query_mask"], out.states)
        return coarse.apply({"params": params}, *states, "item", True, method=Make.match)

    found = logits(dict(batch()))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, match()["item"], atol=0.05)
    assert not np.array_equal(found, match()["item"])
