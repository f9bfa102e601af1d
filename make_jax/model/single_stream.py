"""A single-stream product encoder over [title; image], mean pooled: MAKE's predecessor, for comparison [blog].

0.048 test nDCG@10 below three encoders (docs/study.md).
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Int, UInt8

from make_jax.config import InputsConfig, ModelConfig
from make_jax.model.image import normalize_pixels, patches
from make_jax.model.layer_config import compute_config, layer_config
from make_jax.model.modal_adaptation import FusedProduct, ProductStates, equal_weights
from make_jax.model.transformer import EMBEDDING_INIT, KERNEL_INIT, PostNormLayer, l2_normalize, layer_norm, pool


class SingleStream(nn.Module):
    """Encodes title tokens and image patches with joint self-attention.

    It does not weigh the modalities: the weights are (1/2, 1/2), or 1 for the only modality of a product.
    """

    config: ModelConfig
    inputs: InputsConfig
    vocab_size: int

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
        words = nn.Embed(self.vocab_size, t.width, embedding_init=EMBEDDING_INIT, dtype=dtype, name="word")(
            title_tokens
        )
        image_embeddings = patches(normalize_pixels(image, i.image_mean, i.image_std, dtype), c.image.patch_size)
        image_embeddings = nn.Dense(t.width, dtype=dtype, kernel_init=KERNEL_INIT, name="patch")(image_embeddings)
        x = jnp.concatenate([words, image_embeddings], axis=1)
        positions = self.param("position", EMBEDDING_INIT, (x.shape[1], t.width), jnp.float32)
        types = self.param("type", EMBEDDING_INIT, (2, t.width), jnp.float32)
        type_embeddings = jnp.repeat(
            types, jnp.array([words.shape[1], image_embeddings.shape[1]]), axis=0, total_repeat_length=x.shape[1]
        )
        x = layer_norm(t.layer_norm_eps, dtype, "norm")(x + (positions + type_embeddings).astype(dtype)[None])
        x = nn.Dropout(t.dropout)(x, deterministic=not train)
        image_mask = jnp.broadcast_to(has_image[:, None], (x.shape[0], image_embeddings.shape[1]))
        mask = jnp.concatenate([title_mask & has_title[:, None], image_mask], axis=1)
        layer = nn.remat(PostNormLayer, static_argnums=(3,)) if c.remat else PostNormLayer
        for i_layer in range(t.layers):
            x = layer(layer_config(t, compute_config(c)), name=f"layer_{i_layer}")(x, mask, train)
        vectors = nn.Dense(c.embedding_dim, kernel_init=KERNEL_INIT, name="projection")(pool(x, mask, c.pooling))
        fused = FusedProduct(
            l2_normalize(vectors) if c.l2_normalize else vectors,
            equal_weights(jnp.stack([has_title, has_image], axis=-1)),
        )
        length = words.shape[1]
        return fused, ProductStates(x[:, :length], mask[:, :length], x[:, length:], image_mask)
