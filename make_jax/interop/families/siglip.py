"""The vision towers of SigLIP (Zhai et al., arXiv 2303.15343) and SigLIP 2 (Tschannen et al., arXiv 2502.14786).

They have no class token. The attention head that pools is ignored: the imported output is last_hidden_state, the patch
states after the last norm. SigLIP 2 models of a fixed resolution are published as SigLIP; those of variable resolution
(NaFlex) take flattened patches and resample positions bilinearly. The text towers are pre-norm and not supported.
"""

from dataclasses import replace
from typing import Any

from make_jax.interop.encoder_family import HALF, EncoderFamily, activation
from make_jax.interop.families.clip import LAYER, POSITIONS
from make_jax.interop.families.clip import settings as clip_settings
from make_jax.interop.families.vit import ACTIVATIONS
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import ParamMapping, dense, layer_norm, patch_conv


def settings(config: JsonObject) -> dict[str, Any]:
    """Returns the fields of ImageConfig that config.json determines."""
    return {
        **clip_settings(config),
        "patch_size": config.integer("patch_size", 16),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-6),
        "activation": activation(config, "gelu_pytorch_tanh", ACTIVATIONS),
        "class_tokens": 0,
        "embedding_norm": False,
    }


def _side(config: JsonObject) -> int:
    """Pixels per side of the square that the positions of SigLIP 2 cover."""
    return round(config.integer("num_patches", 256) ** 0.5) * config.integer("patch_size", 16)


_REST: tuple[ParamMapping, ...] = (POSITIONS, *layer_norm("post_layernorm", "norm"))

SIGLIP = EncoderFamily(
    name="siglip",
    kind="image",
    model_types={"siglip": "vision_config", "siglip_vision_model": ""},
    prefixes=("vision_model.", ""),
    embeddings=(*patch_conv("embeddings.patch_embedding"), *_REST),
    layer=LAYER,
    settings=settings,
    size=lambda config: config.integer("image_size", 224),
    ignored=("head.", "embeddings.position_ids"),
    mean=HALF,
    std=HALF,
    pooling="attention",
)
SIGLIP2 = replace(
    SIGLIP,
    name="siglip2",
    model_types={"siglip2": "vision_config", "siglip2_vision_model": ""},
    embeddings=(*dense("embeddings.patch_embedding", "patch"), *_REST),
    size=_side,
    resample="bilinear",
)
