"""MAKE: three encoders, Modal Adaptation and Keyword Enhancement in one Flax module. Read this file first.

    query text  -> query encoder -> mean over tokens -> Keyword Enhancement -> W_q, keyword dimensions --- q
    title text  -> title encoder --.
                                    Modal Adaptation (weights), keyword dimensions --- p    score = q . p
    image       -> image encoder --'

A text encoder for short queries, separate from that of long titles, is [paper]. The settings are in
`config.ModelConfig`, Modal Adaptation in `model/modal_adaptation.py`, Keyword Enhancement in
`model/keyword_enhancement.py` and `model/keyword_evidence.py`, the cross-modal encoder of QIM and re-ranking in
`model/matching.py`.

Letters in the shapes of this package: `B` global batch, `b` local batch, `N` devices, `L` tokens (`Lq` query, `Lt`
title), `P` patches, `D` width of an encoder, `E` width of query and product embeddings, `H` heads, `K` products
searched, `V` keywords, `n` keywords with a dimension in search embeddings.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from make_jax.config import InputsConfig, ModelConfig
from make_jax.inputs.masking import max_masked_tokens, num_masked_patches
from make_jax.model.image import ImageEncoder
from make_jax.model.keyword_enhancement import KeywordEnhancement
from make_jax.model.keyword_evidence import (
    KeywordEvidence,
    ModalityEmbedding,
    concat_keyword_scores,
    query_keyword_vector,
)
from make_jax.model.layer_config import compute_config
from make_jax.model.masked import PatchHead, PredictedPatches, PredictedTokens, TokenHead, word_table
from make_jax.model.matching import MatchingEncoder, MatchTarget
from make_jax.model.modal_adaptation import (
    FusedProduct,
    ModalAdaptation,
    ProductStates,
    modality_weights,
    single_modality_weights,
)
from make_jax.model.single_stream import SingleStream
from make_jax.model.text import TextEncoder
from make_jax.model.transformer import KERNEL_INIT, l2_normalize, pool


class QueryOutputs(NamedTuple):
    """Training outputs of a query."""

    vectors: Float[Array, "B E"]  # q
    states: Float[Array, "B Lq D"]
    logits: Float[Array, "B V"] | None  # keywords of matching products; None without enrichment
    gate: Float[Array, "B"] | None  # share of the expected keyword embedding that is added


class Outputs(NamedTuple):
    """Training outputs of a batch: what the objectives read."""

    query: QueryOutputs
    swap: QueryOutputs | None  # queries with one keyword replaced, if the batch has them
    product: FusedProduct
    states: ProductStates
    log_logit_scale: Float[Array, ""]
    logit_bias: Float[Array, ""]


# Calls a method of Make with the parameters of the current step, in training mode: (method, *its arguments).
Apply = Callable[..., Any]


class Make(nn.Module):
    """The complete model as a Flax Linen module: `init` and `apply` on plain parameter trees.

    `apply(variables, batch)` returns the training outputs. With `method=`: `query_embedding` and `product_embedding`
    return search embeddings, `query_outputs` and `product_outputs` the encoders' outputs, `match` matching logits,
    `predict_query`, `predict_title` and `predict_patches` the predictions of masked modeling.
    """

    config: ModelConfig
    inputs: InputsConfig
    vocab_size: int  # word pieces of the tokenizer
    num_keywords: int = 0  # size of the catalog's keyword vocabulary; 0 turns Keyword Enhancement off
    exclusion_groups: tuple[int, ...] | None = None  # KeywordVocabulary.exclusion_groups; None: no keywords compete

    def setup(self) -> None:
        c, i = self.config, self.inputs
        longest = max(i.max_query_tokens, i.max_title_tokens) if c.shared_text else i.max_query_tokens
        self.query_encoder = TextEncoder(c.query, self.vocab_size, longest, compute_config(c))
        self.query_projection = nn.Dense(c.embedding_dim, kernel_init=KERNEL_INIT)
        if self.has_enrichment:
            self.enhancement = KeywordEnhancement(self.num_keywords)
        if self.keyword_dims:
            groups = tuple(range(self.num_keywords)) if self.exclusion_groups is None else self.exclusion_groups
            self.keyword_evidence = KeywordEvidence(
                self.keyword_dims, groups[: self.keyword_dims], c.adaptation.weights
            )
        self._setup_product_encoders()
        self._setup_heads()
        self.log_logit_scale = self.param(
            "log_logit_scale", nn.initializers.constant(jnp.log(c.initial_logit_scale)), ()
        )
        # Of the sigmoid loss.
        self.logit_bias = self.param("logit_bias", nn.initializers.constant(-c.initial_logit_scale), ())

    def _setup_product_encoders(self) -> None:
        c, i = self.config, self.inputs
        modalities, compute = c.adaptation.modalities, compute_config(c)
        if c.adaptation.single_stream:
            self.product_encoder = SingleStream(c, i, self.vocab_size)
            return
        if modalities != "image" and not c.shared_text:
            self.title_encoder = TextEncoder(c.title, self.vocab_size, i.max_title_tokens, compute)
        if modalities != "title":
            self.image_encoder = ImageEncoder(c.image, i.image_mean, i.image_std, compute)
        if modalities == "both":
            self.adaptation = ModalAdaptation(c)
        else:
            self.product_projection = nn.Dense(c.embedding_dim, kernel_init=KERNEL_INIT)

    def _setup_heads(self) -> None:
        c, i = self.config, self.inputs
        modalities, eps, compute = c.adaptation.modalities, c.image.layer_norm_eps, compute_config(c)
        if c.matching.layers:
            self.matching = MatchingEncoder(c)
        if c.mlm:
            self.query_head = TokenHead(c.query, max_masked_tokens(i, i.max_query_tokens), eps, compute)
            if modalities != "image":
                self.title_head = TokenHead(c.title, max_masked_tokens(i, i.max_title_tokens), eps, compute)
        if c.mpm != "none" and modalities != "title" and not c.adaptation.single_stream:
            max_masked = num_masked_patches(i, self._num_patches)
            self.patch_head = PatchHead(c.mpm, c.image.width, c.image.patch_size, max_masked)

    @property
    def has_enrichment(self) -> bool:
        """Whether queries predict keywords."""
        return self.config.enrichment and self.num_keywords > 0

    @property
    def keyword_dims(self) -> int:
        """n, keyword dimensions of search embeddings: one for each of the most frequent keywords."""
        return min(self.config.keyword_dims, self.num_keywords)

    @property
    def has_title_weight(self) -> bool:
        """Whether search embeddings weigh title and image by product."""
        a = self.config.adaptation
        weights = modality_weights(a.weights)
        per_keyword = weights.per_keyword is not None and self.keyword_dims > 0
        return a.modalities == "both" and not a.single_stream and (weights.learned or per_keyword)

    @property
    def search_dim(self) -> int:
        """E + n, the width of search embeddings."""
        return self.config.embedding_dim + self.keyword_dims

    def query_outputs(self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], train: bool = False) -> QueryOutputs:
        """Returns q = l2(W_q h'), h' = pool(H_q) + g e, with token states and predicted keywords [ours]."""
        states = self.query_encoder(tokens, mask, train)
        pooled = pool(states, mask, self.config.pooling)
        logits = gate = None
        if self.has_enrichment:
            pooled, logits, gate = self.enhancement(pooled)
        return QueryOutputs(self._normalize(self.query_projection(pooled)), states, logits, gate)

    def query_embedding(
        self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], keywords: UInt32[Array, "B words"]
    ) -> Float[Array, "B Z"]:
        """Returns search embeddings [B, E + n] of queries with packed `keywords`, of unit length by default."""
        vectors = self.query_outputs(tokens, mask).vectors
        if not self.keyword_dims:
            return vectors
        keyword_vector = query_keyword_vector(keywords, self.keyword_dims)
        return self._normalize(concat_keyword_scores(vectors, keyword_vector, self.config.keyword_scale))

    def product_outputs(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
        train: bool = False,
    ) -> tuple[FusedProduct, ProductStates]:
        """Returns p, the weights of title and image in it, and the states of tokens and patches."""
        c, modalities = self.config, self.config.adaptation.modalities
        if c.adaptation.single_stream:
            fused, states = self.product_encoder(title_tokens, title_mask, image, has_title, has_image, train)
            return fused, states
        title = self.title_states(title_tokens, title_mask, train) if modalities != "image" else None
        with_class = self.image_encoder(image, train) if modalities != "title" else None  # class tokens, then patches
        states = ProductStates(
            title,
            title_mask & has_title[:, None],
            None if with_class is None else with_class[:, c.image.class_tokens :],
            jnp.broadcast_to(has_image[:, None], (image.shape[0], self._num_patches)),
        )
        if with_class is None:
            assert title is not None
            pooled = pool(title, states.title_mask, c.pooling)
        elif title is None:
            start = c.image.class_tokens if c.pooling == "mean" else 0  # class tokens are no patches
            image_mask = jnp.broadcast_to(has_image[:, None], with_class[:, start:].shape[:2])
            pooled = pool(with_class[:, start:], image_mask, c.pooling)
        else:
            return self.adaptation(title, title_mask, with_class, has_title, has_image, train), states
        vectors = self._normalize(self.product_projection(pooled))
        return FusedProduct(
            vectors, single_modality_weights("title" if with_class is None else "image", vectors.shape[0])
        ), states

    def product_embedding(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
    ) -> FusedProduct:
        """Returns search embeddings [B, E + n], of unit length by default, and the weights of title and image."""
        fused, _ = self.product_outputs(title_tokens, title_mask, image, has_title, has_image)
        if not self.keyword_dims:
            return fused
        keywords = self.keyword_evidence(self._modality_embeddings(fused, has_title, has_image), fused.weights)
        vectors = concat_keyword_scores(fused.vectors, keywords.scores, self.config.keyword_scale)
        return fused._replace(vectors=self._normalize(vectors), weights=keywords.weights)

    def modality_embeddings(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
    ) -> dict[str, ModalityEmbedding]:
        """Returns the inputs of the keyword heads, by head: "title" and "image", or "product" alone."""
        fused, _ = self.product_outputs(title_tokens, title_mask, image, has_title, has_image)
        return self._modality_embeddings(fused, has_title, has_image)

    def match(
        self,
        query_states: Float[Array, "B Lq D"],
        query_mask: Bool[Array, "B Lq"],
        product: ProductStates,
        target: MatchTarget,
        train: bool = False,
    ) -> Float[Array, "B"]:
        """Returns logits that query i matches product i, or its image alone, from states of `*_outputs`."""
        return self.matching(query_states, query_mask, product, target, train)

    def title_states(
        self, tokens: Int[Array, "B Lt"], mask: Bool[Array, "B Lt"], train: bool = False
    ) -> Float[Array, "B Lt D"]:
        """Returns title token states, from the title encoder or the one shared with the query."""
        return self._title_encoder(tokens, mask, train)

    def predict_query(
        self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], labels: Int[Array, "B Lq"], train: bool = False
    ) -> PredictedTokens:
        """Returns predictions of the masked query tokens; `labels` are -1 at unmasked ones."""
        return self.query_head(self.query_encoder(tokens, mask, train), labels, word_table(self.query_encoder), train)

    def predict_title(
        self,
        tokens: Int[Array, "B Lt"],
        mask: Bool[Array, "B Lt"],
        labels: Int[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
        states: ProductStates,
        train: bool = False,
    ) -> PredictedTokens:
        """Returns predictions of the masked title tokens, given the image [blog]; `states`: from `product_outputs`."""
        if self.config.adaptation.single_stream:  # reads title and image together in any case
            _, masked = self.product_encoder(tokens, mask, image, has_title, has_image, train)
            assert masked.title is not None
            return self.title_head(masked.title, labels, word_table(self.product_encoder), train)
        title, encoder = self._title_encoder(tokens, mask, train), self._title_encoder
        return self.title_head(title, labels, word_table(encoder), train, states.image, states.image_mask)

    def predict_patches(
        self, image: UInt8[Array, "B H W 3"], masked: Bool[Array, "B P"], train: bool = False
    ) -> PredictedPatches:
        """Returns predictions of the masked patches; the encoder sees the unmasked ones only."""
        states = self.image_encoder(image, train, masked, self.patch_head.vector)
        return self.patch_head(states[:, self.config.image.class_tokens :], image, masked)

    def __call__(self, batch: Mapping[str, Array], train: bool = False) -> Outputs:
        """Returns the training outputs of a batch (`inputs/batch.py`)."""
        query = self.query_outputs(batch["query_tokens"], batch["query_mask"], train)
        names = ("title_tokens", "title_mask", "image", "has_title", "has_image")
        product, states = self.product_outputs(**{name: batch[name] for name in names}, train=train)
        swap = None
        if "swap_tokens" in batch:
            swap = self.query_outputs(batch["swap_tokens"], batch["swap_mask"], train)
        if self.is_initializing():
            self._initialize_heads(batch, query, product, states)
        return Outputs(query, swap, product, states, self.log_logit_scale, self.logit_bias)

    def _initialize_heads(
        self, batch: Mapping[str, Array], query: QueryOutputs, product: FusedProduct, states: ProductStates
    ) -> None:
        """Calls the modules that `__call__` does not, so that `init` creates their parameters."""
        if self.keyword_dims:
            embeddings = self._modality_embeddings(product, batch["has_title"], batch["has_image"])
            self.keyword_evidence(embeddings, product.weights)
        c, title = self.config, (batch["title_tokens"], batch["title_mask"], batch["title_tokens"])
        if c.mlm:
            self.predict_query(batch["query_tokens"], batch["query_mask"], batch["query_tokens"])
            if states.title is not None:
                self.predict_title(*title, batch["image"], batch["has_title"], batch["has_image"], states)
        if c.matching.layers:
            self.match(query.states, batch["query_mask"], states, "item")
            if states.image is not None:
                self.match(query.states, batch["query_mask"], states, "image")
        if hasattr(self, "patch_head"):
            self.predict_patches(batch["image"], states.image_mask)

    def _modality_embeddings(
        self, fused: FusedProduct, has_title: Bool[Array, "B"], has_image: Bool[Array, "B"]
    ) -> dict[str, ModalityEmbedding]:
        if fused.title is None or fused.image is None:
            return {"product": ModalityEmbedding(fused.vectors, jnp.any(fused.weights > 0, axis=-1))}
        return {
            "title": ModalityEmbedding(fused.title, has_title),
            "image": ModalityEmbedding(fused.image, has_image),
        }

    @property
    def _title_encoder(self) -> TextEncoder:
        return self.query_encoder if self.config.shared_text else self.title_encoder

    @property
    def _num_patches(self) -> int:
        """P."""
        return self.inputs.image_height * self.inputs.image_width // self.config.image.patch_size**2

    def _normalize(self, vectors: Float[Array, "B E"]) -> Float[Array, "B E"]:
        return l2_normalize(vectors) if self.config.l2_normalize else vectors
