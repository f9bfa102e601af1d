"""Checkpoints in the names under which each family is published, written out by hand and filled by NumPy.

The names come from published weights and from what transformers and timm save; `test_torch_parity.py` and
`test_eva02.py` compare them with the latter.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file

LAYERS, WIDTH, MLP, PATCH, SIDE, VOCABULARY, LENGTH = 2, 16, 32, 8, 32, 48, 20
PATCHES = (SIDE // PATCH) ** 2
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": MLP}
TEXT = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH}
VISION = {**SIZES, "image_size": SIDE, "patch_size": PATCH}
DINOV2 = {**{k: v for k, v in VISION.items() if k != "intermediate_size"}, "mlp_ratio": 2}
SIGLIP2 = {**SIZES, "patch_size": PATCH, "num_patches": PATCHES}
Shapes = dict[str, tuple[int, ...]]


def both(name: str, *shape: int) -> Shapes:
    """A matrix or norm, and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def bert(prefix: str = "") -> Shapes:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings.weight": (LENGTH, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **both("embeddings.LayerNorm", WIDTH),
        **both("pooler.dense", WIDTH, WIDTH),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= both(f"{layer}.{name}", WIDTH, WIDTH)
        shapes |= both(f"{layer}.attention.output.LayerNorm", WIDTH)
        shapes |= both(f"{layer}.intermediate.dense", MLP, WIDTH)
        shapes |= both(f"{layer}.output.dense", WIDTH, MLP)
        shapes |= both(f"{layer}.output.LayerNorm", WIDTH)
    return {prefix + name: shape for name, shape in shapes.items()}


def vit(tokens: int = 1, *, layer_scale: bool = False) -> Shapes:
    """ViT, DeiT with two tokens, DINOv2 with layer scale."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, tokens + PATCHES, WIDTH),
        **both("embeddings.patch_embeddings.projection", WIDTH, 3, PATCH, PATCH),
        **both("layernorm", WIDTH),
    }
    if tokens == 2:
        shapes["embeddings.distillation_token"] = (1, 1, WIDTH)
    if layer_scale:
        shapes["embeddings.mask_token"] = (1, WIDTH)
    else:
        shapes |= both("pooler.dense", WIDTH, WIDTH)
    norms = ("norm1", "norm2") if layer_scale else ("layernorm_before", "layernorm_after")
    mlp = ("mlp.fc1", "mlp.fc2") if layer_scale else ("intermediate.dense", "output.dense")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name in ("attention.query", "attention.key", "attention.value", "output.dense"):
            shapes |= both(f"{layer}.attention.{name}", WIDTH, WIDTH)
        for name in norms:
            shapes |= both(f"{layer}.{name}", WIDTH)
        shapes |= both(f"{layer}.{mlp[0]}", MLP, WIDTH) | both(f"{layer}.{mlp[1]}", WIDTH, MLP)
        if layer_scale:
            shapes |= {f"{layer}.layer_scale{n}.lambda1": (WIDTH,) for n in (1, 2)}
    return shapes


def _tower(prefix: str) -> Shapes:
    """The layers that CLIP and SigLIP share."""
    shapes: Shapes = both(f"{prefix}post_layernorm", WIDTH)
    for i in range(LAYERS):
        layer = f"{prefix}encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= both(f"{layer}.self_attn.{name}", WIDTH, WIDTH)
        shapes |= both(f"{layer}.layer_norm1", WIDTH) | both(f"{layer}.layer_norm2", WIDTH)
        shapes |= both(f"{layer}.mlp.fc1", MLP, WIDTH) | both(f"{layer}.mlp.fc2", WIDTH, MLP)
    return shapes


def clip(prefix: str = "vision_model.") -> Shapes:
    return {
        f"{prefix}embeddings.class_embedding": (WIDTH,),
        f"{prefix}embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{prefix}embeddings.position_embedding.weight": (1 + PATCHES, WIDTH),
        **both(f"{prefix}pre_layrnorm", WIDTH),
        **_tower(prefix),
    }


def siglip(prefix: str = "vision_model.", *, rows: bool = False) -> Shapes:
    patch = (WIDTH, 3 * PATCH * PATCH) if rows else (WIDTH, 3, PATCH, PATCH)
    return {
        **both(f"{prefix}embeddings.patch_embedding", *patch),
        f"{prefix}embeddings.position_embedding.weight": (PATCHES, WIDTH),
        f"{prefix}head.probe": (1, 1, WIDTH),
        f"{prefix}head.attention.in_proj_weight": (3 * WIDTH, WIDTH),
        f"{prefix}head.attention.in_proj_bias": (3 * WIDTH,),
        **both(f"{prefix}head.attention.out_proj", WIDTH, WIDTH),
        **both(f"{prefix}head.layernorm", WIDTH),
        **both(f"{prefix}head.mlp.fc1", MLP, WIDTH),
        **both(f"{prefix}head.mlp.fc2", WIDTH, MLP),
        **_tower(prefix),
    }


def eva02(*, base: bool) -> Shapes:
    """EVA-02 as timm saves it: base and large, or tiny and small."""
    shapes: Shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + PATCHES, WIDTH),
        **both("patch_embed.proj", WIDTH, 3, PATCH, PATCH),
        **both("norm" if base else "fc_norm", WIDTH),
    }
    for i in range(LAYERS):
        layer = f"blocks.{i}"
        shapes |= both(f"{layer}.norm1", WIDTH) | both(f"{layer}.norm2", WIDTH)
        shapes |= both(f"{layer}.attn.proj", WIDTH, WIDTH) | both(f"{layer}.mlp.fc2", WIDTH, MLP)
        if base:
            shapes |= both(f"{layer}.attn.q_proj", WIDTH, WIDTH) | both(f"{layer}.attn.v_proj", WIDTH, WIDTH)
            shapes[f"{layer}.attn.k_proj.weight"] = (WIDTH, WIDTH)
            shapes |= both(f"{layer}.mlp.fc1_g", MLP, WIDTH) | both(f"{layer}.mlp.fc1_x", MLP, WIDTH)
            shapes |= both(f"{layer}.mlp.norm", MLP)
        else:
            shapes |= {f"{layer}.attn.q_bias": (WIDTH,), f"{layer}.attn.v_bias": (WIDTH,)}
            shapes[f"{layer}.attn.qkv.weight"] = (3 * WIDTH, WIDTH)
            shapes |= both(f"{layer}.mlp.fc1", 2 * MLP, WIDTH)
    return shapes


EVA02 = {
    "model_args": {"embed_dim": WIDTH, "depth": LAYERS, "num_heads": 2, "patch_size": PATCH, "mlp_ratio": MLP / WIDTH},
    "pretrained_cfg": {"input_size": [3, SIDE, SIDE], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
}
PROJECTIONS: Shapes = {"logit_scale": (), "visual_projection.weight": (8, WIDTH), "text_projection.weight": (8, WIDTH)}
OTHER_TOWER: Shapes = {"text_model.embeddings.token_embedding.weight": (VOCABULARY, WIDTH)}
CASES: dict[str, tuple[dict[str, Any], Shapes]] = {
    "bert": ({"model_type": "bert", **TEXT}, bert()),
    "roberta": ({"model_type": "roberta", "pad_token_id": 1, **TEXT}, bert("roberta.")),
    "xlm-r": ({"model_type": "xlm-roberta", "pad_token_id": 1, **TEXT}, bert()),
    "vit": ({"model_type": "vit", **VISION}, vit()),
    "deit": ({"model_type": "deit", **VISION}, vit(2)),
    "dinov2": ({"model_type": "dinov2", **DINOV2}, vit(layer_scale=True)),
    "eva02-base": ({"architecture": "eva02_base_patch14_224", **EVA02}, eva02(base=True)),
    "eva02-small": ({"architecture": "eva02_tiny_patch14_224", **EVA02}, eva02(base=False)),
    "clip": ({"model_type": "clip", "vision_config": VISION}, clip() | PROJECTIONS | OTHER_TOWER),
    "chinese-clip": (
        {"model_type": "chinese_clip", "vision_config": VISION, "text_config": TEXT},
        {k: v for k, v in bert("text_model.").items() if "pooler" not in k} | clip() | PROJECTIONS,
    ),
    "siglip": ({"model_type": "siglip", "vision_config": VISION}, siglip() | OTHER_TOWER),
    "siglip2": ({"model_type": "siglip2", "vision_config": SIGLIP2}, siglip(rows=True) | OTHER_TOWER),
}


def tensors(shapes: Shapes) -> dict[str, np.ndarray]:
    """Random numbers in those shapes."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Path:
    """A folder with config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(arrays, folder / "model.safetensors")
    return folder


def tokenizer(words: int = VOCABULARY, first: str = "w") -> str:
    """The definition of a tokenizer of that many word pieces: the special ones, w5, w6 and so on."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"{first}{i}" for i in range(5, words)]
    cutter = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    cutter.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    cutter.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(cutter.to_str())


def write_case(folder: Path, name: str) -> Path:
    """One of `CASES`."""
    config, shapes = CASES[name]
    return write(folder, config, tensors(shapes))
