"""Pooling, L2 normalization and the cross-attention layer: the twin of `model/transformer.py`."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name
from transformers.activations import ACT2FN

from make_jax.model.layer_config import LayerConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}  # ours -> transformers'
MASKED = -1e30  # a logit that softmax turns into exactly 0


class PreNormLayer(nn.Module):
    """A ViT layer with options that transformers' does not have: a context, rotary positions, SwiGLU, sub-LayerNorm.

    With `context` [B, M, C], attention is to it instead of to `x` [B, L, D]; a row of `context_mask` [B, M] without any
    True adds exactly 0.
    """

    def __init__(self, width: int, context: int, config: LayerConfig) -> None:
        super().__init__()
        self.config, eps, mlp_width = config, config.layer_norm_eps, config.mlp_width
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        widths = {"query": width, "key": context, "value": context, "out": width}
        self.attention = nn.ModuleDict(
            {name: nn.Linear(size, width, config.key_bias or name != "key") for name, size in widths.items()}
        )
        self.mlp = nn.ModuleDict({"first": nn.Linear(width, mlp_width), "second": nn.Linear(mlp_width, width)})
        if config.activation == "swiglu":
            self.mlp["gate"] = nn.Linear(width, mlp_width)
        if config.mlp_sub_norm:
            self.mlp["norm"] = nn.LayerNorm(mlp_width, eps=eps)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        rotary: Tensor | None = None,
    ) -> Tensor:
        """Returns x [B, L, D] after attention and the feed-forward part; `rotary` are angles [L, d / 2]."""
        c, normed = self.config, self.attention_norm(x)
        source = normed if context is None else context
        query, key, value = (
            self.attention[name](states).unflatten(-1, (c.heads, -1)).transpose(1, 2)
            for name, states in (("query", normed), ("key", source), ("value", source))
        )
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if context_mask is not None:
            logits = torch.where(context_mask[:, None, None], logits, MASKED)
        weights = F.dropout(logits.softmax(-1), c.attention_dropout, self.training)
        attended = self.attention["out"]((weights @ value).transpose(1, 2).flatten(2))
        if context_mask is not None:
            attended = attended * context_mask.any(1)[:, None, None]
        x = x + self._drop(attended)
        return x + self._drop(self._feed_forward(self.mlp_norm(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.mlp["first"](x)
        if self.config.activation == "swiglu":
            hidden = F.silu(self.mlp["gate"](x)) * hidden
        else:
            hidden = ACT2FN[ACTIVATIONS[self.config.activation]](hidden)
        if self.config.mlp_sub_norm:
            hidden = self.mlp["norm"](hidden)
        return self.mlp["second"](hidden)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


def rotate(states: Tensor, angles: Tensor) -> Tensor:
    """Returns `states` [B, H, L, d] with each pair of neighboring numbers rotated by its angle [L, d / 2]."""
    first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)


def non_empty_mask(mask: Tensor) -> Tensor:
    """Returns `mask` [B, L] with the first position True in rows that have none.

    Attention over no position is NaN in transformers; the states of such rows are ignored later.
    """
    first = torch.arange(mask.shape[1], device=mask.device)[None] == 0
    return mask | (first & ~mask.any(1, keepdim=True))


def zero_masked(states: Tensor, mask: Tensor) -> Tensor:
    """Returns `states` [B, L, D] with exactly 0 where `mask` [B, L] is False."""
    return torch.where(mask[..., None], states, 0.0)


def pool(states: Tensor, mask: Tensor, how: Literal["mean", "cls"]) -> Tensor:
    """Returns [B, D]: the mean over real positions, or the state of the first position; 0 for an empty row."""
    if how == "cls":
        return states[:, 0] * mask.any(1)[:, None]
    return zero_masked(states, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def l2_normalize(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    """Returns vectors of length 1; a zero vector stays 0 and its gradient is finite."""
    return vectors * vectors.square().sum(-1, keepdim=True).clamp(min=eps * eps).rsqrt()
