"""Transformer layers: attention, MLP, post-norm (BERT) and pre-norm (ViT) layers, pooling, normalization.

Matrix products run in `dtype`; parameters, layer norms and softmax stay float32. Letters are those of `model/make.py`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from make_jax.model.gelu import exact_gelu

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
KERNEL_INIT = nn.initializers.xavier_uniform()  # of ViT
# Of BERT. A post-norm layer that starts small starts near the identity; from scratch that decides what text learns.
BERT_INIT = nn.initializers.truncated_normal(0.02)
EMBEDDING_INIT = nn.initializers.normal(0.02)
MASKED = -1e30  # logit of a masked key: softmax gives exactly 0 in float32 if any key is not masked


class Attention(nn.Module):
    """Multi-head attention of `x` to `context`; its output is exactly 0 for rows without a real key."""

    heads: int
    dropout: float
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        context: Float[Array, "B M C"],
        context_mask: Bool[Array, "B M"] | None,
        train: bool,
    ) -> Float[Array, "B L D"]:
        width = x.shape[-1]

        def project(name: str, value: Array) -> Array:
            value = nn.Dense(width, dtype=self.dtype, kernel_init=self.kernel_init, name=name)(value)
            # Heads are transposed before the products: three times as fast on CPU as leaving it to einsum.
            return value.reshape(*value.shape[:-1], self.heads, width // self.heads).transpose(0, 2, 1, 3)

        query, key, value = project("query", x), project("key", context), project("value", context)
        logits = jnp.einsum("bhld,bhmd->bhlm", query, key, preferred_element_type=jnp.float32)
        logits = logits * (query.shape[-1] ** -0.5)
        if context_mask is not None:
            logits = jnp.where(context_mask[:, None, None, :], logits, MASKED)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        weights = nn.Dropout(self.dropout)(weights, deterministic=not train)
        out = jnp.einsum("bhlm,bhmd->bhld", weights, value).transpose(0, 2, 1, 3).reshape(x.shape)
        out = nn.Dense(width, dtype=self.dtype, kernel_init=self.kernel_init, name="out")(out)
        if context_mask is not None:
            out = jnp.where(jnp.any(context_mask, axis=-1)[:, None, None], out, jnp.zeros((), out.dtype))
        return out


class FeedForward(nn.Module):
    """Dense, GELU (exact as in BERT and ViT, tanh as in SigLIP, sigmoid as in CLIP), Dense."""

    mlp_width: int
    activation: Activation
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        hidden = nn.Dense(self.mlp_width, dtype=self.dtype, kernel_init=self.kernel_init, name="in")(x)
        if self.activation == "quick_gelu":
            hidden = hidden * nn.sigmoid(1.702 * hidden)
        else:
            hidden = nn.gelu(hidden) if self.activation == "gelu_tanh" else exact_gelu(hidden)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=self.kernel_init, name="out")(hidden)


class PostNormLayer(nn.Module):
    """A BERT layer: the norm follows each sum (Devlin et al., arXiv 1810.04805)."""

    heads: int
    mlp_width: int
    dropout: float
    eps: float
    activation: Activation
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"], train: bool) -> Float[Array, "B L D"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        attention = Attention(self.heads, self.dropout, self.dtype, BERT_INIT, name="attention")
        attended = attention(x, x, mask, train)
        x = layer_norm(self.eps, self.dtype, "attention_norm")(x + drop(attended))
        hidden = FeedForward(self.mlp_width, self.activation, self.dtype, BERT_INIT, name="mlp")(x)
        return layer_norm(self.eps, self.dtype, "mlp_norm")(x + drop(hidden))


class PreNormLayer(nn.Module):
    """A ViT layer: the norm precedes each branch (Dosovitskiy et al., arXiv 2010.11929).

    With `context`, attention is to `context` instead of `x`: the cross-attention block of Modal Adaptation.
    """

    heads: int
    mlp_width: int
    dropout: float
    eps: float
    activation: Activation
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        train: bool,
        context: Float[Array, "B M C"] | None = None,
        context_mask: Bool[Array, "B M"] | None = None,
    ) -> Float[Array, "B L D"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        normed = layer_norm(self.eps, self.dtype, "attention_norm")(x)
        source = normed if context is None else context
        attention = Attention(self.heads, self.dropout, self.dtype, KERNEL_INIT, name="attention")
        attended = attention(normed, source, context_mask, train)
        x = x + drop(attended)
        hidden = layer_norm(self.eps, self.dtype, "mlp_norm")(x)
        return x + drop(FeedForward(self.mlp_width, self.activation, self.dtype, KERNEL_INIT, name="mlp")(hidden))


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
