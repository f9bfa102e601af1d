"""Both towers of Chinese-CLIP (Yang et al., arXiv 2211.01335): CLIP's vision tower and a Chinese BERT."""

from dataclasses import replace

from make_jax.interop.families.bert import BERT
from make_jax.interop.families.clip import CLIP

CHINESE_CLIP_VISION = replace(
    CLIP,
    name="chinese-clip",
    model_types={"chinese_clip": "vision_config", "chinese_clip_vision_model": ""},
)
CHINESE_CLIP_TEXT = replace(
    BERT,
    name="chinese-clip",
    model_types={"chinese_clip": "text_config", "chinese_clip_text_model": ""},
    prefixes=("text_model.", ""),
)
