"""Rows of the study: changes to `configs/study.py` by dotted setting names.

Claims are made with at least three seeds; other rows have one seed.
"""

from dataclasses import dataclass
from typing import Any

CLAIM_SEEDS = (0, 1, 2)
WEIGHT_SEEDS = (0, 1, 2, 3, 4, 5)  # what weights give is small: three seeds left held-out combinations undecided
ONE_SEED = (0,)


@dataclass(frozen=True)
class Row:
    """A model of the study."""

    name: str
    label: str  # in the table
    changes: dict[str, Any]
    seeds: tuple[int, ...] = ONE_SEED


NO_KE = {
    "model.enrichment": False,
    "model.keyword_dims": 0,
    "model.adaptation.weights": "mean",
    "objectives.key": 0.0,
    "objectives.keyword_masking": False,
    "objectives.keyword_swaps": False,
}
NO_AUXILIARY = {"objectives.title_contrast": 0.0, "objectives.image_contrast": 0.0}
CROSS_ATTENTION = {"model.adaptation.cross_attention": True}
MEAN = {"model.adaptation.weights": "mean"}
QIM = {"model.matching.layers": 1, "objectives.qim": 0.2}

ROWS = (
    Row("full", "full", {}, WEIGHT_SEEDS),
    Row("mean-weights", "one half each in place of the weights", MEAN, WEIGHT_SEEDS),
    Row("no-ke", "no Keyword Enhancement", NO_KE, CLAIM_SEEDS),
    Row("title", "title alone", {"model.adaptation.modalities": "title"} | NO_AUXILIARY, CLAIM_SEEDS),
    Row("image", "image alone", {"model.adaptation.modalities": "image"} | NO_AUXILIARY, CLAIM_SEEDS),
    Row("single-stream", "single stream", {"model.adaptation.single_stream": True} | NO_AUXILIARY, CLAIM_SEEDS),
    Row("cross-attention", "with cross-attention", CROSS_ATTENTION, CLAIM_SEEDS),
    Row("cross-attention-mean", "with cross-attention, one half each", CROSS_ATTENTION | MEAN, CLAIM_SEEDS),
    Row(
        "ke-without-attributes",
        "keywords of titles and clicks alone",
        {"inputs.keyword_attributes": False},
        CLAIM_SEEDS,
    ),
    Row("ke-enrichment", "KE: enrichment alone", NO_KE | {"model.enrichment": True, "objectives.key": 0.1}),
    Row(
        "ke-evidence",
        "KE: evidence alone",
        NO_KE | {"model.keyword_dims": 512, "model.adaptation.weights": "per_keyword"},
    ),
    Row("ke-masking", "KE: false-negative masking alone", NO_KE | {"objectives.keyword_masking": True}),
    Row("ke-swaps", "KE: keyword swaps alone", NO_KE | {"objectives.keyword_swaps": True}),
    Row("no-evidence", "KE without evidence", {"model.keyword_dims": 0} | MEAN),
    Row("no-key", "no KEY", {"objectives.key": 0.0}),
    Row("no-auxiliary", "no query-title and query-image contrast", NO_AUXILIARY),
    Row("qim", "with QIM", QIM),
    Row("qim2", "with QIM and QIM2", QIM | {"objectives.qim2": 0.1}),
    Row("mlm", "with MLM", {"model.mlm": True, "objectives.mlm": 0.1}),
    Row("mpm", "with MPM, contrastive", {"model.mpm": "contrastive", "objectives.mpm": 0.1}),
    Row("mpm-regression", "with MPM, regression", {"model.mpm": "regression", "objectives.mpm": 0.1}),
    Row("am-softmax", "AM-Softmax, margin 0.1", {"objectives.margin": 0.1}),
    Row("sigmoid", "sigmoid, learned bias", {"objectives.loss_type": "sigmoid"}),
    Row("cls", "pooling by [CLS]", {"model.pooling": "cls"}),
    Row("no-l2", "no unit length", {"model.l2_normalize": False, "model.initial_logit_scale": 1.0}),
    Row("shared-text", "query and title share an encoder", {"model.shared_text": True}),
)
