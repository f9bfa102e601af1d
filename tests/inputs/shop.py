"""A small catalog, built, with all that makes batches of it."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from make_jax.catalog.build import BuiltCatalog
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.config import DataConfig, InputsConfig
from make_jax.inputs.batch import Batch
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.inputs.train_pipeline import train_batches

INPUTS = InputsConfig(max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=12)


@dataclasses.dataclass
class Shop:
    """A catalog, built, and a tokenizer trained on it."""

    catalog: Catalog
    built: BuiltCatalog
    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    path: Path

    def batches(
        self, steps: int, inputs: InputsConfig = INPUTS, data: DataConfig | None = None, **settings: Any
    ) -> list[Batch]:
        """The first batches of training; by default batch size 8 and seed 0."""
        chosen = {"batch_size": 8, "seed": 0} | settings
        iterator = train_batches(self.built, self.tokenizer, self.keywords, inputs, data or DataConfig(), **chosen)
        try:
            return list(itertools.islice(iterator, steps))
        finally:
            iterator.close()

    def text(self, tokens: np.ndarray) -> str:
        """Returns the text of a row of token ids."""
        text = tokenizers.Tokenizer.from_str(self.tokenizer.definition).decode(tokens.tolist())
        return text if text.isascii() else text.replace(" ", "")
