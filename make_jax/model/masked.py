"""Masked modelling, the part inside the model: what stood at hidden tokens, what stood in hidden patches.

MLM on query and title, MPM on the picture [blog]; that the title is predicted given the picture is [blog], how is
[ours]. With h the state of a hidden token, table W [V, D] and the patch states H_v of the whole picture:

    h' = block(h attends H_v)                         titles only, and where the product has a picture
    z  = W norm(gelu(W_1 h')) + b                     BERT's head, tied to the words (Devlin et al., arXiv 1810.04805)

MPM, with h the state of a hidden patch, whose embedding was replaced by a learned vector, and x its pixels brought to
mean 0 and deviation 1 (He et al., arXiv 2111.06377):

    contrastive   prediction l2(W_p h), target l2(W_z x)        [sister]: beats regression; the form is [ours], after
                                                                wav2vec 2.0 (Baevski et al., arXiv 2006.11477)
    regression    prediction W_p h,     target x

`objectives/masked.py` compares them. Only hidden positions are computed: they are gathered, a fixed number m a row, so
that the product with the words is [B, m, V].
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from make_jax.config import TextConfig
from make_jax.model.gelu import exact_gelu
from make_jax.model.image import patches
from make_jax.model.transformer import BERT_INIT, EMBEDDING_INIT, KERNEL_INIT, PreNormLayer, l2_normalize, layer_norm

FLAT = 0.02  # a patch whose pixels deviate less than this share of their range shows nothing: white background


class PredictedTokens(NamedTuple):
    """What a model says of hidden tokens."""

    logits: Float[Array, "B m V"]
    labels: Int[Array, "B m"]  # what stood there; -1: nothing is to be predicted


class PredictedPatches(NamedTuple):
    """What a model says of hidden patches."""

    predictions: Float[Array, "B m F"]
    targets: Float[Array, "B m F"] | None  # what they are contrasted with; None: they predict `pixels`
    pixels: Float[Array, "B m E"]  # the patches' own, mean 0 and deviation 1
    there: Bool[Array, "B m"]  # hidden patches that are not flat


class TokenHead(nn.Module):
    """States of a masked text to logits of what was hidden, with a table of word embeddings given."""

    config: TextConfig
    hidden: int  # m, the most hidden tokens of a text
    eps: float  # layer norm of the block
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "B L D"],
        labels: Int[Array, "B L"],
        words: Float[Array, "V D"],
        train: bool = False,
        context: Float[Array, "B M C"] | None = None,
        context_mask: Bool[Array, "B M"] | None = None,
    ) -> PredictedTokens:
        c = self.config
        places = first_true(labels >= 0, self.hidden)
        x, labels = at(states, places), at(labels, places)
        if context is not None:
            settings = (c.heads, c.mlp_width, c.dropout, self.eps, c.activation, self.dtype)
            x = PreNormLayer(*settings, name="attends_image")(x, train, context, context_mask)
        x = nn.Dense(c.width, dtype=self.dtype, kernel_init=BERT_INIT, name="transform")(x)
        x = nn.gelu(x) if c.activation == "gelu_tanh" else exact_gelu(x)
        x = layer_norm(c.layer_norm_eps, self.dtype, "norm")(x)
        logits = jnp.einsum("bmd,vd->bmv", x, words.astype(self.dtype), preferred_element_type=jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (words.shape[0],), jnp.float32)
        return PredictedTokens(logits + bias[None, None], labels)


class PatchHead(nn.Module):
    """States of patches, some of them hidden, to predictions of the hidden ones, beside their targets."""

    kind: Literal["contrastive", "regression"]
    width: int  # D, of the image encoder
    patch: int  # pixels a side
    hidden: int  # m, the most hidden patches of a picture

    def setup(self) -> None:
        pixels = 3 * self.patch**2
        self.vector = self.param("vector", EMBEDDING_INIT, (self.width,), jnp.float32)  # in place of hidden patches
        if self.kind == "contrastive":
            self.predict = nn.Dense(self.width, kernel_init=KERNEL_INIT)
            self.target = nn.Dense(self.width, kernel_init=KERNEL_INIT)
        else:
            self.predict = nn.Dense(pixels, kernel_init=KERNEL_INIT)

    def __call__(
        self, states: Float[Array, "B P D"], image: UInt8[Array, "B H W 3"], hidden: Bool[Array, "B P"]
    ) -> PredictedPatches:
        places = first_true(hidden, self.hidden)
        pixels = at(patches(image.astype(jnp.float32) * (1.0 / 255.0), self.patch), places)
        centred = pixels - jnp.mean(pixels, axis=-1, keepdims=True)
        deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True))
        pixels = centred / jnp.maximum(deviation, FLAT)
        there = at(hidden, places) & (deviation[..., 0] >= FLAT)
        predictions = self.predict(at(states, places).astype(jnp.float32))
        if self.kind == "regression":
            return PredictedPatches(predictions, None, pixels, there)
        return PredictedPatches(l2_normalize(predictions), l2_normalize(self.target(pixels)), pixels, there)


def first_true(mask: Bool[Array, "B L"], count: int) -> Int[Array, "B m"]:
    """The places of the first `count` true values of each row, then of false ones."""
    return jnp.argsort(~mask, axis=1, stable=True)[:, :count]  # top_k would gather the rows of all devices


def at(values: Array, places: Int[Array, "B m"]) -> Array:
    """`values` [B, L] or [B, L, D] at `places` of each row."""
    index = places if values.ndim == 2 else places[..., None]
    return jnp.take_along_axis(values, index, axis=1)


def word_table(encoder: nn.Module) -> Float[Array, "V D"]:
    """The word embeddings of a bound encoder that was called before."""
    return encoder.variables["params"]["word"]["embedding"]
