"""MAKE: three encoders and Modal Adaptation. Read this file first.

    query text  -> query encoder -> mean over tokens -> Keyword Enhancement -> W_q, evidence --- q
    title text  -> title encoder --.
                                    Modal Adaptation (cross-attention, weights), evidence --- p      score = q . p
    image       -> image encoder --'

That a short query has its own text encoder, apart from the long title's, is [paper]; the settings are in
`config.ModelConfig`; Modal Adaptation is in `model/modal_adaptation.py`, Keyword Enhancement in
`model/keyword_enhancement.py` and `model/keyword_evidence.py`; what reads query and product together, for QIM and
re-ranking, in `model/matching.py`.

Letters, here and in every shape of this package: `B` global batch, `b` local batch, `N` devices, `L` tokens (`Lq`
query, `Lt` title), `P` patches, `D` width of an encoder, `E` width of query and product vectors, `H` heads,
`K` products searched, `V` keywords, `n` of them with a dimension of the vectors of search.
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
from make_jax.model.masked import PatchHead, PredictedPatches, PredictedTokens, TokenHead, word_table
from make_jax.model.matching import MatchingEncoder, MatchTarget
from make_jax.model.modal_adaptation import FusedProduct, ModalAdaptation, ProductStates
from make_jax.model.single_stream import SingleStream
from make_jax.model.text import TextEncoder
from make_jax.model.transformer import KERNEL_INIT, l2_normalize, pool


class QueryOutputs(NamedTuple):
    """A query, and what else reading it gave."""

    vectors: Float[Array, "B E"]
    states: Float[Array, "B Lq D"]
    logits: Float[Array, "B V"] | None  # of the keywords of products that answer it; None without enrichment
    gate: Float[Array, "B"] | None  # how much of the expected keyword embedding it took


class Make(nn.Module):
    """The whole model as a Flax Linen module: `init` and `apply` on plain parameter trees.

    `apply(variables, batch)` returns the training outputs. With `method=`: `query_embedding` and `product_embedding`
    return search embeddings, `query_outputs` and `product_outputs` the encoders' outputs, `match` matching logits,
    `predict_query`, `predict_title` and `predict_patches` the predictions of masked modeling.
    """

    config: ModelConfig
    inputs: InputsConfig
    vocabulary: int  # word pieces of the tokenizer
    keywords: int = 0  # keywords of the catalog's vocabulary; enrichment needs some
    exclusion_groups: tuple[int, ...] | None = (
        None  # KeywordVocabulary.exclusion_groups; None: no keyword excludes another
    )

    def setup(self) -> None:
        c, i = self.config, self.inputs
        dtype = jnp.dtype(c.dtype)
        modalities = c.adaptation.modalities
        longest = max(i.max_query_tokens, i.max_title_tokens) if c.shared_text else i.max_query_tokens
        self.query_encoder = TextEncoder(c.query, self.vocabulary, longest, dtype, c.remat)
        self.query_projection = nn.Dense(c.embedding_dim, kernel_init=KERNEL_INIT)
        if self.enriched:
            self.enhancement = KeywordEnhancement(self.keywords)
        if self.evidence:
            exclusion_groups = tuple(range(self.keywords)) if self.exclusion_groups is None else self.exclusion_groups
            self.keyword_evidence = KeywordEvidence(self.evidence, exclusion_groups[: self.evidence])
        if c.adaptation.single_stream:
            self.product_encoder = SingleStream(c, i, self.vocabulary)
        else:
            if modalities != "image" and not c.shared_text:
                self.title_encoder = TextEncoder(c.title, self.vocabulary, i.max_title_tokens, dtype, c.remat)
            if modalities != "title":
                self.image_encoder = ImageEncoder(c.image, i.image_mean, i.image_std, dtype, c.remat)
            if modalities == "both":
                self.adaptation = ModalAdaptation(c, dtype)
            else:
                self.product_projection = nn.Dense(c.embedding_dim, kernel_init=KERNEL_INIT)
        if c.matching.layers:
            self.matching = MatchingEncoder(c, dtype)
        if c.mlm:
            self.query_head = TokenHead(
                c.query, max_masked_tokens(i, i.max_query_tokens), c.image.layer_norm_eps, dtype
            )
            if modalities != "image":
                self.title_head = TokenHead(
                    c.title, max_masked_tokens(i, i.max_title_tokens), c.image.layer_norm_eps, dtype
                )
        if c.mpm != "none" and modalities != "title" and not c.adaptation.single_stream:
            hidden = num_masked_patches(i, self._patches)
            self.patch_head = PatchHead(c.mpm, c.image.width, c.image.patch_size, hidden)
        self.log_logit_scale = self.param(
            "log_logit_scale", nn.initializers.constant(jnp.log(c.initial_logit_scale)), ()
        )
        self.logit_bias = self.param(
            "logit_bias", nn.initializers.constant(-c.initial_logit_scale), ()
        )  # of the sigmoid loss

    @property
    def enriched(self) -> bool:
        """Whether queries predict keywords: asked for, and there are some."""
        return self.config.enrichment and self.keywords > 0

    @property
    def evidence(self) -> int:
        """n, dimensions of the vectors of search that stand for keywords, the most frequent ones."""
        return min(self.config.keyword_dims, self.keywords)

    @property
    def width(self) -> int:
        """E + n, dimensions of the vectors of search."""
        return self.config.embedding_dim + self.evidence

    def query_outputs(self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], train: bool = False) -> QueryOutputs:
        """q = l2(W_q h'), h' = pool(H_q) + g e: query vectors, token states and predicted keywords [ours]."""
        states = self.query_encoder(tokens, mask, train)
        pooled = pool(states, mask, self.config.pooling)
        logits = gate = None
        if self.enriched:
            pooled, logits, gate = self.enhancement(pooled)
        return QueryOutputs(self._normalized(self.query_projection(pooled)), states, logits, gate)

    def query_embedding(
        self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], keywords: UInt32[Array, "B words"]
    ) -> Float[Array, "B width"]:
        """Search embeddings of queries, of unit length by default; `keywords`: those of the query, packed."""
        vectors = self.query_outputs(tokens, mask).vectors
        if not self.evidence:
            return vectors
        return self._normalized(
            concat_keyword_scores(vectors, query_keyword_vector(keywords, self.evidence), self.config.keyword_scale)
        )

    def product_outputs(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
        train: bool = False,
    ) -> tuple[FusedProduct, ProductStates]:
        """Product vectors with the weight of title and image in each, and the states of tokens and patches."""
        modalities = self.config.adaptation.modalities
        if self.config.adaptation.single_stream:
            adapted, states = self.product_encoder(title_tokens, title_mask, image, has_title, has_image, train)
            return adapted, states
        title = image_states = None
        if modalities != "image":
            title = self.title_states(title_tokens, title_mask, train)
        if modalities != "title":
            image_states = self.image_encoder(image, train)
        states = ProductStates(
            title,
            title_mask & has_title[:, None],
            None if image_states is None else image_states[:, self.config.image.class_tokens :],
            jnp.broadcast_to(has_image[:, None], (image.shape[0], self._patches)),
        )
        if image_states is None:
            assert title is not None
            return self._one_modality(title, states.title_mask, (1.0, 0.0)), states
        if title is None:
            # class tokens are no patches
            start = self.config.image.class_tokens if self.config.pooling == "mean" else 0
            there = jnp.broadcast_to(has_image[:, None], image_states[:, start:].shape[:2])
            return self._one_modality(image_states[:, start:], there, (0.0, 1.0)), states
        return self.adaptation(title, title_mask, image_states, has_title, has_image, train), states

    def product_embedding(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
    ) -> FusedProduct:
        """Search embeddings of products, of unit length by default, and the weights of title and image."""
        adapted, _ = self.product_outputs(title_tokens, title_mask, image, has_title, has_image)
        if not self.evidence:
            return adapted
        directions = self._modality_embeddings(adapted, has_title, has_image)
        confident = self.config.adaptation.weights == "per_keyword" and "product" not in directions
        weights = adapted.weights
        if confident:
            shown = self.keyword_evidence(directions)
            weights = jnp.stack([shown.weights["title"], shown.weights["image"]], axis=-1)
        elif "product" in directions:
            shown = self.keyword_evidence(directions)
        else:
            shown = self.keyword_evidence(directions, {"title": weights[:, 0], "image": weights[:, 1]})
        vectors = self._normalized(concat_keyword_scores(adapted.vectors, shown.evidence, self.config.keyword_scale))
        return adapted._replace(vectors=vectors, weights=weights)

    def modality_embeddings(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
    ) -> dict[str, ModalityEmbedding]:
        """What keyword evidence reads, by name of the modality."""
        adapted, _ = self.product_outputs(title_tokens, title_mask, image, has_title, has_image)
        return self._modality_embeddings(adapted, has_title, has_image)

    def match(
        self,
        query_states: Float[Array, "B Lq D"],
        query_mask: Bool[Array, "B Lq"],
        product: ProductStates,
        what: MatchTarget,
        train: bool = False,
    ) -> Float[Array, "B"]:
        """Logits that query i matches product i, or its image alone, from the states that `read_*` gave of both."""
        return self.matching(query_states, query_mask, product, what, train)

    def title_states(
        self, tokens: Int[Array, "B Lt"], mask: Bool[Array, "B Lt"], train: bool = False
    ) -> Float[Array, "B Lt D"]:
        """Title token states, by the title's encoder or by the one that it shares with the query."""
        return self._title_encoder(tokens, mask, train)

    def predict_query(
        self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], labels: Int[Array, "B Lq"], train: bool = False
    ) -> PredictedTokens:
        """What stands at the hidden tokens of queries; `labels` are -1 where none is hidden."""
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
        """Logits of the masked title tokens, given the image [blog]; `states`: those of `product_outputs`."""
        if self.config.adaptation.single_stream:  # reads titles and pictures together in any case
            _, masked = self.product_encoder(tokens, mask, image, has_title, has_image, train)
            assert masked.title is not None
            return self.title_head(masked.title, labels, word_table(self.product_encoder), train)
        title, encoder = self._title_encoder(tokens, mask, train), self._title_encoder
        return self.title_head(title, labels, word_table(encoder), train, states.image, states.image_mask)

    def predict_patches(
        self, image: UInt8[Array, "B H W 3"], hidden: Bool[Array, "B P"], train: bool = False
    ) -> PredictedPatches:
        """What is in the hidden patches of pictures, of which the encoder sees the others alone."""
        states = self.image_encoder(image, train, hidden, self.patch_head.vector)
        return self.patch_head(states[:, self.config.image.class_tokens :], image, hidden)

    def __call__(self, batch: Mapping[str, Array], train: bool = False) -> "Outputs":
        """What the objectives read, of a batch as `inputs/batch.py` describes it."""
        query = self.query_outputs(batch["query_tokens"], batch["query_mask"], train)
        product, states = self.product_outputs(
            batch["title_tokens"],
            batch["title_mask"],
            batch["image"],
            batch["has_title"],
            batch["has_image"],
            train,
        )
        swap = None
        if "swap_tokens" in batch:
            swap = self.query_outputs(batch["swap_tokens"], batch["swap_mask"], train)
        if self.is_initializing():
            self._initialize_heads(batch, query, product, states)
        return Outputs(query, swap, product, states, self.log_logit_scale, self.logit_bias)

    def _initialize_heads(
        self, batch: Mapping[str, Array], query: QueryOutputs, product: FusedProduct, states: ProductStates
    ) -> None:
        """Calls what only search and some objectives call, so that it gets parameters."""
        if self.evidence:
            self.keyword_evidence(self._modality_embeddings(product, batch["has_title"], batch["has_image"]))
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
        self, adapted: FusedProduct, has_title: Bool[Array, "B"], has_image: Bool[Array, "B"]
    ) -> dict[str, ModalityEmbedding]:
        if adapted.title is None or adapted.image is None:
            return {"product": ModalityEmbedding(adapted.vectors, jnp.any(adapted.weights > 0, axis=-1))}
        return {
            "title": ModalityEmbedding(adapted.title, has_title),
            "image": ModalityEmbedding(adapted.image, has_image),
        }

    @property
    def _title_encoder(self) -> TextEncoder:
        return self.query_encoder if self.config.shared_text else self.title_encoder

    @property
    def _patches(self) -> int:
        """P, patches of a picture."""
        return self.inputs.image_height * self.inputs.image_width // self.config.image.patch_size**2

    def _one_modality(
        self, states: Float[Array, "B L D"], mask: Bool[Array, "B L"], weights: tuple[float, float]
    ) -> FusedProduct:
        vectors = self._normalized(self.product_projection(pool(states, mask, self.config.pooling)))
        return FusedProduct(vectors, jnp.broadcast_to(jnp.asarray(weights, jnp.float32), (vectors.shape[0], 2)))

    def _normalized(self, vectors: Float[Array, "B E"]) -> Float[Array, "B E"]:
        return l2_normalize(vectors) if self.config.l2_normalize else vectors


# Calls a method of Make, given with its arguments, with the parameters of a step in training mode.
Apply = Callable[..., Any]


class Outputs(NamedTuple):
    """What a training batch becomes: all that the objectives read."""

    query: QueryOutputs
    swap: QueryOutputs | None  # the queries with one keyword replaced, where the batch has them
    product: FusedProduct
    states: ProductStates
    log_logit_scale: Float[Array, ""]
    logit_bias: Float[Array, ""]
