"""An exported model as an `Encoder`: preprocessing by make_jax, vectors by PyTorch, ONNX or StableHLO (`torch_run.py`,
`onnx_run.py`, `stablehlo_run.py`)."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from make_jax.errors import check_lists
from make_jax.files import folder_digest
from make_jax.inputs.batch import PRODUCT_INPUTS, Batch
from make_jax.inputs.eval_pipeline import product_batches
from make_jax.interop.bundle import ModelBundle
from make_jax.retrieval.embed import Modality
from make_jax.retrieval.vector_index import ProductEmbeddings
from make_jax.runs.training_data import TrainingData

_BATCH_SIZE = 256

Vectors = Float32[np.ndarray, "n D"]


class Exported:
    """An encoder of two functions, for a batch of queries and for a batch of products.

    Both take arrays by the names of `inputs/batch.py`, query_keywords as bool [B, n] (`ModelBundle.queries`).
    """

    def __init__(
        self,
        folder: Path,
        bundle: ModelBundle,
        query: Callable[[Batch], Vectors],
        product: Callable[[Batch], tuple[Vectors, Float32[np.ndarray, "n 2"]]],
    ) -> None:
        self.bundle = bundle
        self._folder = folder
        self._query, self._product = query, product
        self.training_data = TrainingData(folder, bundle.origin.get("catalog_digest"))

    @property
    def modalities(self) -> Modality:
        """What the product encoder reads."""
        return self.bundle.config.model.adaptation.modalities

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the folder's files."""
        return folder_digest(self._folder)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """One query vector per text."""
        check_lists(texts=texts)
        starts = range(0, len(texts), _BATCH_SIZE)
        rows = [self._query(self.bundle.queries(texts[start : start + _BATCH_SIZE])) for start in starts]
        return np.concatenate(rows) if rows else self._empty()

    def encode_products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> ProductEmbeddings:
        """Product vectors and the weights of title and image; "" is a missing title, None a missing image.

        Raises InputError for an unreadable image.
        """
        check_lists(titles=titles, images=images)
        vectors, weights = [self._empty()], [np.zeros((0, 2), np.float32)]
        tokenizer, inputs = self.bundle.tokenizer, self.bundle.config.inputs
        for batch in product_batches(titles, images, tokenizer, inputs, batch_size=_BATCH_SIZE):
            count = int(batch["weight"].sum())  # the last batch is padded
            batch_vectors, batch_weights = self._product({name: batch[name][:count] for name in PRODUCT_INPUTS})
            vectors.append(batch_vectors)
            weights.append(batch_weights)
        return ProductEmbeddings(np.concatenate(vectors), np.concatenate(weights))

    def _empty(self) -> Vectors:
        return np.zeros((0, self.bundle.config.model.embedding_dim + self.bundle.keyword_dims), np.float32)
