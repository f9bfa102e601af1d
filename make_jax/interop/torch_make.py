"""MAKE in PyTorch: the model of `model/make.py`, module by module, for search and for fine-tuning. Imports no jax.

    query_tokens, query_mask -> query_encoder -> pool -> enhancement -> query_projection, keywords asked for --- q
    title_tokens, title_mask -> title_encoder --.
                                                adaptation, keyword_evidence ----------------------------------- p
    image                    -> image_encoder --'

The encoders are transformers' own: `BertModel` for texts, `ViTModel` for images. All inputs, `query_keywords` too, come
from `torch_inputs.MakeProcessor`. Letters of shapes are those of `model/make.py`; the formulas stand in
`model/modal_adaptation.py`, `model/keyword_enhancement.py` and `model/keyword_evidence.py`. The matching encoder and
the heads of masked modelling are not here: search needs neither.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its name everywhere
from transformers import PreTrainedConfig, PreTrainedModel

from make_jax.config import Config, InputsConfig, ModelConfig, from_json
from make_jax.interop.torch_parts import (
    MASKED,
    CrossBlock,
    Product,
    SingleStream,
    equal_weights,
    image_encoder,
    masked,
    pool,
    read_text,
    text_encoder,
    unit,
)


class MakeConfig(PreTrainedConfig):
    """config.json of an export (`interop/served.py`)."""

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
            settings: every setting of the run, as `make_jax.config.to_json` writes them.
            vocabulary: word pieces.
            keywords: V, of the keyword vocabulary.
            rivals: a number for each keyword that has a dimension; those with the same exclude each other.
            evidence: the constants eps, rival and length of keyword evidence.
            more: what transformers and the export add.
        """
        self.settings = dict(settings or {})
        self.vocabulary, self.keywords, self.rivals = vocabulary, keywords, list(rivals)
        self.evidence = dict(evidence or {})
        super().__init__(**more)

    @property
    def run(self) -> Config:
        """The settings, checked. InputError for an unknown key or a wrong type."""
        return from_json(json.dumps(self.settings), "config.json: settings")


class MakeModel(PreTrainedModel):
    """`encode_query` and `encode_product` give vectors whose inner product is the score; `forward` what to train on."""

    config_class = MakeConfig
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: MakeConfig) -> None:
        super().__init__(config)
        m, i = config.run.model, config.run.inputs
        self.model, self.inputs = m, i
        modalities, stream = m.adaptation.modalities, m.adaptation.single_stream
        self.two = modalities == "both" and not stream  # each modality has a direction of its own
        self.n = min(m.keyword_dims, config.keywords)
        longest = max(i.max_query_tokens, i.max_title_tokens) if m.shared_text else i.max_query_tokens
        self.query_encoder = text_encoder(m.query, config.vocabulary, longest)
        self.query_projection = nn.Linear(m.query.width, m.embedding_dim)
        if m.enrichment and config.keywords:
            self.enhancement = KeywordEnhancement(m.query.width, config.keywords)
        if stream:
            self.product_encoder = SingleStream(m, i, config.vocabulary)
        else:
            if modalities != "image" and not m.shared_text:
                self.title_encoder = text_encoder(m.title, config.vocabulary, i.max_title_tokens)
            if modalities != "title":
                self.image_encoder = image_encoder(m.image, i.image_height, i.image_width)
            if self.two:
                self.adaptation = ModalAdaptation(m)
            else:
                width = m.title.width if modalities == "title" else m.image.width
                self.product_projection = nn.Linear(width, m.embedding_dim)
        if self.n:
            names = ["title", "image"] if self.two else ["product"]
            self.keyword_evidence = KeywordEvidence(m.embedding_dim, self.n, names, config)
        self.log_logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias = nn.Parameter(torch.zeros(()))  # of the sigmoid loss
        self.post_init()

    def forward(self, query: Mapping[str, Tensor], product: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, B] of every query with every product, as the contrast of training reads them: scale * cosine,
        without keyword evidence, whose heads are fitted when the encoders are done."""
        q = self.read_query(query["query_tokens"], query["query_mask"])
        return self.log_logit_scale.exp() * q @ self.read_product(**product).vectors.T

    def encode_query(self, query_tokens: Tensor, query_mask: Tensor, query_keywords: Tensor | None = None) -> Tensor:
        """Query vectors for search [B, E + n].

        Args:
            query_tokens: [B, Lq] ids.
            query_mask: [B, Lq], True at real tokens.
            query_keywords: [B, n], True at the keywords that the text names; not read without keyword evidence.
        """
        vectors = self.read_query(query_tokens, query_mask)
        if not self.n:
            return vectors
        assert query_keywords is not None, "this model has keyword evidence: give query_keywords"
        asked = query_keywords.to(vectors.dtype)
        return self._with_evidence(vectors, asked * asked.sum(-1, keepdim=True).clamp(min=1).rsqrt())

    def encode_product(
        self, title_tokens: Tensor, title_mask: Tensor, image: Tensor, has_title: Tensor, has_image: Tensor
    ) -> Product:
        """Product vectors for search [B, E + n], and how much of each its title and its image tell.

        Args:
            title_tokens: [B, Lt] ids.
            title_mask: [B, Lt], True at real tokens.
            image: [B, H, W, 3], RGB from 0 to 255; what stands there without a picture is not read.
            has_title: [B].
            has_image: [B].
        """
        read = self.read_product(title_tokens, title_mask, image, has_title, has_image)
        if not self.n:
            return read
        if self.two:
            directions, present = {"title": read.title, "image": read.image}, {"title": has_title, "image": has_image}
        else:
            directions, present = {"product": read.vectors}, {"product": (read.weights > 0).any(-1)}
        confident = self.two and self.model.adaptation.weights == "per_keyword"
        fixed = dict(zip(directions, read.weights.T, strict=True)) if self.two and not confident else None
        evidence, shares = self.keyword_evidence(directions, present, fixed)
        weights = torch.stack([shares["title"], shares["image"]], dim=-1) if confident else read.weights
        return read._replace(vectors=self._with_evidence(read.vectors, evidence), weights=weights)

    def read_query(self, query_tokens: Tensor, query_mask: Tensor) -> Tensor:
        """Query vectors without keyword evidence [B, E]."""
        pooled = pool(read_text(self.query_encoder, query_tokens, query_mask), query_mask, self.model.pooling)
        if hasattr(self, "enhancement"):
            pooled = self.enhancement(pooled)
        return self._unit(self.query_projection(pooled))

    def read_product(
        self, title_tokens: Tensor, title_mask: Tensor, image: Tensor, has_title: Tensor, has_image: Tensor
    ) -> Product:
        """Products without keyword evidence; arguments as `encode_product`."""
        m = self.model
        pixels = normalise(image, self.inputs)
        if hasattr(self, "product_encoder"):
            return self.product_encoder(title_tokens, title_mask, pixels, has_title, has_image)
        shown = title_mask & has_title[:, None]
        titles = images = None
        if m.adaptation.modalities != "image":
            titles = read_text(self.query_encoder if m.shared_text else self.title_encoder, title_tokens, title_mask)
        if m.adaptation.modalities != "title":
            images = self.image_encoder(pixel_values=pixels.permute(0, 3, 1, 2)).last_hidden_state
        if self.two:
            return self.adaptation(titles, shown, images, has_title, has_image)
        if images is None:
            states, there = titles, shown
        else:
            states = images[:, m.image.class_tokens if m.pooling == "mean" else 0 :]
            there = has_image[:, None].expand(states.shape[:2])
        weights = torch.tensor([1.0, 0.0] if images is None else [0.0, 1.0], device=there.device)
        vectors = self._unit(self.product_projection(pool(states, there, m.pooling)))
        return Product(vectors, weights.expand(vectors.shape[0], 2))

    def _with_evidence(self, directions: Tensor, evidence: Tensor) -> Tensor:
        return self._unit(torch.cat([unit(directions), self.model.keyword_scale * evidence], dim=-1))

    def _unit(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.model.l2_normalize else vectors


class KeywordEnhancement(nn.Module):
    """Predicts the keywords of products that answer a query, and adds their expected embedding to it."""

    def __init__(self, width: int, keywords: int) -> None:
        super().__init__()
        self.predict = nn.Linear(width, keywords)
        self.embedding = nn.Parameter(torch.zeros(keywords, width))
        self.gate = nn.Linear(2 * width, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled query states [B, D] -> enriched ones."""
        likely = self.predict(pooled).sigmoid()
        expected = likely @ self.embedding / likely.sum(-1, keepdim=True).clamp(min=1)
        return pooled + self.gate(torch.cat([pooled, expected], dim=-1)).sigmoid() * expected


class ModalAdaptation(nn.Module):
    """Joins title states [B, Lt, Dt] and image states [B, n + P, Dv] to one product vector [B, E]."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        t, v, a = model.title, model.image, model.adaptation
        self.model = model
        if a.cross_attention:
            settings = (t.heads, t.mlp_width, t.dropout, v.layer_norm_eps, t.activation)
            self.title_attends_image = CrossBlock(t.width, v.width, *settings)
            self.image_attends_title = CrossBlock(v.width, t.width, *settings)
        self.title_projection = nn.Linear(t.width, model.embedding_dim)
        self.image_projection = nn.Linear(v.width, model.embedding_dim)
        if a.weights == "gate":
            if t.width != v.width:
                self.gate_image = nn.Linear(v.width, t.width)
            self.gate_in, self.gate_out = nn.Linear(3 * t.width, a.gate_width), nn.Linear(a.gate_width, 2)

    def forward(
        self, titles: Tensor, title_mask: Tensor, images: Tensor, has_title: Tensor, has_image: Tensor
    ) -> Product:
        """Products; `title_mask` is False for products without a title."""
        m = self.model
        image_mask = has_image[:, None].expand(images.shape[:2])
        titles, images = masked(titles, title_mask), masked(images, image_mask)
        if m.adaptation.cross_attention:
            titles, images = (
                self.title_attends_image(titles, images, image_mask),
                self.image_attends_title(images, titles, title_mask),
            )
        first = m.image.class_tokens if m.pooling == "mean" else 0  # class tokens are no patches
        t, v = pool(titles, title_mask, m.pooling), pool(images[:, first:], image_mask[:, first:], m.pooling)
        title, image = unit(self.title_projection(t)), unit(self.image_projection(v))
        weights = equal_weights(has_title, has_image)
        if m.adaptation.weights == "gate":
            v = self.gate_image(v) if hasattr(self, "gate_image") else v
            logits = self.gate_out(F.gelu(self.gate_in(torch.cat([t, v, t * v], dim=-1)), approximate="tanh"))
            weights = torch.where(torch.stack([has_title, has_image], dim=-1), logits, MASKED).softmax(-1)
        mixed = weights[:, :1] * title + weights[:, 1:] * image
        return Product(unit(mixed) if m.l2_normalize else mixed, weights, title, image)


class KeywordEvidence(nn.Module):
    """What each modality tells of each keyword, joined."""

    def __init__(self, embedding: int, keywords: int, names: Sequence[str], config: MakeConfig) -> None:
        super().__init__()
        self.constants, self.rivals = config.evidence, config.rivals[:keywords]
        self.known = nn.Parameter(torch.zeros(keywords))
        for name in names:
            parts = {"hidden": nn.Linear(embedding, 2 * embedding), "predict": nn.Linear(2 * embedding, keywords)}
            self.add_module(name, nn.ModuleDict(parts))

    def forward(
        self, directions: Mapping[str, Tensor], present: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Evidence [B, n], and the share [B] of the expected keywords that each direction [B, E] tells.

        `present` [B]: whether the product has it. With `weights` [B] those are taken for every keyword.
        """
        logits, says = {}, {}
        for name, direction in directions.items():
            head = self.get_submodule(name)
            x = head["hidden"](unit(direction) * direction.shape[-1] ** 0.5)
            logits[name] = head["predict"](F.gelu(x, approximate="tanh"))
            if weights is None:
                says[name] = (logits[name] - self.known).clamp(min=1).sqrt() * present[name][:, None]
            else:
                says[name] = weights[name][:, None].expand_as(logits[name])
        total = torch.stack(list(says.values())).sum(0)
        shares = {name: say / torch.where(total > 0, total, 1.0) for name, say in says.items()}
        joined = torch.stack([shares[name] * logits[name] for name in shares]).sum(0)
        likely = self._beside_rivals(torch.where(total > 0, joined, self.known)).sigmoid()
        eps, length = self.constants["eps"], self.constants["length"]
        evidence = (likely / eps).log1p() / float(np.log1p(1 / eps) * length)
        expected = likely.sum(-1)
        return evidence, {name: (share * likely).sum(-1) / expected for name, share in shares.items()}

    def _beside_rivals(self, logits: Tensor) -> Tensor:
        """A product that is red is less likely to be blue too."""
        raised = logits - self.known
        groups = torch.tensor(self.rivals, device=logits.device).expand(raised.shape)
        none = raised.new_full((raised.shape[0], max(self.rivals) + 1), -torch.inf)
        strongest = none.scatter_reduce(1, groups, raised, "amax").gather(1, groups)
        return logits - self.constants["rival"] * (strongest - raised)


def normalise(image: Tensor, inputs: InputsConfig) -> Tensor:
    """Pixels [B, H, W, 3] from 0 to 255 as (value / 255 - mean) / std."""
    mean, std = (torch.tensor(values, device=image.device) for values in (inputs.image_mean, inputs.image_std))
    return (image.float() * (1.0 / 255.0) - mean) / std
