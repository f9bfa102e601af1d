"""The matching encoder: a cross-modal encoder that classifies whether a query and a product match.

That QIM and QIM2 have a cross-modal encoder is [blog]. Its architecture is that of ALBEF (Li et al., arXiv 2107.07651),
but pre-norm; the composition of its context is [ours]. With H_q the token states of the query and
C = norm([W_t H_t + e_t ; W_v H_v + e_v]) those of title tokens and image patches:

    x = W_q H_q
    each layer: x = x + self-attention(norm x)      over the query's real tokens
                x = x + attention(norm x, C)        to the product
                x = x + MLP(norm x)
    logit = u . mean over real tokens of norm(x) + c

Two heads (u, c) share everything else: "item" has the context C (QIM, re-ranking), "image" only W_v H_v + e_v (QIM2). A
missing modality is masked: it contributes no value and gets no gradient. In a `single_stream` model patches have
already attended to the title, so "image" is not independent of it there.
"""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from make_jax.config import ModelConfig
from make_jax.model.layer_config import LayerConfig, compute_config, layer_config
from make_jax.model.modal_adaptation import ProductStates
from make_jax.model.transformer import EMBEDDING_INIT, KERNEL_INIT, Attention, FeedForward, layer_norm, masked_mean

MatchTarget = Literal["item", "image"]  # what is matched with the query: the product, or its image alone


class MatchingEncoder(nn.Module):
    """Maps token states of queries [B, Lq, Dq] and states of products to a float32 logit per pair; row i is pair i."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        query_states: Float[Array, "B Lq Dq"],
        query_mask: Bool[Array, "B Lq"],
        product: ProductStates,
        target: MatchTarget = "item",
        train: bool = False,
    ) -> Float[Array, "B"]:
        c, m = self.config, self.config.matching
        context, context_mask = self._context(product, target)
        x = self._dense("query")(query_states.astype(c.dtype))
        layer = nn.remat(MatchingLayer, static_argnums=(5,)) if c.remat else MatchingLayer
        q = c.query
        block = layer_config(m, compute_config(c), layer_norm_eps=q.layer_norm_eps, activation=q.activation)
        for i in range(m.layers):
            x = layer(block, name=f"layer_{i}")(x, query_mask, context, context_mask, train)
        pooled = masked_mean(layer_norm(q.layer_norm_eps, c.dtype, "norm")(x), query_mask)
        return nn.Dense(1, kernel_init=KERNEL_INIT, name=f"{target}_head")(pooled)[
            :, 0
        ]  # float32: it decides the ranking

    def _context(self, product: ProductStates, target: MatchTarget) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
        """Returns C and its mask."""
        width, dtype = self.config.matching.width, jnp.dtype(self.config.dtype)
        kinds = self.param("type", EMBEDDING_INIT, (2, width), jnp.float32).astype(dtype)
        parts = []
        if product.title is not None and target == "item":
            parts.append(("title", product.title, product.title_mask, kinds[0]))
        if product.image is not None:
            parts.append(("image", product.image, product.image_mask, kinds[1]))
        if not parts:
            raise ValueError(f"the product has no states for the target {target!r}")
        states = []
        for name, modality, mask, kind in parts:
            # Zeroed before anything reads them: a missing modality contributes no value and gets no gradient.
            present = jnp.where(mask[..., None], modality.astype(dtype), jnp.zeros((), dtype))
            states.append(self._dense(name)(present) + kind[None, None])
        context = layer_norm(self.config.query.layer_norm_eps, dtype, "context_norm")(jnp.concatenate(states, axis=1))
        return context, jnp.concatenate([mask for _, _, mask, _ in parts], axis=1)

    def _dense(self, name: str) -> nn.Dense:
        return nn.Dense(self.config.matching.width, dtype=self.config.dtype, kernel_init=KERNEL_INIT, name=name)


class MatchingLayer(nn.Module):
    """Self-attention, attention to `context`, MLP; pre-norm."""

    config: LayerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        context: Float[Array, "B M D"],
        context_mask: Bool[Array, "B M"],
        train: bool,
    ) -> Float[Array, "B L D"]:
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=not train)
        normed = layer_norm(c.layer_norm_eps, c.compute.dtype, "attention_norm")(x)
        x = x + drop(Attention(c, KERNEL_INIT, name="attention")(normed, normed, mask, train))
        normed = layer_norm(c.layer_norm_eps, c.compute.dtype, "cross_attention_norm")(x)
        x = x + drop(Attention(c, KERNEL_INIT, name="cross_attention")(normed, context, context_mask, train))
        normed = layer_norm(c.layer_norm_eps, c.compute.dtype, "mlp_norm")(x)
        return x + drop(FeedForward(c, KERNEL_INIT, name="mlp")(normed))
