"""RoBERTa (Liu et al., arXiv 1907.11692) and XLM-R (Conneau et al., arXiv 1911.02116).

BERT's layers. Positions count from the padding id + 1; the rows before are never used and are dropped.
"""

from dataclasses import replace

from make_jax.interop.families.bert import BERT
from make_jax.interop.model_folder import JsonObject


def _position_offset(config: JsonObject) -> int:
    return config.integer("pad_token_id", 1) + 1


ROBERTA = replace(
    BERT,
    name="roberta",
    model_types={"roberta": ""},
    prefixes=("", "roberta."),
    size=lambda config: config.integer("vocab_size", 50265),
    position_offset=_position_offset,
)
XLM_R = replace(ROBERTA, name="xlm-r", model_types={"xlm-roberta": ""}, size=lambda c: c.integer("vocab_size", 30522))
