"""What a search needs of an index: the model that encodes queries, and the engine over the products."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from make_jax.catalog.attributes import value_kind
from make_jax.evaluation.bm25_terms import BM25Parameters
from make_jax.retrieval.embed import Encoder
from make_jax.serving.engines import Engine, EngineName, Parts
from make_jax.serving.engines.flat import FlatEngine
from make_jax.serving.engines.qdrant import QdrantSettings
from make_jax.serving.explanation import Explainer
from make_jax.serving.index.manifest import content_digest
from make_jax.serving.index.model import model_of_index
from make_jax.serving.index.reader import OpenIndex
from make_jax.serving.query_encoder import BATCH_SIZES, QueryEncoder
from make_jax.serving.spelling import Spelling
from make_jax.serving.suggestions import Suggestions, sample

Log = Callable[[str], None]
_ENGINE_ROWS = 4096  # products that an engine is sent at a time
_MAX_CHANGED = 0.05  # share of products that updates may change before suggestions are made again
_SAMPLED_PRODUCTS = 5000  # whose attributes tell the kinds of values


@dataclass(frozen=True)
class OpenOptions:
    """How an index is opened; the defaults are what it names itself."""

    engine: EngineName | None = None
    version: str = ""  # "": the current one, with every switch to another
    model: str = ""  # where the model is, if it was moved
    onnx: str = ""  # a folder of `convert.py export --to onnx` of the model, used if it encodes queries faster
    warm_up: bool = True  # compile all programs before the first request; without it the first ones wait


DEFAULTS = OpenOptions()


@dataclass(frozen=True, eq=False)
class ModelParts:
    """The model of an index, ready to encode queries."""

    digest: str
    model: Encoder
    encoder: QueryEncoder
    explainer: Explainer

    def warm_up(self) -> None:
        """Compiles what queries run."""
        self.encoder.warm_up()
        self.explainer.warm_up(BATCH_SIZES)


@dataclass(frozen=True, eq=False)
class Opened:
    """One state of an index with its model and engine. Immutable but for the engine, which updates change."""

    index: OpenIndex
    engine: Engine
    parts: ModelParts
    attributes: dict[str, str]  # name -> kind of its values
    kept: "KeptSuggestions | None" = None  # of an earlier state with nearly the same products

    @functools.cached_property
    def suggestions(self) -> "KeptSuggestions":
        """Made on first use, which takes seconds for a large index."""
        return self.kept or KeptSuggestions(
            Suggestions(sample(self.index.products, np.flatnonzero(~self.index.deleted).astype(np.int32))),
            len(self.index.updates),
        )

    @functools.cached_property
    def spelling(self) -> Spelling:
        """Corrects queries. The suggestions are made when a query has an unknown word."""
        return Spelling(self.parts.model, lambda: self.suggestions.suggestions.products_with())

    @property
    def has_suggestions(self) -> bool:
        """Whether they have been made."""
        return "suggestions" in vars(self)

    def suggestions_for(self, index: OpenIndex) -> "KeptSuggestions | None":
        """The suggestions for a later state of the index with few other products; None: they must be made again."""
        if not self.has_suggestions or not index.continues(self.index):
            return None
        changes = index.changes(self.suggestions.updates)
        changed = len(changes.replaced) + len(changes.deleted)
        return self.suggestions if changed <= _MAX_CHANGED * index.rows else None


class KeptSuggestions(NamedTuple):
    """Suggestions, and after how many updates of the version they were made."""

    suggestions: Suggestions
    updates: int


def open_parts(index: OpenIndex, options: OpenOptions, log: Log) -> ModelParts:
    """The model of an index. Raises InputError as `model_of_index` and `QueryEncoder`."""
    model = model_of_index(index.manifest, options.model)
    encoder = QueryEncoder(model, options.onnx, log)
    return ModelParts(index.manifest.model.digest, model, encoder, Explainer(model))


def open_engine(index: OpenIndex, options: OpenOptions = DEFAULTS) -> Engine:
    """The engine over the products of an index.

    `edge` has its folder in that of the version, `cluster` a collection for each version on the server that
    MAKE_JAX_QDRANT_URL names, and an alias for the current one; both are written from the index if they hold other
    products. Raises InputError for a folder that another process has open, or a server that does not answer.
    """
    manifest = index.manifest
    bm25 = BM25Parameters(manifest.bm25.k1, manifest.bm25.b)
    name = options.engine or manifest.engine.name
    if name == "flat":
        return FlatEngine(index.engine_rows(max(index.rows, 1)), bm25)
    settings = QdrantSettings(manifest.width, bm25, state=engine_state(index))
    parts = engine_parts(index)
    if name == "edge":
        return _open_edge(index, settings, parts)
    from make_jax.serving.engines.cluster import connect_cluster

    return connect_cluster(index.path.resolve().name, index.version, settings, parts, is_current=not options.version)


def build_engine(index: OpenIndex) -> None:
    """Builds the folder of `edge`, if the index names that engine and it is missing, so that no server has to."""
    from make_jax.serving.engines.edge import stored_state

    if index.manifest.engine.name == "edge" and stored_state(index.folder / "edge") != engine_state(index):
        open_engine(index).close()


def _open_edge(index: OpenIndex, settings: QdrantSettings, parts: Parts) -> Engine:
    """A folder that lacks the latest updates of the index gets these alone."""
    from make_jax.serving.engines.edge import EdgeEngine, stored_state  # Qdrant Edge takes 35 MB, which flat spares

    folder = index.folder / "edge"
    earlier = {engine_state(index, updates): updates for updates in range(len(index.updates))}
    stored = stored_state(folder)
    if stored not in earlier:
        return EdgeEngine(folder, settings, parts)
    engine = EdgeEngine(folder, replace(settings, state=stored, repeats_update=True), parts)
    changes = index.changes(earlier[stored])
    count = max(len(engine.matching(None)), 1 + int(changes.replaced.max(initial=-1)))
    deleted = changes.deleted[changes.deleted < count]  # others were added and deleted since
    engine.update(index.rows_at(changes.replaced), deleted, settings.state, parts)
    return engine


def engine_parts(index: OpenIndex) -> Parts:
    """Reads the products of an index for an engine."""
    return functools.partial(index.engine_rows, _ENGINE_ROWS)


def engine_state(index: OpenIndex, updates: int | None = None) -> str:
    """Names the products of an index, for engines that keep them; `updates`: with so many, None: all."""
    return content_digest(index.manifest, updates)


def attribute_kinds(index: OpenIndex) -> dict[str, str]:
    """The attributes of the products and the most frequent kind of their values, of a sample of products."""
    live = np.flatnonzero(~index.deleted)
    kinds: dict[str, Counter[str]] = {name: Counter() for name in index.manifest.catalog.attributes}
    for product in index.products.select(live[:: max(1, len(live) // _SAMPLED_PRODUCTS)]):
        for name, value in product.attributes.items():
            kinds.setdefault(name, Counter())[value_kind(value)] += 1
    return {name: counts.most_common(1)[0][0] if counts else "text" for name, counts in kinds.items()}
