"""The query tower as sentence-transformers loads it: BERT, pooling, projection, unit length.

Only of a model whose query vector is just that. Enrichment and keyword evidence have no module there.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from make_jax.errors import InputError
from make_jax.interop.bundle import ModelBundle, tokenizer_files
from make_jax.interop.families.bert import BERT
from make_jax.interop.import_encoders import flatten
from make_jax.interop.model_folder import WEIGHTS
from make_jax.interop.tensor_names import Params, dense
from make_jax.interop.torch_checkpoint import to_tensors

_MODULES = ("sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling",
            "sentence_transformers.models.Dense", "sentence_transformers.models.Normalize")  # fmt: skip
_FOLDERS = ("", "1_Pooling", "2_Dense", "3_Normalize")
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


def write(folder: Path, params: Params, served: ModelBundle) -> None:
    """Writes the tower, but the card, into an existing folder.

    InputError for a model whose queries keywords enrich, or whose vectors have dimensions for keywords.
    """
    m, i = served.config.model, served.config.inputs
    for name, there in (("enrichment", m.enrichment and len(served.keywords)), ("keyword_dims", served.dimensions)):
        if there:
            raise InputError(
                f"--to sentence-transformers: model.{name} is on, and sentence-transformers has no module that adds "
                "keywords to a query; use --to torch, or train with --model.no-enrichment --model.keyword-dims 0"
            )
    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(params).items()}
    tower = to_tensors(BERT.rows(m.query.layers), lambda path: leaves[f"query_encoder/{path}"])
    projection = to_tensors(list(dense("linear", "query_projection")), leaves.__getitem__)
    q, length = m.query, len(leaves["query_encoder/position"])
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": served.tokenizer.vocab_size,
        "hidden_size": q.width,
        "num_hidden_layers": q.layers,
        "num_attention_heads": q.heads,
        "intermediate_size": q.mlp_width,
        "hidden_act": _ACTIVATIONS[q.activation],
        "hidden_dropout_prob": q.dropout,
        "attention_probs_dropout_prob": q.dropout,
        "max_position_embeddings": length,
        "type_vocab_size": 1,
        "layer_norm_eps": q.layer_norm_eps,
        "pad_token_id": served.tokenizer.pad_id,
        "dtype": "float32",
    }
    count = 4 if m.l2_normalize else 3
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(zip(_FOLDERS[:count], _MODULES, strict=False))
    ]
    pooling = {"word_embedding_dimension": q.width, "pooling_mode_cls_token": m.pooling == "cls",
               "pooling_mode_mean_tokens": m.pooling == "mean"}  # fmt: skip
    dense_config = {"in_features": q.width, "out_features": m.embedding_dim, "bias": True,
                    "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
    files: dict[str, Any] = {
        "config.json": config,
        "modules.json": listed,
        "sentence_bert_config.json": {"max_seq_length": i.max_query_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "dot"},
        "1_Pooling/config.json": pooling,
        "2_Dense/config.json": dense_config,
    }
    for sub in _FOLDERS[1:count]:
        (folder / sub).mkdir()
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in files.items()}
    for name, text in (texts | tokenizer_files(served.tokenizer, i.max_query_tokens)).items():
        (folder / name).write_text(text, encoding="utf-8")
    for path, tensors in ((folder / WEIGHTS, tower), (folder / "2_Dense" / WEIGHTS, projection)):
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)
