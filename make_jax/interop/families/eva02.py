"""EVA-02 (Fang et al., arXiv 2303.11331) as timm publishes it: `timm/eva02_*_patch14_*`, tiny to large.

Learned and rotary positions, a class token, keys without bias, SwiGLU; base and large have a sub-LayerNorm in the MLP
and separate query, key and value matrices, tiny and small one matrix for all three. config.json has the name of the
architecture instead of sizes. timm norms patch states before or after it averages them (`norm`, `fc_norm`); our encoder
applies that norm to all states. EVA-02-CLIP has other layers and is not supported.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from make_jax.errors import InputError
from make_jax.interop.encoder_family import OPENAI_MEAN, OPENAI_STD, EncoderFamily
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import ParamMapping, dense, identity, layer_norm, patch_conv, squeeze_batch

# Width, layers, heads.
_SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_SUB_NORM = ("base", "large")
_TRAINED_GRID = 16  # patches per side in pre-training, of all sizes
# Arguments of timm.create_model that this file reads, or that change no state.
_READ = ("embed_dim", "depth", "num_heads", "patch_size", "mlp_ratio")
_ARGUMENTS = {*_READ, "img_size", "in_chans", "num_classes", "global_pool"}


def _architecture(config: JsonObject) -> tuple[str, int]:
    """The size and the pixels per side in the name, such as eva02_base_patch14_224."""
    name = config.string("architecture", "eva02_base_patch14_224")
    match = re.fullmatch(r"eva02_(\w+)_patch14_(\d+)", name)
    assert match is not None, name  # one of `model_types`
    return match[1], int(match[2])


def _arguments(config: JsonObject) -> JsonObject:
    """The arguments of timm.create_model, which timm saves where they differ from the architecture's."""
    arguments = config.section("model_args")
    if unknown := sorted(arguments.values.keys() - _ARGUMENTS):
        raise InputError(f"{arguments.where}: has {', '.join(unknown)}, expected only {', '.join(sorted(_ARGUMENTS))}")
    return arguments


def settings(config: JsonObject) -> dict[str, Any]:
    """Returns the fields of ImageConfig that config.json determines."""
    size, _ = _architecture(config)
    arguments = _arguments(config)
    width, layers, heads = _SIZES[size]
    width = arguments.integer("embed_dim", width)
    return {
        "layers": arguments.integer("depth", layers),
        "width": width,
        "heads": arguments.integer("num_heads", heads),
        "mlp_width": int(width * arguments.number("mlp_ratio", 4 * 2 / 3)),
        "patch_size": arguments.integer("patch_size", 14),
        "layer_norm_eps": 1e-6,
        "activation": "swiglu",
        "class_tokens": 1,
        "embedding_norm": False,
        "mlp_sub_norm": size in _SUB_NORM,
        "key_bias": False,
        "rotary_grid": _TRAINED_GRID,
    }


def image_size(config: JsonObject) -> int:
    """Returns the pixels per side. InputError for images that are not square or not RGB."""
    _, side = _architecture(config)
    pretrained = config.section("pretrained_cfg")
    shape = pretrained.values.get("input_size", [3, side, side])
    if not (isinstance(shape, list) and shape == [3, shape[-1], shape[-1]] and type(shape[-1]) is int):
        raise InputError(f"{pretrained.where}: input_size is {shape!r}, expected [3, n, n]")
    return shape[-1]


def _names(sizes: tuple[str, ...], sides: tuple[int, ...]) -> dict[str, str]:
    return {f"eva02_{size}_patch14_{side}": "" for size in sizes for side in sides}


def part(index: int, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a transform: one of `count` equal parts of the outputs of a matrix, or of its bias."""
    return lambda tensor: np.split(tensor, count)[index].T


_ATTENTION, _MLP = "blocks.{}.attn", "blocks.{}.mlp"
_COMMON = (
    *layer_norm("blocks.{}.norm1", "layer_{}/attention_norm"),
    *dense(f"{_ATTENTION}.proj", "layer_{}/attention/out"),
    *layer_norm("blocks.{}.norm2", "layer_{}/mlp_norm"),
    *dense(f"{_MLP}.fc2", "layer_{}/mlp/out"),
)

EVA02_BASE = EncoderFamily(
    name="eva02-base",
    kind="image",
    model_types=_names(_SUB_NORM, (224, 448)),
    prefixes=("",),
    embeddings=(
        ParamMapping("class", ("cls_token",), identity, (3,)),
        *patch_conv("patch_embed.proj"),
        ParamMapping("position", ("pos_embed",), squeeze_batch, (3,)),
        *layer_norm("norm", "norm"),
    ),
    layer=(
        *_COMMON,
        *dense(f"{_ATTENTION}.q_proj", "layer_{}/attention/query"),
        ParamMapping("layer_{}/attention/key/kernel", (f"{_ATTENTION}.k_proj.weight",), np.transpose, (2,)),
        *dense(f"{_ATTENTION}.v_proj", "layer_{}/attention/value"),
        *dense(f"{_MLP}.fc1_g", "layer_{}/mlp/gate"),
        *dense(f"{_MLP}.fc1_x", "layer_{}/mlp/in"),
        *layer_norm(f"{_MLP}.norm", "layer_{}/mlp/norm"),
    ),
    settings=settings,
    size=image_size,
    ignored=("head.", "rope."),
    aliases={"fc_norm.": "norm."},
    mean=OPENAI_MEAN,
    std=OPENAI_STD,
    pooling="mean",
)
EVA02_SMALL = replace(
    EVA02_BASE,
    name="eva02-small",
    model_types=_names(("tiny", "small"), (224, 336)),
    layer=(
        *_COMMON,
        *(
            ParamMapping(f"layer_{{}}/attention/{name}/kernel", (f"{_ATTENTION}.qkv.weight",), part(index, 3), (2,))
            for index, name in enumerate(("query", "key", "value"))
        ),
        ParamMapping("layer_{}/attention/query/bias", (f"{_ATTENTION}.q_bias",), identity, (1,)),
        ParamMapping("layer_{}/attention/value/bias", (f"{_ATTENTION}.v_bias",), identity, (1,)),
        *(
            ParamMapping(f"layer_{{}}/mlp/{name}/{kind}", (f"{_MLP}.fc1.{tensor}",), part(index, 2), (rank,))
            for index, name in enumerate(("gate", "in"))
            for kind, tensor, rank in (("kernel", "weight", 2), ("bias", "bias", 1))
        ),
    ),
)
