"""An exported model as evaluation asks it: texts and pictures are prepared here, vectors come from PyTorch, ONNX or
StableHLO (`torch_run.py`, `onnx_run.py`, `stablehlo_run.py`)."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from make_jax.files import folder_digest
from make_jax.inputs.batch import PRODUCT_INPUTS, Batch
from make_jax.inputs.eval_pipeline import product_batches
from make_jax.interop.bundle import ModelBundle
from make_jax.retrieval.embed import Modality
from make_jax.retrieval.vector_index import ProductEmbeddings

_ROWS = 256  # encoded at once

Vectors = Float32[np.ndarray, "n D"]


class Exported:
    """An encoder made of two functions: of a batch of queries, and of a batch of products.

    The functions take arrays by the names of `inputs/batch.py`, query_keywords as bool [B, n] (`ModelBundle.queries`).
    """

    def __init__(
        self,
        folder: Path,
        beside: ModelBundle,
        query: Callable[[Batch], Vectors],
        product: Callable[[Batch], tuple[Vectors, Float32[np.ndarray, "n 2"]]],
    ) -> None:
        self.beside = beside
        self._folder = folder
        self._query, self._product = query, product

    @property
    def modalities(self) -> Modality:
        """Which encoders the model has on the product side."""
        return self.beside.config.model.adaptation.modalities

    @cached_property
    def digest(self) -> str:
        """Of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Query vectors, one a text."""
        starts = range(0, len(texts), _ROWS)
        rows = [self._query(self.beside.queries(texts[start : start + _ROWS])) for start in starts]
        return np.concatenate(rows) if rows else self._none()

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """Product vectors and the weights of title and image; "" is no title, None no image, as files' bytes.

        InputError for an unreadable picture.
        """
        vectors, weights = [self._none()], [np.zeros((0, 2), np.float32)]
        tokenizer, inputs = self.beside.tokenizer, self.beside.config.inputs
        for batch in product_batches(titles, images, tokenizer, inputs, batch_size=_ROWS):
            some = int(batch["weight"].sum())  # the last is filled up
            made = self._product({name: batch[name][:some] for name in PRODUCT_INPUTS})
            vectors.append(made[0])
            weights.append(made[1])
        return ProductEmbeddings(np.concatenate(vectors), np.concatenate(weights))

    def _none(self) -> Vectors:
        return np.zeros((0, self.beside.config.model.embedding_dim + self.beside.keyword_dims), np.float32)
