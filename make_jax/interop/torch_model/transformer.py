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
    """A ViT layer whose attention reads `context` [B, M, C] instead of `x` [B, L, D].

    transformers has no pre-norm layer with a context of another width. A row of `context_mask` [B, M] without any True
    adds exactly 0.
    """

    def __init__(self, width: int, context: int, config: LayerConfig) -> None:
        super().__init__()
        self.config, eps, mlp_width = config, config.layer_norm_eps, config.mlp_width
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        widths = {"query": width, "key": context, "value": context, "out": width}
        self.attention = nn.ModuleDict({name: nn.Linear(size, width) for name, size in widths.items()})
        self.mlp = nn.ModuleDict({"first": nn.Linear(width, mlp_width), "second": nn.Linear(mlp_width, width)})
        self.activation = ACT2FN[ACTIVATIONS[config.activation]]

    def forward(self, x: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Returns x [B, L, D] after cross-attention and the feed-forward part."""
        query, key, value = (
            self.attention[name](states).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
            for name, states in (("query", self.attention_norm(x)), ("key", context), ("value", context))
        )
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        weights = F.dropout(
            torch.where(context_mask[:, None, None], logits, MASKED).softmax(-1),
            self.config.attention_dropout,
            self.training,
        )
        attended = self.attention["out"]((weights @ value).transpose(1, 2).flatten(2))
        x = x + self._drop(attended * context_mask.any(1)[:, None, None])
        return x + self._drop(self.mlp["second"](self.activation(self.mlp["first"](self.mlp_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


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
