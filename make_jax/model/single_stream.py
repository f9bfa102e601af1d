"""The predecessor's product encoder, kept for comparison: one stream over [title; image], mean pooled [blog]."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Int, UInt8

from make_jax.config import InputsConfig, ModelConfig
from make_jax.model.image import normalize_pixels, patches
from make_jax.model.modal_adaptation import FusedProduct, ProductStates, equal_weights
from make_jax.model.transformer import EMBEDDING_INIT, KERNEL_INIT, PostNormLayer, l2_normalize, layer_norm, pool


class SingleStream(nn.Module):
    """Self-attention over title tokens and image patches together.

    Its weights are (1/2, 1/2) or all on the modality that is there: nothing in it weighs the two.
    """

    config: ModelConfig
    inputs: InputsConfig
    vocabulary: int

    @nn.compact
    def __call__(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
        train: bool = False,
    ) -> tuple[FusedProduct, ProductStates]:
        c, i, t = self.config, self.inputs, self.config.title
        dtype = jnp.dtype(c.dtype)
        words = nn.Embed(self.vocabulary, t.width, embedding_init=EMBEDDING_INIT, dtype=dtype, name="word")(
            title_tokens
        )
        pieces = patches(normalize_pixels(image, i.image_mean, i.image_std, dtype), c.image.patch_size)
        pieces = nn.Dense(t.width, dtype=dtype, kernel_init=KERNEL_INIT, name="patch")(pieces)
        x = jnp.concatenate([words, pieces], axis=1)
        positions = self.param("position", EMBEDDING_INIT, (x.shape[1], t.width), jnp.float32)
        kinds = self.param("type", EMBEDDING_INIT, (2, t.width), jnp.float32)
        kind = jnp.repeat(kinds, jnp.array([words.shape[1], pieces.shape[1]]), axis=0, total_repeat_length=x.shape[1])
        x = layer_norm(t.layer_norm_eps, dtype, "norm")(x + (positions + kind).astype(dtype)[None])
        x = nn.Dropout(t.dropout)(x, deterministic=not train)
        image_mask = jnp.broadcast_to(has_image[:, None], (x.shape[0], pieces.shape[1]))
        mask = jnp.concatenate([title_mask & has_title[:, None], image_mask], axis=1)
        layer = nn.remat(PostNormLayer, static_argnums=(3,)) if c.remat else PostNormLayer
        for number in range(t.layers):
            x = layer(t.heads, t.mlp_width, t.dropout, t.layer_norm_eps, t.activation, dtype, name=f"layer_{number}")(
                x, mask, train
            )
        vectors = nn.Dense(c.embedding_dim, kernel_init=KERNEL_INIT, name="projection")(pool(x, mask, c.pooling))
        adapted = FusedProduct(
            l2_normalize(vectors) if c.l2_normalize else vectors,
            equal_weights(jnp.stack([has_title, has_image], axis=-1)),
        )
        length = words.shape[1]
        return adapted, ProductStates(x[:, :length], mask[:, :length], x[:, length:], image_mask)
