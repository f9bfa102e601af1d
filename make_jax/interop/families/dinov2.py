"""DINOv2 (Oquab et al., arXiv 2304.07193), ViT-S to ViT-L, without registers.

Layer scale is multiplied into the last matrix of each branch, which gives the same output without extra parameters. The
giant model has SwiGLU feed-forward layers and is not supported.
"""

from dataclasses import replace
from typing import Any

from make_jax.interop.encoder_family import IMAGENET_MEAN, IMAGENET_STD
from make_jax.interop.families.vit import ATTENTION, VIT
from make_jax.interop.families.vit import settings as vit_settings
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import dense, layer_norm


def settings(config: JsonObject) -> dict[str, Any]:
    """Returns the fields of ImageConfig that config.json determines."""
    config.expect("use_swiglu_ffn", False)
    given = vit_settings(config)
    return {
        **given,
        "mlp_width": int(given["width"] * config.number("mlp_ratio", 4.0)),
        "patch_size": config.integer("patch_size", 14),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-6),
    }


_SCALE = "encoder.layer.{}.layer_scale"
DINOV2 = replace(
    VIT,
    name="dinov2",
    model_types={"dinov2": ""},
    prefixes=("", "dinov2."),
    layer=(
        *layer_norm("encoder.layer.{}.norm1", "layer_{}/attention_norm"),
        *ATTENTION,
        *dense(
            "encoder.layer.{}.attention.output.dense", "layer_{}/attention/out", "encoder.layer.{}.layer_scale1.lambda1"
        ),
        *layer_norm("encoder.layer.{}.norm2", "layer_{}/mlp_norm"),
        *dense("encoder.layer.{}.mlp.fc1", "layer_{}/mlp/in"),
        *dense("encoder.layer.{}.mlp.fc2", "layer_{}/mlp/out", f"{_SCALE}2.lambda1"),
    ),
    settings=settings,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
