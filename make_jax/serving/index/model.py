"""The model of an index: opened to build it, and again for updates and queries."""

from pathlib import Path
from typing import Literal, NamedTuple

from make_jax.errors import InputError
from make_jax.evaluation.late_fusion import LateFusion
from make_jax.evaluation.models import BM25, open_model
from make_jax.ray_cluster import check_paths
from make_jax.retrieval.embed import Encoder, PrecomputedVectors
from make_jax.serving.index.manifest import Manifest, ModelEntry


class IndexModel(NamedTuple):
    """A model and what the manifest states of it."""

    encoder: Encoder
    entry: ModelEntry
    catalog: str = ""  # path of the catalog that a run was trained on


def open_index_model(path: str | Path, checkpoint: Literal["best", "last"] = "best") -> IndexModel:
    """The model at a path that `eval.py` takes, to index products with.

    Raises InputError for BM25 alone, for precomputed vectors, and for a model without a digest.
    """
    if str(path) == BM25:
        raise InputError(
            f"{BM25} has no vectors, expected a model; an index of any model searches titles by BM25 too "
            "(lexical_weight)"
        )
    opened = open_model(path, checkpoint)
    model = opened.model
    if isinstance(model, PrecomputedVectors) or model is None:
        raise InputError(
            f"{path}: precomputed vectors cannot encode the queries that people type, expected a run or a model's "
            "folder"
        )
    digest = getattr(model, "digest", None)
    if not isinstance(digest, str):
        raise InputError(
            f"{path}: {type(model).__name__} has no `digest`, which an index needs to recognize its model; add one"
        )
    entry = ModelEntry(
        path=str(Path(path).resolve()),
        name=opened.name,
        kind=opened.kind,
        checkpoint=checkpoint,
        digest=digest,
        modality=model.modalities,
        title_weight=model.title_weight if isinstance(model, LateFusion) else None,
    )
    return IndexModel(model, entry, opened.run_info.catalog if opened.run_info else "")


def model_of_index(manifest: Manifest, path: str | Path = "") -> Encoder:
    """The model that made the vectors of an index; errors as `find_model`."""
    return set_title_weight(find_model(manifest, path).encoder, manifest.model.title_weight)


def find_model(manifest: Manifest, path: str | Path = "") -> IndexModel:
    """The model that made the vectors of an index, from where it was then or from `path`.

    Raises InputError if there is none any more, or another one.
    """
    entry = manifest.model
    if not path and not Path(entry.path).exists():
        raise InputError(
            f"{entry.path}: not found, expected the model that the index was built with; name it with --model"
        )
    model = open_index_model(path or entry.path, entry.checkpoint)
    check_digest(model, manifest)
    return model


def load_encoder(path: Path, checkpoint: Literal["best", "last"], title_weight: float | None) -> Encoder:
    """The model on a node of a Ray cluster, with the weight of titles in its late fusion. Picklable by `partial`."""
    check_paths([path])
    return set_title_weight(open_index_model(path, checkpoint).encoder, title_weight)


def set_title_weight(model: Encoder, title_weight: float | None) -> Encoder:
    """The model, in which titles have this weight if it fuses late."""
    if isinstance(model, LateFusion) and title_weight is not None:
        model.title_weight = title_weight
    return model


def check_digest(model: IndexModel, manifest: Manifest) -> None:
    """Raises InputError if the vectors of an index are of another model."""
    if model.entry.digest != manifest.model.digest:
        raise InputError(
            f"{model.entry.path}: its digest is {model.entry.digest[:12]}, expected {manifest.model.digest[:12]}, that "
            "of the index's vectors; build a new version for this model with search.py index"
        )
