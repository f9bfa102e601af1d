"""What embedding a catalog during training needs in addition to parameters."""

from dataclasses import dataclass

from jax.sharding import Mesh

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.model.make import Make


@dataclass(frozen=True)
class EvalContext:
    """Shared by validation and the keyword-head fit."""

    catalog: Catalog
    model: Make
    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    mesh: Mesh
    batch_size: int  # products or queries embedded at once
