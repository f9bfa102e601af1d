"""What the study changes, row by row: settings of `configs/study.py` by their dotted names.

A claim is made with three seeds; the other rows have one and are read with that in mind.
"""

from dataclasses import dataclass
from typing import Any

CLAIM_SEEDS = (0, 1, 2)
ONE_SEED = (0,)


@dataclass(frozen=True)
class Row:
    """A model of the study."""

    name: str
    says: str  # how the table calls it
    changes: dict[str, Any]
    seeds: tuple[int, ...] = ONE_SEED


NO_KE = {
    "model.enrichment": False,
    "objectives.key": 0.0,
    "objectives.keyword_masking": False,
    "objectives.keyword_swaps": False,
}
NO_AUXILIARY = {"objectives.title_contrast": 0.0, "objectives.image_contrast": 0.0}
TITLE = {"model.adaptation.modalities": "title", "objectives.qim2": 0.0, "objectives.mpm": 0.0} | NO_AUXILIARY


def _without(name: str) -> dict[str, Any]:
    return {f"objectives.{name}": 0.0}


ROWS = (
    Row("full", "full", {}, CLAIM_SEEDS),
    Row("mean-weights", "gate -> mean weights", {"model.adaptation.weights": "mean"}, CLAIM_SEEDS),
    Row("no-cross-attention", "no cross-attention", {"model.adaptation.cross_attention": False}, CLAIM_SEEDS),
    Row(
        "single-stream",
        "single stream",
        {"model.adaptation.single_stream": True, "objectives.mpm": 0.0} | NO_AUXILIARY,
        CLAIM_SEEDS,
    ),
    Row("title", "title alone", TITLE, CLAIM_SEEDS),
    Row("image", "image alone", {"model.adaptation.modalities": "image"} | NO_AUXILIARY, CLAIM_SEEDS),
    Row("no-ke", "no Keyword Enhancement", NO_KE, CLAIM_SEEDS),
    Row(
        "ke-without-attributes",
        "keywords of titles and clicks alone",
        {"inputs.keyword_attributes": False},
        CLAIM_SEEDS,
    ),
    Row("ke-enrichment", "KE: enrichment alone", NO_KE | {"model.enrichment": True, "objectives.key": 0.1}),
    Row("ke-masking", "KE: false-negative masking alone", NO_KE | {"objectives.keyword_masking": True}),
    Row("ke-swaps", "KE: keyword swaps alone", NO_KE | {"objectives.keyword_swaps": True}),
    Row("no-qim", "no QIM", _without("qim")),
    Row("no-qim2", "no QIM2", _without("qim2")),
    Row("no-mlm", "no MLM", _without("mlm")),
    Row("no-mpm", "no MPM", _without("mpm")),
    Row("mpm-regression", "MPM as regression", {"model.mpm": "regression"}),
    Row("no-key", "no KEY", _without("key")),
    Row("no-auxiliary", "no query-title and query-image contrast", NO_AUXILIARY),
    Row(
        "qic-alone",
        "QIC alone",
        {f"objectives.{name}": 0.0 for name in ("qim", "qim2", "mlm", "mpm", "key")} | NO_AUXILIARY,
    ),
    Row("am-softmax", "AM-Softmax, margin 0.1", {"objectives.margin": 0.1}),
    Row("sigmoid", "sigmoid, learned bias", {"objectives.kind": "sigmoid"}),
    Row("cls", "pooling by [CLS]", {"model.pooling": "cls"}),
    Row("no-l2", "no unit length", {"model.normalise": False, "model.initial_scale": 1.0}),
    Row("shared-text", "query and title share an encoder", {"model.shared_text": True}),
    Row("bank", "memory bank of 8 steps", {"objectives.bank": 8}),
)
