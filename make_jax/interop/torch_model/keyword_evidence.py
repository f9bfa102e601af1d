"""Keyword evidence: the twin of `model/keyword_evidence.py`, which has the formulas."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from make_jax.interop.torch_model.modal_adaptation import KeywordLogits, keyword_weights, reported_weights
from make_jax.interop.torch_model.transformer import l2_normalize


class ModalityEmbedding(NamedTuple):
    """The input of a keyword head."""

    vectors: Tensor  # [B, E]
    present: Tensor  # [B]: whether the product has the modality


class KeywordScores(NamedTuple):
    """The keyword dimensions of products, before they are scaled."""

    scores: Tensor  # [B, n]
    weights: Tensor  # [B, 2]: of title and image, averaged over keywords; sum 1


class KeywordHead(nn.Module):
    """Predicts one logit per keyword from an embedding."""

    def __init__(self, width: int, num_keywords: int) -> None:
        super().__init__()
        self.hidden, self.predict = nn.Linear(width, 2 * width), nn.Linear(2 * width, num_keywords)

    def forward(self, embedding: Tensor) -> Tensor:
        """[B, E] -> [B, n]."""
        x = self.hidden(l2_normalize(embedding) * embedding.shape[-1] ** 0.5)
        return self.predict(F.gelu(x, approximate="tanh"))


class KeywordEvidence(nn.Module):
    """Scores keywords with a head per modality, or one head where a product has a single embedding."""

    def __init__(
        self,
        width: int,
        modalities: Sequence[str],
        exclusion_groups: Sequence[int],
        weights: str,
        constants: Mapping[str, float],
    ) -> None:
        """
        Args:
            width: E, of product embeddings.
            modalities: "title" and "image", or "product" alone; one head each.
            exclusion_groups: a number per keyword dimension; keywords with the same number compete.
            weights: a name of MODALITY_WEIGHTS.
            constants: eps, rival (EXCLUSION) and length (SCORE_NORM) of the JAX module.
        """
        super().__init__()
        self.exclusion_groups, self.weights = list(exclusion_groups), weights
        self.eps, self.exclusion, self.score_norm = (constants[name] for name in ("eps", "rival", "length"))
        num_keywords = len(self.exclusion_groups)
        self.known = nn.Parameter(torch.zeros(num_keywords))  # prior logits
        for name in modalities:
            self.add_module(name, KeywordHead(width, num_keywords))

    def forward(self, embeddings: Mapping[str, ModalityEmbedding], product_weights: Tensor) -> KeywordScores:
        """Returns scores of products from `embeddings`, by modality, and `product_weights` [B, 2]."""
        logits = {name: self.get_submodule(name)(e.vectors) for name, e in embeddings.items()}
        present = {name: e.present for name, e in embeddings.items()}
        weights = keyword_weights(self.weights, KeywordLogits(logits, present, self.known), product_weights)
        fused = torch.stack([weights[name] * logits[name] for name in weights]).sum(0)
        has_any = torch.stack(list(weights.values())).sum(0) > 0
        probabilities = self._exclude(torch.where(has_any, fused, self.known)).sigmoid()
        scores = (probabilities / self.eps).log1p() / float(np.log1p(1 / self.eps) * self.score_norm)
        return KeywordScores(scores, reported_weights(self.weights, weights, probabilities, product_weights))

    def _exclude(self, logits: Tensor) -> Tensor:
        """Each logit lowered by its distance to the strongest competing keyword."""
        raised = logits - self.known
        groups = torch.tensor(self.exclusion_groups, device=logits.device).expand(raised.shape)
        lowest = raised.new_full((raised.shape[0], max(self.exclusion_groups) + 1), -torch.inf)
        strongest = lowest.scatter_reduce(1, groups, raised, "amax").gather(1, groups)
        return logits - self.exclusion * (strongest - raised)


def query_keyword_vector(keywords: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns equal entries for the keywords of a query, 0 for all others, of length 1 at most; `keywords` [B, n]."""
    sets = keywords.to(dtype)
    return sets * sets.sum(-1, keepdim=True).clamp(min=1).rsqrt()


def concat_keyword_scores(embedding: Tensor, scores: Tensor, scale: float) -> Tensor:
    """Returns [l2(embedding) ; scale * scores] [B, E + n], not of unit length."""
    return torch.cat([l2_normalize(embedding), scale * scores], dim=-1)
