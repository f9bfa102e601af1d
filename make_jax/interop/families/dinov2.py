"""DINOv2 (Oquab et al., arXiv 2304.07193), ViT-S to ViT-L, without registers.

Its layers scale what each branch adds. The factors are multiplied into the branch's last matrix, which gives the same
output with no parameter more. The giant has another feed-forward part (SwiGLU) and is not read.
"""

from dataclasses import replace
from typing import Any

from make_jax.interop.families.vit import ATTENTION, VIT
from make_jax.interop.families.vit import settings as vit_settings
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import IMAGENET_MEAN, IMAGENET_STD, dense, norm


def settings(config: JsonObject) -> dict[str, Any]:
    """What config.json says of an ImageConfig."""
    config.expect("use_swiglu_ffn", False)
    given = vit_settings(config)
    return {
        **given,
        "mlp_width": int(given["width"] * config.number("mlp_ratio", 4.0)),
        "patch_size": config.whole("patch_size", 14),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-6),
    }


_SCALE = "encoder.layer.{}.layer_scale"
DINOV2 = replace(
    VIT,
    name="dinov2",
    model_types={"dinov2": ""},
    prefixes=("", "dinov2."),
    layer=(
        *norm("encoder.layer.{}.norm1", "layer_{}/attention_norm"),
        *ATTENTION,
        *dense(
            "encoder.layer.{}.attention.output.dense", "layer_{}/attention/out", "encoder.layer.{}.layer_scale1.lambda1"
        ),
        *norm("encoder.layer.{}.norm2", "layer_{}/mlp_norm"),
        *dense("encoder.layer.{}.mlp.fc1", "layer_{}/mlp/in"),
        *dense("encoder.layer.{}.mlp.fc2", "layer_{}/mlp/out", f"{_SCALE}2.lambda1"),
    ),
    settings=settings,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
