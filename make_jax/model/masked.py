"""Masked modeling, the part inside the model: heads that predict masked tokens and masked patches.

MLM on query and title, MPM on the image [blog]; that the title is predicted given the image is [blog], how is [ours].
With h the state of a masked token, word embeddings W [V, D] and the patch states H_v of the unmasked image:

    h' = block(h attends H_v)                         titles only, and where the product has an image
    z  = W norm(gelu(W_1 h')) + b                     BERT's head, tied to the words (Devlin et al., arXiv 1810.04805)

MPM, with h the state of a masked patch, whose embedding was replaced by a learned vector, and x its pixels standardized
to mean 0 and deviation 1 (He et al., arXiv 2111.06377):

    contrastive   prediction l2(W_p h), target l2(W_z x)        [sister]: beats regression; the variant is [ours], after
                                                                wav2vec 2.0 (Baevski et al., arXiv 2006.11477)
    regression    prediction W_p h,     target x

`objectives/masked.py` has the losses. Only masked positions are computed: a fixed number m per row is gathered, so the
product with the words is [B, m, V].
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from make_jax.config import TextConfig
from make_jax.model.gelu import exact_gelu
from make_jax.model.image import patches
from make_jax.model.layer_config import ComputeConfig, layer_config
from make_jax.model.transformer import BERT_INIT, EMBEDDING_INIT, KERNEL_INIT, PreNormLayer, l2_normalize, layer_norm

FLAT = 0.02  # patches whose pixels deviate less, as a share of their range, are flat: white background


class PredictedTokens(NamedTuple):
    """Predictions of masked tokens."""

    logits: Float[Array, "B m V"]
    labels: Int[Array, "B m"]  # the original tokens; -1: not masked


class PredictedPatches(NamedTuple):
    """Predictions of masked patches."""

    predictions: Float[Array, "B m F"]
    targets: Float[Array, "B m F"] | None  # of the contrastive variant; None: the target is `pixels`
    pixels: Float[Array, "B m E"]  # of the patches, mean 0 and deviation 1
    valid: Bool[Array, "B m"]  # masked patches that are not flat


class TokenHead(nn.Module):
    """Predicts masked tokens from token states and given word embeddings."""

    config: TextConfig
    max_masked: int  # m, max masked tokens per text
    eps: float  # layer norm of the block
    compute: ComputeConfig = ComputeConfig()

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
        c, dtype = self.config, jnp.dtype(self.compute.dtype)
        positions = first_true(labels >= 0, self.max_masked)
        x, labels = take_positions(states, positions), take_positions(labels, positions)
        if context is not None:
            block = layer_config(c, self.compute, layer_norm_eps=self.eps)
            x = PreNormLayer(block, name="attends_image")(x, train, context, context_mask)
        x = nn.Dense(c.width, dtype=dtype, kernel_init=BERT_INIT, name="transform")(x)
        x = nn.gelu(x) if c.activation == "gelu_tanh" else exact_gelu(x)
        x = layer_norm(c.layer_norm_eps, dtype, "norm")(x)
        logits = jnp.einsum("bmd,vd->bmv", x, words.astype(dtype), preferred_element_type=jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (words.shape[0],), jnp.float32)
        return PredictedTokens(logits + bias[None, None], labels)


class PatchHead(nn.Module):
    """Predicts masked patches from patch states, and computes their targets."""

    variant: Literal["contrastive", "regression"]
    width: int  # D, of the image encoder
    patch_size: int  # pixels per side
    max_masked: int  # m, max masked patches per image

    def setup(self) -> None:
        pixels = 3 * self.patch_size**2
        self.vector = self.param("vector", EMBEDDING_INIT, (self.width,), jnp.float32)  # embedding of masked patches
        if self.variant == "contrastive":
            self.predict = nn.Dense(self.width, kernel_init=KERNEL_INIT)
            self.target = nn.Dense(self.width, kernel_init=KERNEL_INIT)
        else:
            self.predict = nn.Dense(pixels, kernel_init=KERNEL_INIT)

    def __call__(
        self, states: Float[Array, "B P D"], image: UInt8[Array, "B H W 3"], masked: Bool[Array, "B P"]
    ) -> PredictedPatches:
        positions = first_true(masked, self.max_masked)
        pixels = take_positions(patches(image.astype(jnp.float32) * (1.0 / 255.0), self.patch_size), positions)
        centered = pixels - jnp.mean(pixels, axis=-1, keepdims=True)
        deviation = jnp.sqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True))
        pixels = centered / jnp.maximum(deviation, FLAT)
        valid = take_positions(masked, positions) & (deviation[..., 0] >= FLAT)
        predictions = self.predict(take_positions(states, positions).astype(jnp.float32))
        if self.variant == "regression":
            return PredictedPatches(predictions, None, pixels, valid)
        return PredictedPatches(l2_normalize(predictions), l2_normalize(self.target(pixels)), pixels, valid)


def first_true(mask: Bool[Array, "B L"], count: int) -> Int[Array, "B m"]:
    """Returns the positions of the first `count` true values of each row, then of false ones."""
    return jnp.argsort(~mask, axis=1, stable=True)[:, :count]  # top_k would gather the rows of all devices


def take_positions(values: Array, positions: Int[Array, "B m"]) -> Array:
    """Returns `values` [B, L] or [B, L, D] at `positions` of each row."""
    index = positions if values.ndim == 2 else positions[..., None]
    return jnp.take_along_axis(values, index, axis=1)


def word_table(encoder: nn.Module) -> Float[Array, "V D"]:
    """Returns the word embeddings of a bound encoder that was called before."""
    return encoder.variables["params"]["word"]["embedding"]
