"""DeiT (Touvron et al., arXiv 2012.12877): ViT with a second class token, for distillation.

DeiT models without distillation are published as ViT.
"""

from dataclasses import replace

import numpy as np

from make_jax.interop.encoder_family import IMAGENET_MEAN, IMAGENET_STD
from make_jax.interop.families.vit import VIT, settings
from make_jax.interop.tensor_names import ParamMapping


def _both(class_token: np.ndarray, distillation: np.ndarray) -> np.ndarray:
    return np.concatenate([class_token, distillation], axis=1)


_TOKENS = ParamMapping("class", ("embeddings.cls_token", "embeddings.distillation_token"), _both, (3, 3))

DEIT = replace(
    VIT,
    name="deit",
    model_types={"deit": ""},
    prefixes=("", "deit."),
    embeddings=(_TOKENS, *(row for row in VIT.embeddings if row.param != "class")),
    settings=lambda config: {**settings(config), "class_tokens": 2},
    ignored=(*VIT.ignored, "cls_classifier.", "distillation_classifier."),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
