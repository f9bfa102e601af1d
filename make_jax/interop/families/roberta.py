"""RoBERTa (Liu et al., arXiv 1907.11692) and XLM-R (Conneau et al., arXiv 1911.02116).

BERT's layers. Positions count from the padding id + 1: the rows before are never used, and are left out.
"""

from dataclasses import replace

from make_jax.interop.families.bert import BERT
from make_jax.interop.model_folder import JsonObject


def _offset(config: JsonObject) -> int:
    return config.whole("pad_token_id", 1) + 1


ROBERTA = replace(
    BERT,
    name="roberta",
    model_types={"roberta": ""},
    prefixes=("", "roberta."),
    size=lambda config: config.whole("vocab_size", 50265),
    offset=_offset,
)
XLM_R = replace(ROBERTA, name="xlm-r", model_types={"xlm-roberta": ""}, size=lambda c: c.whole("vocab_size", 30522))
