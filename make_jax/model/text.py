"""The text encoder, a BERT (Devlin et al., arXiv 1810.04805) whose parameters match public checkpoints.

Query and title have one each [paper].
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from make_jax.config import TextConfig
from make_jax.model.layer_config import ComputeConfig, layer_config
from make_jax.model.transformer import EMBEDDING_INIT, PostNormLayer, layer_norm


class TextEncoder(nn.Module):
    """Encodes token ids as token states: embeddings (word + position + type), norm, post-norm layers."""

    config: TextConfig
    vocab_size: int  # word pieces
    max_length: int  # tokens per text
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], train: bool = False
    ) -> Float[Array, "B L D"]:
        c, dtype = self.config, jnp.dtype(self.compute.dtype)
        words = nn.Embed(self.vocab_size, c.width, embedding_init=EMBEDDING_INIT, dtype=dtype, name="word")(tokens)
        positions = self.param("position", EMBEDDING_INIT, (self.max_length, c.width), jnp.float32)
        kind = self.param("type", EMBEDDING_INIT, (1, c.width), jnp.float32)
        x = words + (positions[: tokens.shape[1]] + kind).astype(dtype)[None]
        x = layer_norm(c.layer_norm_eps, dtype, "norm")(x)
        x = nn.Dropout(c.dropout)(x, deterministic=not train)
        layer = nn.remat(PostNormLayer, static_argnums=(3,)) if self.compute.remat else PostNormLayer
        for i in range(c.layers):
            x = layer(layer_config(c, self.compute), name=f"layer_{i}")(x, mask, train)
        return x
