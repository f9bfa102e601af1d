"""Services over indexes of the tiny catalog, by encoders that are in memory."""

from pathlib import Path

from make_jax.catalog.reader import Catalog
from make_jax.retrieval.embed import Encoder
from make_jax.serving.explanation import Explainer
from make_jax.serving.index.manifest import ModelEntry
from make_jax.serving.index.model import IndexModel
from make_jax.serving.index.reader import open_index
from make_jax.serving.index.writer import IndexSettings, build_index
from make_jax.serving.opened import ModelParts, Opened, OpenOptions, attribute_kinds, open_engine
from make_jax.serving.query_encoder import QueryEncoder
from make_jax.serving.service import IndexService

FUSED = IndexSettings(lexical_weight=0.5)
COLD = OpenOptions(warm_up=False)  # tests compile what they run


def index_model(encoder: Encoder, path: Path | str = "memory") -> IndexModel:
    """An encoder as the model of an index."""
    entry = ModelEntry(str(path), "tiny", "python_file", "best", encoder.digest, encoder.modalities)
    return IndexModel(encoder, entry)


def service_of(path: Path, encoder: Encoder, catalog: Catalog, settings: IndexSettings = FUSED) -> IndexService:
    """A service over a new index of the catalog at `path`."""
    build_index(path, index_model(encoder), catalog, settings)
    index = open_index(path)
    parts = ModelParts(index.manifest.model.digest, encoder, QueryEncoder(encoder), Explainer(encoder))
    return IndexService(path, Opened(index, open_engine(index), parts, attribute_kinds(index)), COLD, print)
