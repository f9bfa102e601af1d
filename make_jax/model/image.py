"""The image encoder, a ViT (Dosovitskiy et al., arXiv 2010.11929) whose parameters match public checkpoints."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, UInt8

from make_jax.config import ImageConfig
from make_jax.model.layer_config import ComputeConfig, layer_config
from make_jax.model.rotary import rotary_angles
from make_jax.model.transformer import EMBEDDING_INIT, KERNEL_INIT, PreNormLayer, layer_norm


def normalize_pixels(
    image: UInt8[Array, "B H W 3"], mean: tuple[float, ...], std: tuple[float, ...], dtype: DTypeLike
) -> Float[Array, "B H W 3"]:
    """Returns (pixel / 255 - mean) / std; on device, so that uint8 pixels, a quarter of the bytes, are transferred."""
    scaled = image.astype(jnp.float32) * (1.0 / 255.0)
    shift = jnp.asarray(mean, jnp.float32)[None, None, None]
    spread = jnp.asarray(std, jnp.float32)[None, None, None]
    return ((scaled - shift) / spread).astype(dtype)


def patches(image: Float[Array, "B H W 3"], patch: int) -> Float[Array, "B P E"]:
    """Returns non-overlapping patches in row-major order, each flattened as (row, column, channel)."""
    batch, height, width, channels = image.shape
    x = image.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


class ImageEncoder(nn.Module):
    """Encodes pixels as states [B, n + P, D]: n class tokens (usually 1), then patches; pre-norm layers, final norm.
    Positions are learned; with `rotary_grid` queries and keys are rotated too (`model/rotary.py`).

    Patches of `masked` are embedded as `mask_embedding`: their pixels reach no state.
    """

    config: ImageConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(
        self,
        image: UInt8[Array, "B H W 3"],
        train: bool = False,
        masked: Bool[Array, "B P"] | None = None,
        mask_embedding: Float[Array, "D"] | None = None,
    ) -> Float[Array, "B T D"]:
        c, dtype = self.config, jnp.dtype(self.compute.dtype)
        x = patches(normalize_pixels(image, self.mean, self.std, dtype), c.patch_size)
        x = nn.Dense(c.width, dtype=dtype, kernel_init=KERNEL_INIT, name="patch")(x)
        if masked is not None:
            assert mask_embedding is not None
            x = jnp.where(masked[..., None], mask_embedding.astype(dtype)[None, None], x)
        if c.class_tokens:
            tokens = self.param("class", EMBEDDING_INIT, (1, c.class_tokens, c.width), jnp.float32).astype(dtype)
            x = jnp.concatenate([jnp.broadcast_to(tokens, (x.shape[0], c.class_tokens, c.width)), x], axis=1)
        positions = self.param("position", EMBEDDING_INIT, (x.shape[1], c.width), jnp.float32)
        x = x + positions[None].astype(dtype)
        if c.embedding_norm:
            x = layer_norm(c.layer_norm_eps, dtype, "embedding_norm")(x)
        x = nn.Dropout(c.dropout)(x, deterministic=not train)
        rotary = None
        if c.rotary_grid:
            grid = (image.shape[1] // c.patch_size, image.shape[2] // c.patch_size)
            rotary = rotary_angles(grid, c.rotary_grid, c.width // c.heads, c.class_tokens)
        layer = nn.remat(PreNormLayer, static_argnums=(2,)) if self.compute.remat else PreNormLayer
        for i in range(c.layers):
            x = layer(layer_config(c, self.compute), name=f"layer_{i}")(x, train, rotary=rotary)
        return layer_norm(c.layer_norm_eps, dtype, "norm")(x)
