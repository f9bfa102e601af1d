"""The sentence-transformers export: the query encoder as BERT, pooling, projection and L2 normalization.

Only for models whose query vector consists of these. Keyword Enhancement and keyword evidence have no module there.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from make_jax.errors import InputError
from make_jax.interop.bundle import ModelBundle, tokenizer_files
from make_jax.interop.families.bert import BERT
from make_jax.interop.model_folder import WEIGHTS
from make_jax.interop.tensor_names import Params, dense
from make_jax.interop.torch_checkpoint import to_tensors

_MODULES = (  # folder and class
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Dense", "sentence_transformers.models.Dense"),
    ("3_Normalize", "sentence_transformers.models.Normalize"),
)
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


def write(folder: Path, params: Params, bundle: ModelBundle) -> None:
    """Writes the query encoder, except for the model card, into an existing folder.

    Raises:
        InputError: queries are enriched by keywords, or vectors have keyword dimensions.
    """
    m = bundle.config.model
    for name, used in (("enrichment", m.enrichment and len(bundle.keywords)), ("keyword_dims", bundle.keyword_dims)):
        if used:
            raise InputError(
                f"--to sentence-transformers: model.{name} is on, and sentence-transformers has no module that adds "
                "keywords to a query; use --to torch, or train with --model.no-enrichment --model.keyword_dims 0"
            )
    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(params, sep="/").items()}
    encoder = to_tensors(BERT.table(m.query.layers), lambda path: leaves[f"query_encoder/{path}"])
    projection = to_tensors(list(dense("linear", "query_projection")), leaves.__getitem__)
    modules = _MODULES if m.l2_normalize else _MODULES[:3]
    for name, _ in modules[1:]:
        (folder / name).mkdir()
    files = {
        "config.json": _bert_config(bundle, len(leaves["query_encoder/position"])),
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": kind}
            for number, (path, kind) in enumerate(modules)
        ],
        **_module_configs(bundle),
    }
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in files.items()}
    texts |= tokenizer_files(bundle.tokenizer, bundle.config.inputs.max_query_tokens)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for path, tensors in ((folder / WEIGHTS, encoder), (folder / "2_Dense" / WEIGHTS, projection)):
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors creates files with mode 0600


def _bert_config(bundle: ModelBundle, positions: int) -> dict[str, Any]:
    query = bundle.config.model.query
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": bundle.tokenizer.vocab_size,
        "hidden_size": query.width,
        "num_hidden_layers": query.layers,
        "num_attention_heads": query.heads,
        "intermediate_size": query.mlp_width,
        "hidden_act": _ACTIVATIONS[query.activation],
        "hidden_dropout_prob": query.dropout,
        "attention_probs_dropout_prob": query.dropout,
        "max_position_embeddings": positions,
        "type_vocab_size": 1,
        "layer_norm_eps": query.layer_norm_eps,
        "pad_token_id": bundle.tokenizer.pad_id,
        "dtype": "float32",
    }


def _module_configs(bundle: ModelBundle) -> dict[str, Any]:
    m, width = bundle.config.model, bundle.config.model.query.width
    return {
        "sentence_bert_config.json": {"max_seq_length": bundle.config.inputs.max_query_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "dot"},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": m.pooling == "cls",
            "pooling_mode_mean_tokens": m.pooling == "mean",
        },
        "2_Dense/config.json": {
            "in_features": width,
            "out_features": m.embedding_dim,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }
