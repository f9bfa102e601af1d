"""Keyword Enhancement of queries: the twin of `model/keyword_enhancement.py`."""

import torch
from torch import Tensor, nn


class KeywordEnhancement(nn.Module):
    """Predicts the keywords of matching products and adds their expected embedding to the query."""

    def __init__(self, width: int, num_keywords: int) -> None:
        super().__init__()
        self.predict = nn.Linear(width, num_keywords)
        self.embedding = nn.Parameter(torch.zeros(num_keywords, width))
        self.gate = nn.Linear(2 * width, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """Returns the enriched state of pooled query states [B, D]."""
        probabilities = self.predict(pooled).sigmoid()
        expected = probabilities @ self.embedding / probabilities.sum(-1, keepdim=True).clamp(min=1)
        return pooled + self.gate(torch.cat([pooled, expected], dim=-1)).sigmoid() * expected
