"""Modal Adaptation: one product embedding from title and image, weighted by modality [paper]; the inside is [ours].

    T' = H_t                           V' = H_v                           or with model.adaptation.cross_attention:
    T' = block(H_t attends H_v)        V' = block(H_v attends H_t)
    t  = mean over real tokens of T'   v  = mean over patches of V'
    t~ = l2(W_t t)                     v~ = l2(W_v v)
    p  = l2(w_t t~ + w_v v~)           w_t + w_v = 1

`MODALITY_WEIGHTS` lists the ways to compute (w_t, w_v), by their name in `model.adaptation.weights`:

    gate         softmax(W2 gelu(W1 [t ; v ; t*v])), one pair per product
    mean         (1/2, 1/2)
    per_keyword  (1/2, 1/2) for p; for the keyword dimensions of search one pair per product and keyword:
                 w_m = u_m / (u_t + u_v),  u_m = max(z_m - z_0, 1)^(1/2),  z_m the keyword's logit from modality m,
                 z_0 its logit for a product of which nothing is known (model/keyword_evidence.py)

To add a way: write its function and its entry in the table; nothing else lists the names. Export to PyTorch and ONNX
needs its counterpart in `interop/torch_model/modal_adaptation.py`, and if it has parameters, their names in
`interop/torch_checkpoint.py`.

`per_keyword` lets the title decide the type of a product and the image its color: what counts is how far a modality
raises a keyword above its prior. Lowering it counts little, because titles omit most of what is true of a product.

The weights depend on the product only, so product embeddings can be computed ahead of time. t~ and v~ have unit length
before they are weighted. A missing modality has weight exactly 0, its content cannot reach p, and its encoder gets no
gradient from that row.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from make_jax.config import ModelConfig
from make_jax.errors import lookup
from make_jax.model.attention import MASKED
from make_jax.model.layer_config import compute_config, layer_config
from make_jax.model.transformer import KERNEL_INIT, PreNormLayer, l2_normalize, pool


class FusedProduct(NamedTuple):
    """The embedding of a product, with the weights and the embeddings it was fused from."""

    vectors: Float[Array, "B E"]  # p, unit length
    weights: Float[Array, "B 2"]  # (w_t, w_v), sum 1; 0 for a missing modality
    title: Float[Array, "B E"] | None = None  # t~; None for models with one embedding per product
    image: Float[Array, "B E"] | None = None  # v~


class ProductStates(NamedTuple):
    """Token and patch states of a product, for cross-modal encoders; None: the model has no such encoder."""

    title: Float[Array, "B Lt D"] | None
    title_mask: Bool[Array, "B Lt"]  # real tokens of existing titles
    image: Float[Array, "B P D"] | None  # patches, without class tokens
    image_mask: Bool[Array, "B P"]


class PooledModalities(NamedTuple):
    """Input of a function that weighs title and image per product."""

    title: Float[Array, "B Dt"]  # t
    image: Float[Array, "B Dv"]  # v
    present: Bool[Array, "B 2"]  # whether the product has a title, an image
    gate_width: int


class KeywordLogits(NamedTuple):
    """Input of a function that weighs modalities per keyword: arrays by modality name."""

    logits: Mapping[str, Float[Array, "B n"]]  # z_m
    present: Mapping[str, Bool[Array, "B"]]
    prior: Float[Array, "1 n"]  # z_0


class ModalityWeights(NamedTuple):
    """One way to weigh title and image."""

    # (w_t, w_v) per product, sum 1. Runs inside `ModalAdaptation`, so it may create layers; name them.
    per_product: Callable[[PooledModalities], Float[Array, "B 2"]]
    # Unscaled weights [B, n] by modality, 0 where it is missing. None: those of the product, for each keyword.
    per_keyword: Callable[[KeywordLogits], dict[str, Array]] | None = None
    learned: bool = False  # whether `per_product` depends on parameters, so that training logs their mean


def equal_weights(present: Bool[Array, "B 2"]) -> Float[Array, "B 2"]:
    """Returns (1/2, 1/2), or weight 1 for the only modality of a product."""
    share = present.astype(jnp.float32)
    return share / jnp.maximum(jnp.sum(share, axis=-1, keepdims=True), 1.0)


def single_modality_weights(modality: Literal["title", "image"], rows: int) -> Float[Array, "B 2"]:
    """Returns the weights of a model with one encoder of products: 1 and 0, whether or not a row has the modality."""
    weights = {"title": (1.0, 0.0), "image": (0.0, 1.0)}[modality]
    return jnp.broadcast_to(jnp.asarray(weights, jnp.float32), (rows, 2))


def gate_weights(pooled: PooledModalities) -> Float[Array, "B 2"]:
    """Returns learned weights, a function of both modalities; equal at initialization."""
    t, v = pooled.title, pooled.image
    if t.shape[-1] != v.shape[-1]:  # encoders of different widths: compared in the title's
        v = _dense(t.shape[-1], "gate_image")(v)
    hidden = nn.gelu(_dense(pooled.gate_width, "gate_in")(jnp.concatenate([t, v, t * v], axis=-1)))
    logits = nn.Dense(2, kernel_init=nn.initializers.zeros, name="gate_out")(hidden)
    return jax.nn.softmax(jnp.where(pooled.present, logits, MASKED), axis=-1)


def keyword_confidence(keywords: KeywordLogits) -> dict[str, Array]:
    """Returns u_m, how far each modality raises each keyword above its prior."""
    return {
        name: jnp.sqrt(jnp.maximum(logits - keywords.prior, 1.0)) * keywords.present[name][:, None]
        for name, logits in keywords.logits.items()
    }


MODALITY_WEIGHTS: dict[str, ModalityWeights] = {
    "per_keyword": ModalityWeights(lambda pooled: equal_weights(pooled.present), keyword_confidence),
    "gate": ModalityWeights(gate_weights, learned=True),
    "mean": ModalityWeights(lambda pooled: equal_weights(pooled.present)),
}


def modality_weights(name: str) -> ModalityWeights:
    """Returns the entry `name`; raises InputError, with all names and the nearest one, if there is none."""
    return lookup(MODALITY_WEIGHTS, name, "model.adaptation.weights")


def keyword_weights(
    name: str, keywords: KeywordLogits, product_weights: Float[Array, "B 2"]
) -> dict[str, Float[Array, "B n"]]:
    """Returns w_m per product and keyword by modality; they sum to 1, or to 0 for a product without any modality.

    A model with one embedding per product has one modality, "product", of weight 1.
    """
    function = modality_weights(name).per_keyword
    if function is not None or "product" in keywords.logits:
        unscaled = (function or keyword_confidence)(keywords)
    else:
        columns = {"title": product_weights[:, :1], "image": product_weights[:, 1:]}
        unscaled = {name: jnp.broadcast_to(columns[name], logits.shape) for name, logits in keywords.logits.items()}
    total = sum(unscaled.values(), jnp.zeros(()))
    return {name: weight / jnp.where(total > 0, total, 1.0) for name, weight in unscaled.items()}


def reported_weights(
    name: str,
    by_keyword: Mapping[str, Float[Array, "B n"]],
    probabilities: Float[Array, "B n"],
    product_weights: Float[Array, "B 2"],
) -> Float[Array, "B 2"]:
    """Returns (w_t, w_v) of a search embedding: weights per keyword are averaged, weighted by keyword probability."""
    if modality_weights(name).per_keyword is None or "product" in by_keyword:
        return product_weights
    total = jnp.sum(probabilities, axis=-1)
    averages = [jnp.sum(by_keyword[modality] * probabilities, axis=-1) / total for modality in ("title", "image")]
    return jnp.stack(averages, axis=-1)


class ModalAdaptation(nn.Module):
    """Fuses title states [B, Lt, Dt] and image states [B, n + P, Dv] to one product embedding [B, E]."""

    config: ModelConfig

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
        # Zeroed before anything reads the states: a missing modality contributes no value and gets no gradient.
        title_states = jnp.where(title_mask[..., None], title_states, jnp.zeros((), title_states.dtype))
        image_states = jnp.where(image_mask[..., None], image_states, jnp.zeros((), image_states.dtype))
        if a.cross_attention:
            block = layer_config(c.title, compute_config(c), layer_norm_eps=c.image.layer_norm_eps)
            title_block = PreNormLayer(block, name="title_attends_image")
            image_block = PreNormLayer(block, name="image_attends_title")
            title_states, image_states = (
                title_block(title_states, train, context=image_states, context_mask=image_mask),
                image_block(image_states, train, context=title_states, context_mask=title_mask),
            )
        title = pool(title_states, title_mask, c.pooling)
        patches = slice(c.image.class_tokens if c.pooling == "mean" else 0, None)  # class tokens are no patches
        image = pool(image_states[:, patches], image_mask[:, patches], c.pooling)
        title_embedding = l2_normalize(_dense(c.embedding_dim, "title_projection")(title))
        image_embedding = l2_normalize(_dense(c.embedding_dim, "image_projection")(image))
        present = jnp.stack([has_title, has_image], axis=-1)
        weights = modality_weights(a.weights).per_product(PooledModalities(title, image, present, a.gate_width))
        fused = weights[:, :1] * title_embedding + weights[:, 1:] * image_embedding
        fused = l2_normalize(fused) if c.l2_normalize else fused
        return FusedProduct(fused, weights, title_embedding, image_embedding)


def _dense(width: int, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=KERNEL_INIT, name=name)  # float32: small, and decides the result
