"""Tiny models of every layout with random parameters, and their inputs: for tests of exports."""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from PIL import Image

from make_jax.catalog.keywords import Keyword, KeywordVocabulary
from make_jax.config import AdaptationConfig, Config, ImageConfig, InputsConfig, ModelConfig, TextConfig
from make_jax.inputs.batch import PRODUCT_INPUTS
from make_jax.inputs.tokenizer import train_wordpiece
from make_jax.interop import torch_checkpoint
from make_jax.interop.bundle import ModelBundle, search_config
from make_jax.model.make import Make
from make_jax.runs.convert import import_torch

SPREAD = 0.5  # of parameters: far from 0 and from the identity, and keyword logits on both sides of what clips them
TEXT = TextConfig(layers=2, width=16, heads=2, mlp_width=32, activation="gelu_tanh")
IMAGE = ImageConfig(layers=2, width=16, heads=2, mlp_width=32)
_PLAIN = ModelConfig(query=TEXT, title=TEXT, image=IMAGE, embedding_dim=8)
GATE = AdaptationConfig(weights="gate", gate_width=8)
MODELS = {
    "fashion": _PLAIN,
    "bare": replace(_PLAIN, enrichment=False, keyword_dims=0, adaptation=GATE),
    "gate, cross-attention, two class tokens, other width": replace(
        _PLAIN,
        image=replace(IMAGE, width=24, class_tokens=2, activation="gelu_tanh"),
        adaptation=replace(GATE, cross_attention=True),
        pooling="cls",
    ),
    "norm before the layers, image alone": replace(
        _PLAIN,
        image=replace(IMAGE, activation="quick_gelu", embedding_norm=True),
        adaptation=AdaptationConfig(modalities="image"),
    ),
    "no class token, shared text, not normalized": replace(
        _PLAIN,
        image=replace(IMAGE, class_tokens=0),
        shared_text=True,
        l2_normalize=False,
        adaptation=AdaptationConfig(weights="mean"),
    ),
    "title alone": replace(_PLAIN, adaptation=AdaptationConfig(modalities="title"), title=replace(TEXT, width=24)),
    "rotary positions, SwiGLU, sub-norm, no key bias": replace(
        _PLAIN,
        image=replace(IMAGE, activation="swiglu", mlp_sub_norm=True, key_bias=False, rotary_grid=16),
        attention_dropout=False,
    ),
    "single stream": replace(_PLAIN, adaptation=AdaptationConfig(single_stream=True)),
}
TITLES = ["red shirt 1 2 3", "", "blue"]
TEXTS = ["red shirt", "a blue round one", ""]


def png(seed: int) -> bytes:
    """A PNG of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(0), png(1), None]


def tiny_bundle(model: ModelConfig, **settings: Any) -> ModelBundle:
    """The bundle of such a model."""
    inputs = InputsConfig(max_query_tokens=6, max_title_tokens=8, image_height=32, image_width=24)
    tokenizer = train_wordpiece(["red shirt", "blue round dress number 1 2 3", "a green one"] * 3, 100)
    colours = [Keyword("colour", name, (name,), 1) for name in ("red", "blue", "green")]
    keywords = KeywordVocabulary((*colours, Keyword("term", "shirt", ("shirt",), 1)))
    config = search_config(Config(inputs=inputs, model=model, **settings))
    origin = {"run": "tiny", "checkpoint": "best", "step": 3}
    return ModelBundle(config, tokenizer, keywords, torch_checkpoint.CONSTANTS, origin)


def random_params(bundle: ModelBundle) -> Any:
    """Random parameters, far from any initial values."""
    rng = np.random.default_rng(0)
    shapes = torch_checkpoint.param_shapes(bundle)
    return unflatten_dict(
        {path: (SPREAD * rng.normal(size=shape)).astype(np.float32) for path, shape in shapes.items()}, sep="/"
    )


def random_run(folder: Path, model: ModelConfig = MODELS["fashion"]) -> Path:
    """A run whose parameters are random, not measured, in an existing folder."""
    bundle = tiny_bundle(model)
    (folder / "export").mkdir()
    torch_checkpoint.write(folder / "export", random_params(bundle), bundle)
    import_torch(str(folder / "export"), str(folder / "run"), print)
    return folder / "run"


def flax_outputs(bundle: ModelBundle, params: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query vectors, product vectors and weights of TEXTS, TITLES and IMAGES by the Flax module."""
    make = torch_checkpoint.make_module(bundle)
    variables = jax.tree.map(jnp.asarray, {"params": params})
    queries, products = bundle.queries(TEXTS), bundle.products(TITLES, IMAGES)
    packed = bundle.keywords.pack([bundle.keywords.tag(text) for text in TEXTS])
    rows = (queries["query_tokens"], queries["query_mask"], packed)
    query = jax.jit(partial(make.apply, method=Make.query_embedding))(variables, *rows)
    product = (products[name] for name in PRODUCT_INPUTS)
    fused = jax.jit(partial(make.apply, method=Make.product_embedding))(variables, *product)
    return np.asarray(query), np.asarray(fused.vectors), np.asarray(fused.weights)


def assert_close(ours: Any, theirs: Any, most: float = 1e-5) -> None:
    """max |difference| / max |ours|."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(ours).max()
    assert error <= most, f"{error:.2e}"
