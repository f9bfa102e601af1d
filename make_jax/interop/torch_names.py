"""The parameters of a whole model and the tensors of `torch_make.MakeModel`: one table, read in both directions.

The names of encoders are those under which transformers saves BERT and ViT; the rest are ours with dots.
"""

from collections.abc import Callable

import numpy as np

from make_jax.config import ModelConfig
from make_jax.interop.families.bert import BERT
from make_jax.interop.families.vit import VIT
from make_jax.interop.names import INVERSE, Family, Row, dense, norm, same


def rows(model: ModelConfig, keywords: int) -> list[Row]:
    """The table for a model without the heads that only training uses; `keywords` has its catalog."""
    m, a = model, model.adaptation
    two = a.modalities == "both" and not a.single_stream
    found = [*_tower(BERT, m.query.layers, "query_encoder"), *_own("query_projection")]
    if m.enrichment and keywords:
        found += [*_own("enhancement/predict"), *_own("enhancement/gate"), _table("enhancement/embedding", 2)]
    if a.single_stream:
        stream = _tower(BERT, m.title.layers, "product_encoder", "product_encoder.encoder")
        found += [row._replace(rule=same) if row.ours.endswith("/type") else row for row in stream]  # both types
        found += [*_own("product_encoder/patch"), *_own("product_encoder/projection")]
    else:
        if a.modalities != "image" and not m.shared_text:
            found += _tower(BERT, m.title.layers, "title_encoder")
        if a.modalities != "title":
            found += _image(m)
        found += _adaptation(m) if two else _own("product_projection")
    if min(m.evidence, keywords):
        found.append(_table("keyword_evidence/known", 1))
        for name in ("title", "image") if two else ("product",):
            found += [*_own(f"keyword_evidence/{name}/hidden"), *_own(f"keyword_evidence/{name}/predict")]
    return [*found, _table("log_scale", 0), _table("bias", 0)]


def outward(table: list[Row], read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that `table` makes of our parameters; `read` gives one by its path."""
    return {row.theirs[0]: np.array(INVERSE[row.rule](read(row.ours)), order="C") for row in table}


def _tower(family: Family, layers: int, ours: str, theirs: str = "") -> list[Row]:
    """An encoder's table with its names below that of the encoder."""
    return [
        Row(f"{ours}/{row.ours}", tuple(f"{theirs or ours}.{name}" for name in row.theirs), row.rule, row.ranks)
        for row in family.rows(layers)
    ]


def _image(model: ModelConfig) -> list[Row]:
    found = _tower(VIT, model.image.layers, "image_encoder")
    if not model.image.class_tokens:
        found = [row for row in found if row.ours != "image_encoder/class"]
    if model.image.embedding_norm:
        found += norm("image_encoder.embeddings.norm", "image_encoder/embedding_norm")
    return found


def _adaptation(model: ModelConfig) -> list[Row]:
    a = model.adaptation
    found = [*_own("adaptation/title_projection"), *_own("adaptation/image_projection")]
    if a.weights == "gate":
        if model.title.width != model.image.width:
            found += _own("adaptation/gate_image")
        found += [*_own("adaptation/gate_in"), *_own("adaptation/gate_out")]
    if a.cross_attention:
        for block in ("adaptation/title_attends_image", "adaptation/image_attends_title"):
            for part in ("attention_norm", "mlp_norm"):
                found += norm(f"{block}/{part}".replace("/", "."), f"{block}/{part}")
            for part in ("query", "key", "value", "out"):
                found += _own(f"{block}/attention/{part}")
            for theirs, ours in (("first", "in"), ("second", "out")):  # "in" is a word of Python
                found += dense(f"{block}/mlp/{theirs}".replace("/", "."), f"{block}/mlp/{ours}")
    return found


def _own(path: str) -> tuple[Row, Row]:
    """A dense layer of ours under its own name."""
    return dense(path.replace("/", "."), path)


def _table(path: str, rank: int) -> Row:
    return Row(path, (path.replace("/", "."),), same, (rank,))
