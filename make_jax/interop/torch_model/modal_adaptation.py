"""Modal Adaptation: the twin of `model/modal_adaptation.py`, which has the formulas."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from make_jax.config import ModelConfig
from make_jax.errors import lookup
from make_jax.interop.torch_model.transformer import MASKED, PreNormLayer, l2_normalize, pool, zero_masked
from make_jax.model.layer_config import compute_config, layer_config


class FusedProduct(NamedTuple):
    """The embedding of a product, with the weights and the embeddings it was fused from."""

    vectors: Tensor  # [B, E], or [B, E + n] with keyword dimensions
    weights: Tensor  # [B, 2]: of title and image, sum 1; 0 for a missing modality
    title: Tensor | None = None  # [B, E]; None for models with one embedding per product
    image: Tensor | None = None  # [B, E]


class PooledModalities(NamedTuple):
    """Input of a function that weighs title and image per product."""

    title: Tensor  # [B, Dt]
    image: Tensor  # [B, Dv]
    present: Tensor  # [B, 2]: whether the product has a title, an image


class KeywordLogits(NamedTuple):
    """Input of a function that weighs modalities per keyword: tensors by modality name."""

    logits: Mapping[str, Tensor]  # [B, n]
    present: Mapping[str, Tensor]  # [B]
    prior: Tensor  # [n]


class ModalityWeights(NamedTuple):
    """One way to weigh title and image."""

    # [B, 2] per product, sum 1. The function reads the gate layers of the module.
    per_product: Callable[["ModalAdaptation", PooledModalities], Tensor]
    # Unscaled weights [B, n] by modality, 0 where it is missing. None: those of the product, for each keyword.
    per_keyword: Callable[[KeywordLogits], dict[str, Tensor]] | None = None


def equal_weights(present: Tensor) -> Tensor:
    """Returns (1/2, 1/2), or weight 1 for the only modality of a product [B, 2]."""
    share = present.float()
    return share / share.sum(-1, keepdim=True).clamp(min=1)


def single_modality_weights(modality: Literal["title", "image"], vectors: Tensor) -> Tensor:
    """Returns the weights [B, 2] of a model with one encoder of products: 1 and 0 in every row."""
    weights = {"title": (1.0, 0.0), "image": (0.0, 1.0)}[modality]
    return torch.tensor(weights, device=vectors.device).expand(vectors.shape[0], 2)


def gate_weights(layers: "ModalAdaptation", pooled: PooledModalities) -> Tensor:
    """Returns learned weights [B, 2], a function of both modalities."""
    t, v = pooled.title, pooled.image
    if hasattr(layers, "gate_image"):
        v = layers.gate_image(v)
    hidden = F.gelu(layers.gate_in(torch.cat([t, v, t * v], dim=-1)), approximate="tanh")
    return torch.where(pooled.present, layers.gate_out(hidden), MASKED).softmax(-1)


def keyword_confidence(keywords: KeywordLogits) -> dict[str, Tensor]:
    """Returns how far each modality raises each keyword above its prior [B, n]."""
    return {
        name: (logits - keywords.prior).clamp(min=1).sqrt() * keywords.present[name][:, None]
        for name, logits in keywords.logits.items()
    }


MODALITY_WEIGHTS: dict[str, ModalityWeights] = {
    "per_keyword": ModalityWeights(lambda _, pooled: equal_weights(pooled.present), keyword_confidence),
    "gate": ModalityWeights(gate_weights),
    "mean": ModalityWeights(lambda _, pooled: equal_weights(pooled.present)),
}


def modality_weights(name: str) -> ModalityWeights:
    """Returns the entry `name`; raises InputError, with all names and the nearest one, if there is none."""
    return lookup(MODALITY_WEIGHTS, name, "model.adaptation.weights")


def keyword_weights(name: str, keywords: KeywordLogits, product_weights: Tensor) -> dict[str, Tensor]:
    """Returns weights [B, n] by modality, sum 1, or 0 for a product without any modality."""
    function = modality_weights(name).per_keyword
    if function is not None or "product" in keywords.logits:
        unscaled = (function or keyword_confidence)(keywords)
    else:
        columns = {"title": product_weights[:, :1], "image": product_weights[:, 1:]}
        unscaled = {name: columns[name].expand_as(logits) for name, logits in keywords.logits.items()}
    total = torch.stack(list(unscaled.values())).sum(0)
    return {name: weight / torch.where(total > 0, total, 1.0) for name, weight in unscaled.items()}


def reported_weights(
    name: str, by_keyword: Mapping[str, Tensor], probabilities: Tensor, product_weights: Tensor
) -> Tensor:
    """Returns the weights [B, 2] of a search embedding: averages over keywords, weighted by keyword probability."""
    if modality_weights(name).per_keyword is None or "product" in by_keyword:
        return product_weights
    total = probabilities.sum(-1)
    averages = [(by_keyword[modality] * probabilities).sum(-1) / total for modality in ("title", "image")]
    return torch.stack(averages, dim=-1)


class ModalAdaptation(nn.Module):
    """Fuses title states [B, Lt, Dt] and image states [B, n + P, Dv] to one product embedding [B, E]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        t, v, a = config.title, config.image, config.adaptation
        self.config = config
        if a.cross_attention:
            block = layer_config(t, compute_config(config), layer_norm_eps=v.layer_norm_eps)
            self.title_attends_image = PreNormLayer(t.width, v.width, block)
            self.image_attends_title = PreNormLayer(v.width, t.width, block)
        self.title_projection = nn.Linear(t.width, config.embedding_dim)
        self.image_projection = nn.Linear(v.width, config.embedding_dim)
        if a.weights == "gate":
            if t.width != v.width:
                self.gate_image = nn.Linear(v.width, t.width)
            self.gate_in, self.gate_out = nn.Linear(3 * t.width, a.gate_width), nn.Linear(a.gate_width, 2)

    def forward(
        self, title_states: Tensor, title_mask: Tensor, image_states: Tensor, has_title: Tensor, has_image: Tensor
    ) -> FusedProduct:
        """Returns the fused products; the states of a missing modality are ignored."""
        c = self.config
        title_mask = title_mask & has_title[:, None]
        image_mask = has_image[:, None].expand(image_states.shape[:2])
        title_states, image_states = zero_masked(title_states, title_mask), zero_masked(image_states, image_mask)
        if c.adaptation.cross_attention:
            title_states, image_states = (
                self.title_attends_image(title_states, image_states, image_mask),
                self.image_attends_title(image_states, title_states, title_mask),
            )
        title = pool(title_states, title_mask, c.pooling)
        start = c.image.class_tokens if c.pooling == "mean" else 0  # class tokens are no patches
        image = pool(image_states[:, start:], image_mask[:, start:], c.pooling)
        title_embedding = l2_normalize(self.title_projection(title))
        image_embedding = l2_normalize(self.image_projection(image))
        present = torch.stack([has_title, has_image], dim=-1)
        weights = modality_weights(c.adaptation.weights).per_product(self, PooledModalities(title, image, present))
        fused = weights[:, :1] * title_embedding + weights[:, 1:] * image_embedding
        fused = l2_normalize(fused) if c.l2_normalize else fused
        return FusedProduct(fused, weights, title_embedding, image_embedding)
