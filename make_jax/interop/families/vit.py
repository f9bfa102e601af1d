"""ViT (Dosovitskiy et al., arXiv 2010.11929)."""

from typing import Any

from make_jax.interop.encoder_family import EncoderFamily, activation
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import ParamMapping, dense, identity, layer_norm, patch_conv, squeeze_batch

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")


def settings(config: JsonObject) -> dict[str, Any]:
    """Returns the fields of ImageConfig that config.json determines."""
    config.expect("qkv_bias", True)
    config.expect("num_channels", 3)
    return {
        "layers": config.integer("num_hidden_layers", 12),
        "width": config.integer("hidden_size", 768),
        "heads": config.integer("num_attention_heads", 12),
        "mlp_width": config.integer("intermediate_size", 3072),
        "patch_size": config.integer("patch_size", 16),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-12),
        "activation": activation(config, "gelu", ACTIVATIONS),
        "class_tokens": 1,
        "embedding_norm": False,
    }


ATTENTION = (
    *dense("encoder.layer.{}.attention.attention.query", "layer_{}/attention/query"),
    *dense("encoder.layer.{}.attention.attention.key", "layer_{}/attention/key"),
    *dense("encoder.layer.{}.attention.attention.value", "layer_{}/attention/value"),
)
POSITIONS = ParamMapping("position", ("embeddings.position_embeddings",), squeeze_batch, (3,))

VIT = EncoderFamily(
    name="vit",
    kind="image",
    model_types={"vit": ""},
    prefixes=("", "vit."),
    embeddings=(
        ParamMapping("class", ("embeddings.cls_token",), identity, (3,)),
        *patch_conv("embeddings.patch_embeddings.projection"),
        POSITIONS,
        *layer_norm("layernorm", "norm"),
    ),
    layer=(
        *layer_norm("encoder.layer.{}.layernorm_before", "layer_{}/attention_norm"),
        *ATTENTION,
        *dense("encoder.layer.{}.attention.output.dense", "layer_{}/attention/out"),
        *layer_norm("encoder.layer.{}.layernorm_after", "layer_{}/mlp_norm"),
        *dense("encoder.layer.{}.intermediate.dense", "layer_{}/mlp/in"),
        *dense("encoder.layer.{}.output.dense", "layer_{}/mlp/out"),
    ),
    settings=settings,
    size=lambda config: config.integer("image_size", 224),
    ignored=("pooler.", "embeddings.mask_token", "classifier."),
)
