"""Every implementation of attention against the plain one, in value and gradient; what cannot run is refused."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from make_jax.config import AdaptationConfig, ImageConfig, InputsConfig, MatchingConfig, ModelConfig, TextConfig
from make_jax.errors import InputError
from make_jax.model import attention
from make_jax.model.attention import (
    ATTENTION_IMPLEMENTATIONS,
    AttentionImplementation,
    check_attention,
    traceable_attention,
    xla_attention,
)
from make_jax.model.layer_config import ComputeConfig, layer_config
from make_jax.model.make import Make
from make_jax.model.text import TextEncoder
from make_jax.model.transformer import KERNEL_INIT, Attention

EVERYWHERE = [name for name, entry in ATTENTION_IMPLEMENTATIONS.items() if not entry.platforms]
TOLERANCE = {"float32": 1e-5, "bfloat16": 2**-7}
MASK = np.arange(5)[None] < np.array([5, 3, 0])[:, None]  # the last row has no real key
TEXT = TextConfig(layers=1, width=16, heads=2, mlp_width=16)


def keep(weights: Any) -> Any:
    """Drops nothing."""
    return weights


def states(length: int, seed: int, dtype: str) -> jax.Array:
    """Random [3, length, 2, 8]."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, length, 2, 8)), dtype)


def reference(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The formula in float64, one row and head at a time; 0 for rows without a real key."""
    out = np.zeros(query.shape)
    for row, head in np.ndindex(query.shape[0], query.shape[2]):
        real = slice(None) if mask is None else mask[row]
        keys, values = key[row, real, head], value[row, real, head]
        if len(keys):
            logits = query[row, :, head] @ keys.T / np.sqrt(query.shape[-1])
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[row, :, head] = weights / weights.sum(-1, keepdims=True) @ values
    return out


def relative_error(ours: Any, theirs: Any) -> float:
    """max |difference| / max |theirs|."""
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", EVERYWHERE)
def test_every_implementation_equals_the_formula_and_the_gradients_of_the_plain_one(name, masked, dtype):
    inputs = (states(4, 0, dtype), states(5, 1, dtype), states(5, 2, dtype))
    mask = jnp.asarray(MASK) if masked else None
    used = jnp.asarray(MASK.any(1) if masked else np.ones(3, bool))[:, None, None, None]

    def result(function: Any, inputs: Any) -> Any:
        out = jnp.where(used, function(*inputs, mask, keep), jnp.zeros((), dtype))
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    def both(function: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda x: result(function, x), has_aux=True))(inputs)

    (_, out), gradients = both(ATTENTION_IMPLEMENTATIONS[name].function)
    assert out.dtype == dtype
    exact = reference(*(np.asarray(x, np.float64) for x in inputs), MASK if masked else None)
    assert relative_error(out, exact) <= TOLERANCE[dtype]
    _, expected = both(xla_attention)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert np.isfinite(np.asarray(ours, np.float32)).all()
        assert relative_error(ours, theirs) <= TOLERANCE[dtype]


def test_an_encoder_computes_the_same_with_either_implementation_and_gradients_too():
    tokens, mask = jnp.arange(15).reshape(3, 5), jnp.asarray(MASK)
    encoders = [TextEncoder(TEXT, 20, 5, ComputeConfig(attention=name)) for name in ("xla", "dot_product")]
    params = encoders[0].init(jax.random.key(0), tokens, mask)

    def loss(encoder: TextEncoder, params: Any) -> Any:
        return jnp.sum(jnp.sin(encoder.apply(params, tokens, mask)) * mask[..., None])

    ours, theirs = (jax.jit(jax.value_and_grad(lambda p, e=e: loss(e, p)))(params) for e in encoders)
    assert relative_error(ours[0], theirs[0]) <= 1e-5
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(theirs[1]))
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("single_stream", [False, True])
def test_an_added_implementation_is_used_by_every_part_of_the_model(monkeypatch, single_stream):
    calls: list[tuple[int, int]] = []

    def mine(query: Any, key: Any, value: Any, mask: Any, drop: Any) -> Any:
        calls.append((query.shape[1], key.shape[1]))
        return xla_attention(query, key, value, mask, drop)

    monkeypatch.setitem(ATTENTION_IMPLEMENTATIONS, "mine", AttentionImplementation(mine, supports_dropout=True))
    monkeypatch.delitem(ATTENTION_IMPLEMENTATIONS, "xla")
    small = {"layers": 1, "width": 16, "heads": 2, "mlp_width": 16}
    config = ModelConfig(
        query=TEXT,
        title=TEXT,
        image=ImageConfig(**small),
        matching=MatchingConfig(**small),
        mlm=True,
        embedding_dim=8,
        adaptation=AdaptationConfig(single_stream=single_stream),
        attention="mine",
    )
    batch = {
        "query_tokens": jnp.zeros((1, 3), int),
        "query_mask": jnp.ones((1, 3), bool),
        "title_tokens": jnp.zeros((1, 5), int),
        "title_mask": jnp.ones((1, 5), bool),
        "image": jnp.zeros((1, 16, 16, 3), jnp.uint8),
        "has_title": jnp.ones(1, bool),
        "has_image": jnp.ones(1, bool),
    }
    inputs = InputsConfig(max_query_tokens=3, max_title_tokens=5, image_height=16, image_width=16)
    jax.eval_shape(Make(config, inputs, 20).init, jax.random.key(0), batch)
    query, product = (3, 3), (9, 9) if single_stream else (5, 5)  # 5 tokens, 4 patches and a class token
    matching = {(3, 9), (3, 4)}  # the query attends title and patches, or patches alone
    title_head = set() if single_stream else {(1, 4)}  # a masked title token attends patches
    assert {query, product} | matching | title_head <= set(calls)


def test_attention_dropout_can_be_turned_off_alone():
    x = jnp.ones((2, 4, 16)) * jnp.arange(4.0)[None, :, None]
    outputs = {}
    for on in (True, False):
        config = layer_config(replace(TEXT, dropout=0.5), ComputeConfig(attention_dropout=on))
        module = Attention(config, KERNEL_INIT)
        params = module.init(jax.random.key(0), x, x, None, False)
        outputs[on] = [module.apply(params, x, x, None, t, rngs={"dropout": jax.random.key(1)}) for t in (True, False)]
    assert np.array_equal(*outputs[False])
    assert not np.array_equal(*outputs[True])


def test_an_unknown_implementation_is_refused_with_the_nearest_name():
    expected = r"model\.attention is 'cuDNN', expected one of cudnn, dot_product, xla; did you mean 'cudnn'\?"
    with pytest.raises(InputError, match=expected):
        check_attention(ModelConfig(attention="cuDNN"))
    with pytest.raises(InputError, match=expected):
        TextEncoder(TEXT, 20, 5, ComputeConfig(attention="cuDNN")).init(
            jax.random.key(0), jnp.zeros((1, 5), int), jnp.ones((1, 5), bool)
        )


def test_fused_attention_refuses_dropout_on_probabilities_and_names_the_setting():
    config = ModelConfig(attention="dot_product")
    with pytest.raises(
        InputError,
        match=r"model\.attention is 'dot_product', which cannot drop attention probabilities, with "
        r"model\.query\.dropout 0\.1, model\.title\.dropout 0\.1; set --model\.no-attention-dropout",
    ):
        check_attention(config)
    check_attention(replace(config, attention_dropout=False))
    still = replace(TEXT, dropout=0.0)
    check_attention(replace(config, query=still, title=still))
    check_attention(replace(config, query=still, adaptation=AdaptationConfig(modalities="image")))  # has no title
    with pytest.raises(InputError, match=r"model\.matching\.dropout"):
        check_attention(replace(config, query=still, title=still, matching=MatchingConfig(layers=1, dropout=0.1)))
    module = Attention(layer_config(TEXT, ComputeConfig(attention="dot_product")), KERNEL_INIT)
    x = jnp.ones((1, 3, 16))
    params = module.init(jax.random.key(0), x, x, None, False)
    with pytest.raises(InputError, match="attention_dropout"):
        module.apply(params, x, x, None, True, rngs={"dropout": jax.random.key(1)})


def pretend_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets JAX trace cuDNN's attention on a CPU; it cannot be compiled there."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)


@pytest.mark.parametrize("masked", [False, True])
def test_cudnn_attention_can_be_traced_for_odd_lengths_forward_and_backward(monkeypatch, masked):
    pretend_cudnn(monkeypatch)
    inputs = (states(3, 0, "bfloat16"), states(5, 1, "bfloat16"), states(5, 2, "bfloat16"))

    def loss(*inputs: Any) -> Any:
        out = attention.cudnn_attention(*inputs, jnp.asarray(MASK) if masked else None, keep)
        return jnp.sum(out.astype(jnp.float32)), out

    gradients, out = jax.eval_shape(jax.grad(loss, argnums=(0, 1, 2), has_aux=True), *inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]
    assert (out.shape, out.dtype) == (inputs[0].shape, jnp.bfloat16)


def test_cudnn_attention_refuses_float32_and_machines_without_cudnn(monkeypatch):
    inputs = [states(4, seed, "float32") for seed in range(3)]
    expected = r"model\.attention is 'cudnn': .*expected model\.dtype bfloat16 and an NVIDIA GPU with cuDNN"
    with pytest.raises(InputError, match=expected):
        attention.cudnn_attention(*inputs, None, keep)
    pretend_cudnn(monkeypatch)
    with pytest.raises(InputError, match=expected):
        attention.cudnn_attention(*inputs, None, keep)


def test_a_run_trained_with_another_devices_attention_is_searched_with_dot_product():
    assert traceable_attention("cudnn") == "dot_product"  # tests run on CPU
    assert traceable_attention("xla") == "xla"
    x = jnp.ones((1, 3, 16))
    module = Attention(layer_config(TEXT, ComputeConfig(attention="cudnn")), KERNEL_INIT)
    plain = Attention(layer_config(TEXT, ComputeConfig(attention="dot_product")), KERNEL_INIT)
    params = module.init(jax.random.key(0), x, x, None, False)
    np.testing.assert_array_equal(module.apply(params, x, x, None, False), plain.apply(params, x, x, None, False))
