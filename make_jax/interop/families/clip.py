"""The vision tower of CLIP (Radford et al., arXiv 2103.00020). The text tower is causal and not supported.

The patch embedding has no bias, and a layer norm follows the positions. CLIP applies the last norm to the class token
only, our encoder to all states: position 0 is CLIP's pooled output, before its projection.
"""

from typing import Any

import numpy as np

from make_jax.interop.encoder_family import OPENAI_MEAN, OPENAI_STD, EncoderFamily, activation
from make_jax.interop.families.vit import ACTIVATIONS
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import ParamMapping, dense, flatten_filters, identity, layer_norm


def settings(config: JsonObject) -> dict[str, Any]:
    """Returns the fields of ImageConfig that config.json determines."""
    config.expect("num_channels", 3)
    return {
        "layers": config.integer("num_hidden_layers", 12),
        "width": config.integer("hidden_size", 768),
        "heads": config.integer("num_attention_heads", 12),
        "mlp_width": config.integer("intermediate_size", 3072),
        "patch_size": config.integer("patch_size", 32),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-5),
        "activation": activation(config, "quick_gelu", ACTIVATIONS),
        "class_tokens": 1,
        "embedding_norm": True,
    }


POSITIONS = ParamMapping("position", ("embeddings.position_embedding.weight",), identity, (2,))
LAYER = (
    *layer_norm("encoder.layers.{}.layer_norm1", "layer_{}/attention_norm"),
    *dense("encoder.layers.{}.self_attn.q_proj", "layer_{}/attention/query"),
    *dense("encoder.layers.{}.self_attn.k_proj", "layer_{}/attention/key"),
    *dense("encoder.layers.{}.self_attn.v_proj", "layer_{}/attention/value"),
    *dense("encoder.layers.{}.self_attn.out_proj", "layer_{}/attention/out"),
    *layer_norm("encoder.layers.{}.layer_norm2", "layer_{}/mlp_norm"),
    *dense("encoder.layers.{}.mlp.fc1", "layer_{}/mlp/in"),
    *dense("encoder.layers.{}.mlp.fc2", "layer_{}/mlp/out"),
)


def _one_token(token: np.ndarray) -> np.ndarray:
    return token[None, None]


CLIP = EncoderFamily(
    name="clip",
    kind="image",
    model_types={"clip": "vision_config", "clip_vision_model": ""},
    prefixes=("vision_model.", ""),
    embeddings=(
        ParamMapping("class", ("embeddings.class_embedding",), _one_token, (1,)),
        ParamMapping("patch/kernel", ("embeddings.patch_embedding.weight",), flatten_filters, (4,)),
        ParamMapping("patch/bias", (), identity, ()),
        POSITIONS,
        *layer_norm("pre_layrnorm", "embedding_norm"),  # their spelling
        *layer_norm("post_layernorm", "norm"),
    ),
    layer=LAYER,
    settings=settings,
    size=lambda config: config.integer("image_size", 224),
    ignored=("embeddings.position_ids", "visual_projection."),
    mean=OPENAI_MEAN,
    std=OPENAI_STD,
)
