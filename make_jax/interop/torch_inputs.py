"""Texts and pictures as the tensors that `torch_make.MakeModel` reads. Imports no jax."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from make_jax.interop import bundle
from make_jax.interop.bundle import ModelBundle


class MakeProcessor:
    """What a tokenizer and an image processor are elsewhere, with the keywords of queries.

    `queries` gives the arguments of `MakeModel.encode_query`, `products` those of `encode_product`.
    """

    def __init__(self, beside: ModelBundle) -> None:
        self.beside = beside

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "MakeProcessor":
        """That of an export's folder. InputError when a file is absent or something else."""
        return cls(bundle.read_bundle(Path(folder)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes its files beside those of `MakeModel.save_pretrained`, so that the folder is whole again."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.beside.write(Path(folder))

    def queries(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """query_tokens, query_mask [B, Lq] and query_keywords [B, n]."""
        return _tensors(self.beside.queries(texts))

    def products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> dict[str, Tensor]:
        """title_tokens, title_mask [B, Lt], image [B, H, W, 3], has_title and has_image [B].

        "" is no title; `images` are the bytes of JPEG, PNG or WebP files, None for none. InputError for an unreadable
        picture.
        """
        return _tensors(self.beside.products(titles, images))


def _tensors(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}
