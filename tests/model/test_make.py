"""The model: Modal Adaptation, missing modalities, number formats."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import AdaptationConfig, Config, ImageConfig, InputsConfig, ModelConfig, TextConfig, check
from make_jax.errors import InputError
from make_jax.model.make import Make
from make_jax.model.modal_adaptation import MODALITY_WEIGHTS, ModalityWeights, equal_weights
from make_jax.model.transformer import l2_normalize

B, VOCABULARY = 4, 50
TEXT = TextConfig(layers=1, width=16, heads=2, mlp_width=32)
TINY = ModelConfig(
    query=TEXT, title=TEXT, image=ImageConfig(layers=1, width=16, heads=2, mlp_width=32), embedding_dim=16,
    adaptation=AdaptationConfig(gate_width=8),
)  # fmt: skip
INPUTS = InputsConfig(max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=24)
FORMS = {
    "full": AdaptationConfig(gate_width=8, weights="gate", cross_attention=True),
    "no cross-attention": AdaptationConfig(gate_width=8, weights="gate"),
    "per_keyword": AdaptationConfig(),
    "mean": AdaptationConfig(weights="mean"),
    "single stream": AdaptationConfig(single_stream=True),
    "title": AdaptationConfig(modalities="title"),
    "image": AdaptationConfig(modalities="image"),
}


@cache
def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    arrays = {
        "query_tokens": rng.integers(0, VOCABULARY, (B, 6)).astype(np.int32),
        "query_mask": np.arange(6)[None] < np.array([6, 3, 1, 2])[:, None],
        "title_tokens": rng.integers(0, VOCABULARY, (B, 8)).astype(np.int32),
        "title_mask": np.arange(8)[None] < np.array([8, 5, 2, 4])[:, None],
        "image": rng.integers(0, 256, (B, 16, 24, 3)).astype(np.uint8),
        "has_title": np.array([True, False, True, True]),
        "has_image": np.array([True, True, False, True]),
    }
    return {name: jnp.asarray(value) for name, value in arrays.items()}


@cache
def made(form: str = "full") -> tuple[Make, Any]:
    model = Make(replace(TINY, adaptation=FORMS[form]), INPUTS, VOCABULARY)
    params = jax.jit(model.init)(jax.random.key(0), batch())["params"]
    # The gate starts at equal weights; a random last layer makes them differ.
    if form in ("full", "no cross-attention"):
        kernel = params["adaptation"]["gate_out"]["kernel"]
        params["adaptation"]["gate_out"]["kernel"] = jax.random.normal(jax.random.key(1), kernel.shape)
    return model, params


@cache
def program(form: str) -> Any:
    """Product vectors of (parameters, rows), compiled once per form."""
    model, _ = made(form)
    return jax.jit(lambda params, rows: model.apply({"params": params}, **rows, method=Make.product_embedding))


def products(form: str = "full", params: Any = None, **changed: Any):
    names = ("title_tokens", "title_mask", "image", "has_title", "has_image")
    rows = {name: batch()[name] for name in names} | changed
    return program(form)(made(form)[1] if params is None else params, rows)


@pytest.mark.parametrize("form", FORMS)
def test_vectors_have_unit_length_and_weights_sum_to_1(form):
    model, params = made(form)
    out = jax.jit(model.apply)({"params": params}, batch())
    np.testing.assert_allclose(np.linalg.norm(out.query.vectors, axis=-1), 1, atol=1e-5)
    present = {"title": batch()["has_title"], "image": batch()["has_image"]}.get(form, np.ones(B, bool))
    np.testing.assert_allclose(np.linalg.norm(out.product.vectors, axis=-1)[present], 1, atol=1e-5)
    np.testing.assert_allclose(out.product.weights.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("form", ["full", "no cross-attention", "per_keyword", "mean", "single stream"])
def test_missing_modality_has_weight_exactly_0(form):
    weights = np.asarray(products(form).weights)
    assert weights[1].tolist() == [0, 1]
    assert weights[2].tolist() == [1, 0]
    assert 0 < weights[0, 0] < 1


@pytest.mark.parametrize("form", ["full", "no cross-attention", "per_keyword", "mean", "single stream"])
def test_output_is_independent_of_pixels_and_tokens_that_are_missing(form):
    before = products(form)
    after = products(
        form,
        image=batch()["image"].at[2].set(255 - batch()["image"][2]),
        title_tokens=batch()["title_tokens"].at[1].set(7),
        title_mask=batch()["title_mask"].at[1].set(True),
    )
    np.testing.assert_array_equal(before.vectors, after.vectors)
    np.testing.assert_array_equal(before.weights, after.weights)
    changed = products(form, image=batch()["image"].at[0].set(255 - batch()["image"][0]))
    assert not np.array_equal(before.vectors[0], changed.vectors[0])


@pytest.mark.parametrize("form", ["full", "no cross-attention", "per_keyword", "mean"])
@pytest.mark.parametrize(("row", "tower"), [(2, "image_encoder"), (1, "title_encoder")])
def test_no_gradient_enters_the_tower_of_a_missing_modality(form, row, tower):
    _, params = made(form)
    goal = jax.random.normal(jax.random.key(2), (16,))
    gradients = jax.jit(jax.grad(lambda p, i: products(form, p).vectors[i] @ goal))

    def size(i: int) -> float:
        return float(sum(np.abs(g).sum() for g in jax.tree.leaves(gradients(params, i)[tower])))

    assert size(row) == 0
    assert size(0) > 0


@pytest.mark.parametrize("form", ["no cross-attention", "mean"])
def test_vectors_are_the_weighted_directions(form):
    out = products(form)
    mixed = out.weights[:, :1] * out.title + out.weights[:, 1:] * out.image
    both = jnp.array([0, 3])  # the rows that have title and picture
    expected = mixed / jnp.linalg.norm(mixed, axis=-1, keepdims=True)
    np.testing.assert_allclose(out.vectors[both], expected[both], atol=1e-5)
    assert (form == "mean") == bool(jnp.all(out.weights[both] == 0.5))


def test_padding_tokens_change_nothing():
    model, params = made()
    nothing = jnp.zeros((4, 0), jnp.uint32)

    def encode(tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return apply(tokens, mask, nothing[: len(tokens)])

    apply = jax.jit(lambda *rows: model.apply({"params": params}, *rows, method=Make.query_embedding))
    tokens, mask = batch()["query_tokens"], batch()["query_mask"]
    other = jnp.where(mask, tokens, 9)
    np.testing.assert_allclose(encode(tokens, mask), encode(other, mask), atol=1e-6)
    np.testing.assert_allclose(encode(tokens, mask)[2:3], encode(tokens[2:3, :1], mask[2:3, :1]), atol=1e-6)


def test_bfloat16_computes_near_float32_with_float32_parameters_and_output():
    model, params = made()
    coarse = Make(replace(model.config, dtype="bfloat16"), INPUTS, VOCABULARY)
    fresh = jax.eval_shape(coarse.init, jax.random.key(0), batch())["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    exact, rough = (jax.jit(m.apply)({"params": params}, batch()) for m in (model, coarse))
    for read in (lambda out: out.query.vectors, lambda out: out.product.vectors, lambda out: out.product.weights):
        assert read(rough).dtype == jnp.float32
        np.testing.assert_allclose(read(rough), read(exact), atol=0.05)
    assert not np.array_equal(rough.product.vectors, exact.product.vectors)


def test_remat_gives_the_same_gradients():
    model, params = made()
    saving = Make(replace(model.config, remat=True), INPUTS, VOCABULARY)

    def gradients(m: Make) -> Any:
        def loss(p: Any) -> jax.Array:
            out = m.apply({"params": p}, batch(), train=True, rngs={"dropout": jax.random.key(3)})
            return jnp.sum(out.query.vectors * out.product.vectors)

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients(model), gradients(saving))


def test_unit_of_a_zero_vector_is_0_with_finite_gradient():
    gradient = jax.jit(jax.grad(lambda x: l2_normalize(x).sum()))(jnp.zeros((1, 4)))
    assert np.isfinite(gradient).all()


def test_an_entry_of_the_table_is_all_that_a_new_way_to_weigh_title_and_image_needs(monkeypatch):
    def three_to_one(pooled):
        share = equal_weights(pooled.present) * jnp.array([[3.0, 1.0]])
        return share / jnp.sum(share, axis=-1, keepdims=True)

    monkeypatch.setitem(MODALITY_WEIGHTS, "three_to_one", ModalityWeights(three_to_one))
    config = replace(TINY, adaptation=AdaptationConfig(weights="three_to_one"), keyword_dims=0)
    check(Config(model=config))
    out = Make(config, INPUTS, VOCABULARY).apply({"params": made("mean")[1]}, batch())
    np.testing.assert_allclose(out.product.weights, [[0.75, 0.25], [0, 1], [1, 0], [0.75, 0.25]], atol=1e-6)


def test_an_unknown_way_to_weigh_title_and_image_is_refused_with_the_names_of_the_table():
    model = Make(replace(TINY, adaptation=AdaptationConfig(weights="gates")), INPUTS, VOCABULARY)
    expected = r"model\.adaptation\.weights is 'gates', expected one of gate, mean, per_keyword; did you mean 'gate'\?"
    with pytest.raises(InputError, match=expected):
        jax.eval_shape(model.init, jax.random.key(0), batch())
