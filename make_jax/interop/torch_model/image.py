"""The image encoder, transformers' `ViTModel` or `ImageEncoder`: the twin of `model/image.py`."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.vit.modeling_vit import ViTPatchEmbeddings

from make_jax.config import ImageConfig
from make_jax.interop.torch_model.transformer import ACTIVATIONS, PreNormLayer
from make_jax.model.layer_config import ComputeConfig, is_plain_vit, layer_config
from make_jax.model.rotary import rotary_angles


def normalize_pixels(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Returns pixels [B, H, W, 3] from 0 to 255 as (value / 255 - mean) / std."""
    shift, spread = (torch.tensor(values, device=image.device) for values in (mean, std))
    return (image.float() * (1.0 / 255.0) - shift) / spread


def patches(pixels: Tensor, patch_size: int) -> Tensor:
    """[B, H, W, 3] -> [B, P, patch_size * patch_size * 3], in reading order, flattened as (row, column, channel)."""
    rows = pixels.unflatten(1, (-1, patch_size)).unflatten(3, (-1, patch_size))  # [B, h, size, w, size, 3]
    return rows.transpose(2, 3).flatten(3).flatten(1, 2)


def image_encoder(c: ImageConfig, compute: ComputeConfig, height: int, width: int) -> nn.Module:
    """Returns a ViT without its pooler, with `PatchEmbeddings` if the config needs what ViT's own do not have.

    Layers that transformers' ViT does not have make it an `ImageEncoder`.
    """
    if not is_plain_vit(c):
        return ImageEncoder(c, compute, height, width)
    config = _vit_config(c, compute, height, width)
    model = ViTModel(config, add_pooling_layer=False)
    if c.class_tokens != 1 or c.embedding_norm:
        model.embeddings = PatchEmbeddings(config, c.class_tokens, c.embedding_norm)
    return model


def _vit_config(c: ImageConfig, compute: ComputeConfig, height: int, width: int) -> ViTConfig:
    return ViTConfig(
        image_size=[height, width],
        patch_size=c.patch_size,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp_width,
        hidden_act=ACTIVATIONS.get(c.activation, "gelu"),  # `ImageEncoder` uses the embeddings only
        hidden_dropout_prob=c.dropout,
        attention_probs_dropout_prob=layer_config(c, compute).attention_dropout,
        layer_norm_eps=c.layer_norm_eps,
    )


class ImageEncoder(nn.Module):
    """A ViT of `PreNormLayer`s, for EVA-02; called as `ViTModel`."""

    def __init__(self, c: ImageConfig, compute: ComputeConfig, height: int, width: int) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(_vit_config(c, compute, height, width), c.class_tokens, c.embedding_norm)
        layer = layer_config(c, compute)
        self.layers = nn.ModuleList(PreNormLayer(c.width, c.width, layer) for _ in range(c.layers))
        self.layernorm = nn.LayerNorm(c.width, eps=c.layer_norm_eps)
        self.config, self.grid = c, (height // c.patch_size, width // c.patch_size)

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        """[B, 3, H, W] -> last_hidden_state [B, class tokens + P, D]."""
        c, rotary = self.config, None
        x = self.embeddings(pixel_values)
        if c.rotary_grid:
            # Computed here and no buffer: transformers creates models without memory for their buffers.
            angles = rotary_angles(self.grid, c.rotary_grid, c.width // c.heads, c.class_tokens)
            rotary = torch.from_numpy(angles).to(x)
        for layer in self.layers:
            x = layer(x, rotary=rotary)
        return BaseModelOutput(last_hidden_state=self.layernorm(x))


class PatchEmbeddings(nn.Module):
    """Embeddings of DeiT (two class tokens), SigLIP (none) and CLIP (a layer norm), in front of ViT's layers."""

    def __init__(self, config: ViTConfig, class_tokens: int, embedding_norm: bool) -> None:
        super().__init__()
        self.patch_embeddings = ViTPatchEmbeddings(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.cls_token = nn.Parameter(torch.zeros(1, class_tokens, width)) if class_tokens else None
        count = class_tokens + self.patch_embeddings.num_patches
        self.position_embeddings = nn.Parameter(torch.zeros(1, count, width))
        self.norm = nn.LayerNorm(width, eps=eps) if embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor, **_: Any) -> Tensor:
        """[B, 3, H, W] -> [B, class tokens + P, D]."""
        x = self.patch_embeddings(pixel_values)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.dropout(self.norm(x + self.position_embeddings))
