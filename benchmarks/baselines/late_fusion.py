"""The title and image encoders of a run as two towers with late fusion: a model for eval.py.

MAKE_JAX_RUN=RUN python eval.py benchmarks/baselines/late_fusion.py --data.catalog PATH
"""

import os
from collections.abc import Sequence

import numpy as np

from make_jax.errors import InputError
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.retrieval.retriever import Retriever


class RunTowers:
    """Embeddings of queries, titles and images by a run."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns one vector per query."""
        return self._retriever.encode_queries(texts)

    def encode_titles(self, titles: Sequence[str]) -> np.ndarray:
        """Returns one vector per title."""
        return self._retriever.encode_products(titles, [None] * len(titles)).vectors

    def encode_images(self, images: Sequence[bytes]) -> np.ndarray:
        """Returns one vector per image."""
        return self._retriever.encode_products([""] * len(images), images).vectors


if "MAKE_JAX_RUN" not in os.environ:
    raise InputError("MAKE_JAX_RUN is not set, expected the folder of a run")
encoder = LateFusion(RunTowers(Retriever.load(os.environ["MAKE_JAX_RUN"])))
