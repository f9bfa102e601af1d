"""The vision towers of SigLIP (Zhai et al., arXiv 2303.15343) and SigLIP 2 (Tschannen et al., arXiv 2502.14786).

No class token. Their pooled output comes from an attention head, which is left out: what is taken are the patch states
after the last norm, their last_hidden_state. Of SigLIP 2, sizes of one resolution are published as SigLIP; those of
any resolution (NaFlex) keep patches as rows and resample positions bilinearly. The text towers norm before each
branch, and so are not read.
"""

from dataclasses import replace
from typing import Any

from make_jax.interop.families.clip import LAYER, POSITIONS
from make_jax.interop.families.clip import settings as clip_settings
from make_jax.interop.families.vit import ACTIVATIONS
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import HALF, EncoderFamily, ParamMapping, activation, dense, filters, norm


def settings(config: JsonObject) -> dict[str, Any]:
    """What config.json says of an ImageConfig."""
    return {
        **clip_settings(config),
        "patch_size": config.whole("patch_size", 16),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-6),
        "activation": activation(config, "gelu_pytorch_tanh", ACTIVATIONS),
        "class_tokens": 0,
        "embedding_norm": False,
    }


def _side(config: JsonObject) -> int:
    """Pixels a side of the square that SigLIP 2's positions cover."""
    return round(config.whole("num_patches", 256) ** 0.5) * config.whole("patch_size", 16)


_REST: tuple[ParamMapping, ...] = (POSITIONS, *norm("post_layernorm", "norm"))

SIGLIP = EncoderFamily(
    name="siglip",
    kind="image",
    model_types={"siglip": "vision_config", "siglip_vision_model": ""},
    prefixes=("vision_model.", ""),
    embeddings=(*filters("embeddings.patch_embedding"), *_REST),
    layer=LAYER,
    settings=settings,
    size=lambda config: config.whole("image_size", 224),
    left_out=("head.", "embeddings.position_ids"),
    mean=HALF,
    std=HALF,
    pooling="mean",
)
SIGLIP2 = replace(
    SIGLIP,
    name="siglip2",
    model_types={"siglip2": "vision_config", "siglip2_vision_model": ""},
    embeddings=(*dense("embeddings.patch_embedding", "patch"), *_REST),
    size=_side,
    resample="bilinear",
)
