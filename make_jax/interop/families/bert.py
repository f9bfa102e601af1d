"""BERT (Devlin et al., arXiv 1810.04805), and what has its shape: Chinese BERT, StructBERT, MiniLM."""

from typing import Any

from make_jax.interop.model_folder import JsonObject
from make_jax.interop.tensor_names import EncoderFamily, ParamMapping, activation, dense, first_row, norm, same


def settings(config: JsonObject) -> dict[str, Any]:
    """What config.json says of a TextConfig."""
    config.expect("position_embedding_type", "absolute")
    config.expect("is_decoder", False)
    config.expect("add_cross_attention", False)
    return {
        "layers": config.whole("num_hidden_layers", 12),
        "width": config.whole("hidden_size", 768),
        "heads": config.whole("num_attention_heads", 12),
        "mlp_width": config.whole("intermediate_size", 3072),
        "layer_norm_eps": config.number("layer_norm_eps", 1e-12),
        "activation": activation(config, "gelu", ("gelu", "gelu_tanh")),
    }


EMBEDDINGS = (
    ParamMapping("word/embedding", ("embeddings.word_embeddings.weight",), same, (2,)),
    ParamMapping("position", ("embeddings.position_embeddings.weight",), same, (2,)),
    ParamMapping("type", ("embeddings.token_type_embeddings.weight",), first_row, (2,)),
    *norm("embeddings.LayerNorm", "norm"),
)
LAYER = (
    *dense("encoder.layer.{}.attention.self.query", "layer_{}/attention/query"),
    *dense("encoder.layer.{}.attention.self.key", "layer_{}/attention/key"),
    *dense("encoder.layer.{}.attention.self.value", "layer_{}/attention/value"),
    *dense("encoder.layer.{}.attention.output.dense", "layer_{}/attention/out"),
    *norm("encoder.layer.{}.attention.output.LayerNorm", "layer_{}/attention_norm"),
    *dense("encoder.layer.{}.intermediate.dense", "layer_{}/mlp/in"),
    *dense("encoder.layer.{}.output.dense", "layer_{}/mlp/out"),
    *norm("encoder.layer.{}.output.LayerNorm", "layer_{}/mlp_norm"),
)
LEFT_OUT = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")

BERT = EncoderFamily(
    name="bert",
    kind="text",
    model_types={"bert": ""},
    prefixes=("", "bert."),
    embeddings=EMBEDDINGS,
    layer=LAYER,
    settings=settings,
    size=lambda config: config.whole("vocab_size", 30522),
    left_out=LEFT_OUT,
)
