"""Modal Adaptation: how much of a product is told by its title, how much by its picture [paper]; the inside is [ours].

    T' = block(H_t attends H_v)        V' = block(H_v attends H_t)
    t  = mean over real tokens of T'   v  = mean over patches of V'
    t~ = l2(W_t t)                     v~ = l2(W_v v)
    p  = l2(w_t t~ + w_v v~)           w_t + w_v = 1

The weights come in three forms:

    gate        (w_t, w_v) = softmax(W2 gelu(W1 [t ; v ; t*v]))
    mean        one half each
    per_keyword one half each here, and one for each keyword of the product in model/keyword_evidence.py

By `per_keyword` the title can tell the type of a product and the picture its colour. The weights see the product only,
never the query, so product vectors can be computed ahead of time. The two directions have unit length before they
are weighted. A modality that is missing has weight exactly 0, its content cannot reach p, and no gradient enters its
encoder from that row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from make_jax.config import ModelConfig
from make_jax.model.transformer import KERNEL_INIT, MASKED, PreNormLayer, l2_normalize, pool


class FusedProduct(NamedTuple):
    """A product after Modal Adaptation."""

    vectors: Float[Array, "B E"]  # p, l2_normalize length
    weights: Float[Array, "B 2"]  # (w_t, w_v), sum 1; a missing modality has 0
    title: Float[Array, "B E"] | None = None  # l2(W_t t), where the two modalities have a direction each
    image: Float[Array, "B E"] | None = None  # l2(W_v v)


class ProductStates(NamedTuple):
    """The states of a product's tokens and patches, for what reads more than its vector; None: no such encoder."""

    title: Float[Array, "B Lt D"] | None
    title_mask: Bool[Array, "B Lt"]  # real tokens of products that have a title
    image: Float[Array, "B P D"] | None  # patches, without the class token
    image_mask: Bool[Array, "B P"]


class ModalAdaptation(nn.Module):
    """Joins title states [B, Lt, Dt] and image states [B, n + P, Dv] to one product vector [B, E]."""

    config: ModelConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        title_states: Float[Array, "B Lt Dt"],
        title_mask: Bool[Array, "B Lt"],
        image_states: Float[Array, "B T Dv"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
        train: bool = False,
    ) -> FusedProduct:
        c, a = self.config, self.config.adaptation
        title_mask = title_mask & has_title[:, None]
        image_mask = jnp.broadcast_to(has_image[:, None], image_states.shape[:2])
        # Cut before anything reads the states: a missing modality neither sends a value nor receives a gradient.
        title_states = jnp.where(title_mask[..., None], title_states, jnp.zeros((), title_states.dtype))
        image_states = jnp.where(image_mask[..., None], image_states, jnp.zeros((), image_states.dtype))
        if a.cross_attention:
            t = c.title
            settings = (t.heads, t.mlp_width, t.dropout, c.image.layer_norm_eps, t.activation, self.dtype)
            title_block = PreNormLayer(*settings, name="title_attends_image")
            image_block = PreNormLayer(*settings, name="image_attends_title")
            title_states, image_states = (
                title_block(title_states, train, context=image_states, context_mask=image_mask),
                image_block(image_states, train, context=title_states, context_mask=title_mask),
            )
        title = pool(title_states, title_mask, c.pooling)
        patches = slice(c.image.class_tokens if c.pooling == "mean" else 0, None)  # class tokens are no patches
        image = pool(image_states[:, patches], image_mask[:, patches], c.pooling)
        title_direction = l2_normalize(self._dense(c.embedding_dim, "title_projection")(title))
        image_direction = l2_normalize(self._dense(c.embedding_dim, "image_projection")(image))
        present = jnp.stack([has_title, has_image], axis=-1)
        weights = self._gate(title, image, present) if a.weights == "gate" else equal_weights(present)
        mixed = weights[:, :1] * title_direction + weights[:, 1:] * image_direction
        return FusedProduct(l2_normalize(mixed) if c.l2_normalize else mixed, weights, title_direction, image_direction)

    def _gate(
        self, t: Float[Array, "B Dt"], v: Float[Array, "B Dv"], present: Bool[Array, "B 2"]
    ) -> Float[Array, "B 2"]:
        """One weight a modality and product, from both."""
        a = self.config.adaptation
        if t.shape[-1] != v.shape[-1]:  # encoders of different widths: the gate compares them in the title's
            v = self._dense(t.shape[-1], "gate_image")(v)
        hidden = nn.gelu(self._dense(a.gate_width, "gate_in")(jnp.concatenate([t, v, t * v], axis=-1)))
        # Zero start: both modalities weigh the same until the data says otherwise.
        logits = nn.Dense(2, kernel_init=nn.initializers.zeros, name="gate_out")(hidden)
        return jax.nn.softmax(jnp.where(present, logits, MASKED), axis=-1)

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, kernel_init=KERNEL_INIT, name=name)  # float32: small, and decides the result


def equal_weights(present: Bool[Array, "B 2"]) -> Float[Array, "B 2"]:
    """(1/2, 1/2), or all the weight on the one modality that is there."""
    share = present.astype(jnp.float32)
    return share / jnp.maximum(jnp.sum(share, axis=-1, keepdims=True), 1.0)
