"""BERT (Devlin et al., arXiv 1810.04805), and models of the same layout: Chinese BERT, StructBERT, MiniLM."""

from typing import Any

from make_jax.interop.encoder_family import EncoderFamily, activation
from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import ParamMapping, dense, first_row, identity, layer_norm


def settings(config: JsonObject) -> dict[str, Any]:
    """Returns the fields of TextConfig that config.json determines."""
    config.expect("position_embedding_type", "absolute")
    config.expect("is_decoder", False)
    config.expect("add_cross_attention", False)
    return {
        "layers": config.integer("num_hidden_layers", 12),
        "width": config.integer("hidden_size", 768),
        "heads": config.integer("num_attention_heads", 12),
        "mlp_width": config.integer("intermediate_size", 3072),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-12),
        "activation": activation(config, "gelu", ("gelu", "gelu_tanh")),
    }


EMBEDDINGS = (
    ParamMapping("word/embedding", ("embeddings.word_embeddings.weight",), identity, (2,)),
    ParamMapping("position", ("embeddings.position_embeddings.weight",), identity, (2,)),
    ParamMapping("type", ("embeddings.token_type_embeddings.weight",), first_row, (2,)),
    *layer_norm("embeddings.LayerNorm", "norm"),
)
LAYER = (
    *dense("encoder.layer.{}.attention.self.query", "layer_{}/attention/query"),
    *dense("encoder.layer.{}.attention.self.key", "layer_{}/attention/key"),
    *dense("encoder.layer.{}.attention.self.value", "layer_{}/attention/value"),
    *dense("encoder.layer.{}.attention.output.dense", "layer_{}/attention/out"),
    *layer_norm("encoder.layer.{}.attention.output.LayerNorm", "layer_{}/attention_norm"),
    *dense("encoder.layer.{}.intermediate.dense", "layer_{}/mlp/in"),
    *dense("encoder.layer.{}.output.dense", "layer_{}/mlp/out"),
    *layer_norm("encoder.layer.{}.output.LayerNorm", "layer_{}/mlp_norm"),
)
IGNORED = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")

BERT = EncoderFamily(
    name="bert",
    kind="text",
    model_types={"bert": ""},
    prefixes=("", "bert."),
    embeddings=EMBEDDINGS,
    layer=LAYER,
    settings=settings,
    size=lambda config: config.integer("vocab_size", 30522),
    ignored=IGNORED,
)
