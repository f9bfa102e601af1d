"""The families that can be read, one small file each."""

from make_jax.interop.families.bert import BERT
from make_jax.interop.families.chinese_clip import CHINESE_CLIP_TEXT, CHINESE_CLIP_VISION
from make_jax.interop.families.clip import CLIP
from make_jax.interop.families.deit import DEIT
from make_jax.interop.families.dinov2 import DINOV2
from make_jax.interop.families.roberta import ROBERTA, XLM_R
from make_jax.interop.families.siglip import SIGLIP, SIGLIP2
from make_jax.interop.families.vit import VIT
from make_jax.interop.tensor_names import EncoderFamily

FAMILIES: tuple[EncoderFamily, ...] = (
    BERT,
    ROBERTA,
    XLM_R,
    CHINESE_CLIP_TEXT,
    VIT,
    DEIT,
    DINOV2,
    CLIP,
    CHINESE_CLIP_VISION,
    SIGLIP,
    SIGLIP2,
)
