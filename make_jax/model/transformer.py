"""Transformer layers: attention, MLP, post-norm (BERT) and pre-norm (ViT) layers, pooling, normalization.

Every layer has one `LayerConfig`. Matrix products run in `compute.dtype`; parameters, layer norms and softmax stay
float32. `model/attention.py` has the attention itself. Letters are those of `model/make.py`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from make_jax.errors import InputError
from make_jax.model.attention import attention_implementation, traceable_attention
from make_jax.model.gelu import exact_gelu
from make_jax.model.layer_config import LayerConfig

KERNEL_INIT = nn.initializers.xavier_uniform()  # of ViT
# Of BERT. A post-norm layer that starts small starts near the identity; from scratch that decides what text learns.
BERT_INIT = nn.initializers.truncated_normal(0.02)
EMBEDDING_INIT = nn.initializers.normal(0.02)


class Attention(nn.Module):
    """Multi-head attention of `x` to `context`; its output is exactly 0 for rows without a real key."""

    config: LayerConfig
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        context: Float[Array, "B M C"],
        context_mask: Bool[Array, "B M"] | None,
        train: bool,
        rotary: Float[np.ndarray, "L r"] | None = None,
    ) -> Float[Array, "B L D"]:
        c, width = self.config, x.shape[-1]

        def project(name: str, value: Array) -> Array:
            value = _dense(width, c, self.kernel_init, name, use_bias=c.key_bias or name != "key")(value)
            return value.reshape(*value.shape[:-1], c.heads, width // c.heads)

        query, key, value = project("query", x), project("key", context), project("value", context)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        # Evaluation and search of a run may happen on another kind of device than its training.
        name = c.compute.attention if train else traceable_attention(c.compute.attention)
        attention = attention_implementation(name)
        if train and c.attention_dropout and not attention.supports_dropout:
            raise InputError(f"model.attention is {c.compute.attention!r}, expected no model.attention_dropout with it")
        drop = nn.Dropout(c.attention_dropout, deterministic=not train)
        out = attention.function(query, key, value, context_mask, drop).reshape(x.shape)
        out = _dense(width, c, self.kernel_init, "out")(out)
        if context_mask is not None:
            out = jnp.where(jnp.any(context_mask, axis=-1)[:, None, None], out, jnp.zeros((), out.dtype))
        return out


class FeedForward(nn.Module):
    """Dense, activation, Dense; with `mlp_sub_norm` a layer norm before the second.

    The activation is GELU (exact as in BERT and ViT, tanh as in SigLIP, sigmoid as in CLIP) or SwiGLU (Shazeer, arXiv
    2002.05202): the product with the SiLU of another Dense, `gate`.
    """

    config: LayerConfig
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        c = self.config
        hidden = _dense(c.mlp_width, c, self.kernel_init, "in")(x)
        if c.activation == "swiglu":
            hidden = nn.silu(_dense(c.mlp_width, c, self.kernel_init, "gate")(x)) * hidden
        elif c.activation == "quick_gelu":
            hidden = hidden * nn.sigmoid(1.702 * hidden)
        else:
            hidden = nn.gelu(hidden) if c.activation == "gelu_tanh" else exact_gelu(hidden)
        if c.mlp_sub_norm:
            hidden = layer_norm(c.layer_norm_eps, c.compute.dtype, "norm")(hidden)
        return _dense(x.shape[-1], c, self.kernel_init, "out")(hidden)


class PostNormLayer(nn.Module):
    """A BERT layer: the norm follows each sum (Devlin et al., arXiv 1810.04805)."""

    config: LayerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"], train: bool) -> Float[Array, "B L D"]:
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=not train)
        attended = Attention(c, BERT_INIT, name="attention")(x, x, mask, train)
        x = layer_norm(c.layer_norm_eps, c.compute.dtype, "attention_norm")(x + drop(attended))
        hidden = FeedForward(c, BERT_INIT, name="mlp")(x)
        return layer_norm(c.layer_norm_eps, c.compute.dtype, "mlp_norm")(x + drop(hidden))


class PreNormLayer(nn.Module):
    """A ViT layer: the norm precedes each branch (Dosovitskiy et al., arXiv 2010.11929).

    With `context`, attention is to `context` instead of `x`: the cross-attention block of Modal Adaptation. `rotary`
    are the angles of `model/rotary.py`, for self-attention.
    """

    config: LayerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        train: bool,
        context: Float[Array, "B M C"] | None = None,
        context_mask: Bool[Array, "B M"] | None = None,
        rotary: Float[np.ndarray, "L r"] | None = None,
    ) -> Float[Array, "B L D"]:
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=not train)
        normed = layer_norm(c.layer_norm_eps, c.compute.dtype, "attention_norm")(x)
        source = normed if context is None else context
        x = x + drop(Attention(c, KERNEL_INIT, name="attention")(normed, source, context_mask, train, rotary))
        hidden = layer_norm(c.layer_norm_eps, c.compute.dtype, "mlp_norm")(x)
        return x + drop(FeedForward(c, KERNEL_INIT, name="mlp")(hidden))


def rotate(states: Float[Array, "B L H d"], angles: Float[np.ndarray, "L r"]) -> Float[Array, "B L H d"]:
    """Returns `states` with each pair of neighboring numbers rotated by its angle; r is d / 2."""
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    pairs = states.astype(jnp.float32).reshape(*states.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.reshape(states.shape).astype(states.dtype)


def _dense(
    width: int, config: LayerConfig, kernel_init: nn.initializers.Initializer, name: str, *, use_bias: bool = True
) -> nn.Dense:
    return nn.Dense(width, use_bias, dtype=config.compute.dtype, kernel_init=kernel_init, name=name)


def layer_norm(eps: float, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Returns a layer norm with float32 statistics and `dtype` output."""
    return nn.LayerNorm(epsilon=eps, dtype=dtype, name=name, use_fast_variance=False)


def masked_mean(states: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Returns the float32 mean over real positions, 0 for rows without any. Mean pooling beats [CLS] [blog]."""
    weights = mask.astype(jnp.float32)[..., None]
    total = jnp.sum(states.astype(jnp.float32) * weights, axis=1)
    return total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


def pool(
    states: Float[Array, "B L D"], mask: Bool[Array, "B L"], pooling: Literal["mean", "cls"]
) -> Float[Array, "B D"]:
    """Returns one float32 state per row: the mean over real positions or the first position; 0 for rows without any."""
    if pooling == "mean":
        return masked_mean(states, mask)
    return states[:, 0].astype(jnp.float32) * jnp.any(mask, axis=1)[:, None]


def l2_normalize(vectors: Float[Array, "*n D"], eps: float = 1e-6) -> Float[Array, "*n D"]:
    """Returns vectors of length 1; a zero vector stays 0 and its gradient is finite."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, eps * eps))
