"""The complete model as a transformers `PreTrainedModel`: the twin of `model/make.py`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from make_jax.config import Config, from_json
from make_jax.interop.torch_model.image import image_encoder, normalize_pixels
from make_jax.interop.torch_model.keyword_enhancement import KeywordEnhancement
from make_jax.interop.torch_model.keyword_evidence import (
    KeywordEvidence,
    ModalityEmbedding,
    concat_keyword_scores,
    query_keyword_vector,
)
from make_jax.interop.torch_model.modal_adaptation import FusedProduct, ModalAdaptation, single_modality_weights
from make_jax.interop.torch_model.single_stream import SingleStream
from make_jax.interop.torch_model.text import text_encoder, text_states
from make_jax.interop.torch_model.transformer import l2_normalize, pool
from make_jax.model.layer_config import compute_config


class MakeConfig(PreTrainedConfig):
    """config.json of an export (`interop/bundle.py`)."""

    model_type = "make_jax"

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        vocabulary: int = 6,
        keywords: int = 0,
        rivals: Sequence[int] = (),
        evidence: Mapping[str, float] | None = None,
        **more: Any,
    ) -> None:
        """
        Args:
            settings: all settings of the run, as `make_jax.config.to_json` writes them.
            vocabulary: size of the tokenizer's vocabulary.
            keywords: V, size of the keyword vocabulary.
            rivals: the exclusion group of each keyword dimension.
            evidence: the constants eps, rival and length of keyword evidence.
            more: keys of transformers and of the export.
        """
        self.settings = dict(settings or {})
        self.vocabulary, self.keywords, self.rivals = vocabulary, keywords, list(rivals)
        self.evidence = dict(evidence or {})
        super().__init__(**more)

    @property
    def run(self) -> Config:
        """The settings of the run. InputError for an unknown key or a wrong type."""
        return from_json(json.dumps(self.settings), "config.json: settings")


class MakeModel(PreTrainedModel):
    """`query_embedding` and `product_embedding` return search embeddings, `forward` the logits to train on.

    The inner product of a query and a product embedding is the score.
    """

    config_class = MakeConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: MakeConfig) -> None:
        super().__init__(config)
        c, i = config.run.model, config.run.inputs
        self.model_config, self.inputs = c, i
        modalities, compute = c.adaptation.modalities, compute_config(c)
        self.has_two_embeddings = modalities == "both" and not c.adaptation.single_stream
        self.keyword_dims = min(c.keyword_dims, config.keywords)
        longest = max(i.max_query_tokens, i.max_title_tokens) if c.shared_text else i.max_query_tokens
        self.query_encoder = text_encoder(c.query, compute, config.vocabulary, longest)
        self.query_projection = nn.Linear(c.query.width, c.embedding_dim)
        if c.enrichment and config.keywords:
            self.enhancement = KeywordEnhancement(c.query.width, config.keywords)
        if c.adaptation.single_stream:
            self.product_encoder = SingleStream(c, i, config.vocabulary)
        else:
            if modalities != "image" and not c.shared_text:
                self.title_encoder = text_encoder(c.title, compute, config.vocabulary, i.max_title_tokens)
            if modalities != "title":
                self.image_encoder = image_encoder(c.image, compute, i.image_height, i.image_width)
            if self.has_two_embeddings:
                self.adaptation = ModalAdaptation(c)
            else:
                width = c.title.width if modalities == "title" else c.image.width
                self.product_projection = nn.Linear(width, c.embedding_dim)
        if self.keyword_dims:
            heads = ["title", "image"] if self.has_two_embeddings else ["product"]
            groups = config.rivals[: self.keyword_dims]
            self.keyword_evidence = KeywordEvidence(
                c.embedding_dim, heads, groups, c.adaptation.weights, config.evidence
            )
        self.log_logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias = nn.Parameter(torch.zeros(()))  # of the sigmoid loss
        self.post_init()

    def forward(self, query: Mapping[str, Tensor], product: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits [B, B] of the contrastive loss, logit scale * cosine, of every query with every product.

        Keyword dimensions take no part: their heads are fitted after the encoders.
        """
        q = self.query_outputs(query["query_tokens"], query["query_mask"])
        return self.log_logit_scale.exp() * q @ self.product_outputs(**product).vectors.T

    def query_embedding(self, query_tokens: Tensor, query_mask: Tensor, query_keywords: Tensor | None = None) -> Tensor:
        """Returns search embeddings [B, E + n].

        Args:
            query_tokens: [B, Lq] ids.
            query_mask: [B, Lq], True at real tokens.
            query_keywords: [B, n], True at the keywords of the query; unused without keyword dimensions.
        """
        vectors = self.query_outputs(query_tokens, query_mask)
        if not self.keyword_dims:
            return vectors
        assert query_keywords is not None, "this model has keyword dimensions: give query_keywords"
        keyword_vector = query_keyword_vector(query_keywords, vectors.dtype)
        return self._normalize(concat_keyword_scores(vectors, keyword_vector, self.model_config.keyword_scale))

    def product_embedding(
        self, title_tokens: Tensor, title_mask: Tensor, image: Tensor, has_title: Tensor, has_image: Tensor
    ) -> FusedProduct:
        """Returns search embeddings [B, E + n] and the weights of title and image.

        Args:
            title_tokens: [B, Lt] ids.
            title_mask: [B, Lt], True at real tokens.
            image: [B, H, W, 3], RGB from 0 to 255; ignored for products without an image.
            has_title: [B].
            has_image: [B].
        """
        fused = self.product_outputs(title_tokens, title_mask, image, has_title, has_image)
        if not self.keyword_dims:
            return fused
        if fused.title is None or fused.image is None:
            embeddings = {"product": ModalityEmbedding(fused.vectors, (fused.weights > 0).any(-1))}
        else:
            embeddings = {
                "title": ModalityEmbedding(fused.title, has_title),
                "image": ModalityEmbedding(fused.image, has_image),
            }
        keywords = self.keyword_evidence(embeddings, fused.weights)
        vectors = concat_keyword_scores(fused.vectors, keywords.scores, self.model_config.keyword_scale)
        return fused._replace(vectors=self._normalize(vectors), weights=keywords.weights)

    def query_outputs(self, query_tokens: Tensor, query_mask: Tensor) -> Tensor:
        """Returns query embeddings without keyword dimensions [B, E]."""
        states = text_states(self.query_encoder, query_tokens, query_mask)
        pooled = pool(states, query_mask, self.model_config.pooling)
        if hasattr(self, "enhancement"):
            pooled = self.enhancement(pooled)
        return self._normalize(self.query_projection(pooled))

    def product_outputs(
        self, title_tokens: Tensor, title_mask: Tensor, image: Tensor, has_title: Tensor, has_image: Tensor
    ) -> FusedProduct:
        """Returns products without keyword dimensions; arguments as `product_embedding`."""
        c = self.model_config
        pixels = normalize_pixels(image, self.inputs.image_mean, self.inputs.image_std)
        if hasattr(self, "product_encoder"):
            return self.product_encoder(title_tokens, title_mask, pixels, has_title, has_image)
        title = with_class = None
        if c.adaptation.modalities != "image":
            title = text_states(self.query_encoder if c.shared_text else self.title_encoder, title_tokens, title_mask)
        if c.adaptation.modalities != "title":  # class tokens, then patches
            with_class = self.image_encoder(pixel_values=pixels.permute(0, 3, 1, 2)).last_hidden_state
        if with_class is None:
            pooled = pool(title, title_mask & has_title[:, None], c.pooling)
        elif title is None:
            states = with_class[:, c.image.class_tokens if c.pooling == "mean" else 0 :]  # class tokens are no patches
            pooled = pool(states, has_image[:, None].expand(states.shape[:2]), c.pooling)
        else:
            return self.adaptation(title, title_mask, with_class, has_title, has_image)
        vectors = self._normalize(self.product_projection(pooled))
        return FusedProduct(vectors, single_modality_weights("title" if with_class is None else "image", vectors))

    def _normalize(self, vectors: Tensor) -> Tensor:
        return l2_normalize(vectors) if self.model_config.l2_normalize else vectors
