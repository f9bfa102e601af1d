"""Texts and images as the tensors that `MakeModel` reads. Imports no jax."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from make_jax.interop.bundle import ModelBundle, read_bundle


class MakeProcessor:
    """Tokenizer, image processor and keyword tagger in one, in the manner of a transformers processor.

    `queries` returns the arguments of `MakeModel.query_embedding`, `products` those of `product_embedding`.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "MakeProcessor":
        """Returns the processor of an export. InputError when a file is missing or invalid."""
        return cls(read_bundle(Path(folder)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes its files; with those of `MakeModel.save_pretrained` the folder is a complete export."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.bundle.write(Path(folder))

    def queries(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns query_tokens, query_mask [B, Lq] and query_keywords [B, n]."""
        return _tensors(self.bundle.queries(texts))

    def products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> dict[str, Tensor]:
        """Returns title_tokens, title_mask [B, Lt], image [B, H, W, 3], has_title and has_image [B].

        "" is no title; `images` are the bytes of JPEG, PNG or WebP files, None for no image. InputError for an
        unreadable image.
        """
        return _tensors(self.bundle.products(titles, images))


def _tensors(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}
