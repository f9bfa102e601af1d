"""Encoder families: the public checkpoints that can be imported.

To add a family, write one file here that defines an `EncoderFamily` (`interop/encoder_family.py` documents every field)
and add it to `FAMILIES`, below. docs/extending.md has a complete example, eva02.py one with its own layers;
tests/interop/tiny_checkpoints.py holds a tiny checkpoint of each family for tests. Options of layers are fields of
`config.ImageConfig` and of `model/layer_config.py`, computed in `model/transformer.py`.
"""

from make_jax.interop.encoder_family import EncoderFamily
from make_jax.interop.families.bert import BERT
from make_jax.interop.families.chinese_clip import CHINESE_CLIP_TEXT, CHINESE_CLIP_VISION
from make_jax.interop.families.clip import CLIP
from make_jax.interop.families.deit import DEIT
from make_jax.interop.families.dinov2 import DINOV2
from make_jax.interop.families.eva02 import EVA02_BASE, EVA02_SMALL
from make_jax.interop.families.roberta import ROBERTA, XLM_R
from make_jax.interop.families.siglip import SIGLIP, SIGLIP2
from make_jax.interop.families.vit import VIT

FAMILIES: list[EncoderFamily] = [
    BERT,
    ROBERTA,
    XLM_R,
    CHINESE_CLIP_TEXT,
    VIT,
    DEIT,
    DINOV2,
    EVA02_BASE,
    EVA02_SMALL,
    CLIP,
    CHINESE_CLIP_VISION,
    SIGLIP,
    SIGLIP2,
]
