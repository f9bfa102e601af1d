"""DeiT (Touvron et al., arXiv 2012.12877): ViT with a second learnt token, that of distillation.

Weights of DeiT that were not distilled are published as ViT.
"""

from dataclasses import replace

import numpy as np

from make_jax.interop.families.vit import VIT, settings
from make_jax.interop.tensor_names import IMAGENET_MEAN, IMAGENET_STD, ParamMapping


def _both(class_token: np.ndarray, distillation: np.ndarray) -> np.ndarray:
    return np.concatenate([class_token, distillation], axis=1)


_TOKENS = ParamMapping("class", ("embeddings.cls_token", "embeddings.distillation_token"), _both, (3, 3))

DEIT = replace(
    VIT,
    name="deit",
    model_types={"deit": ""},
    prefixes=("", "deit."),
    embeddings=(_TOKENS, *(row for row in VIT.embeddings if row.ours != "class")),
    settings=lambda config: {**settings(config), "class_tokens": 2},
    left_out=(*VIT.left_out, "cls_classifier.", "distillation_classifier."),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
