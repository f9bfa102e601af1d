"""The models that eval.py opens by path or name: `open_model(name)`. docs/models.md describes each of them.

An adapter is one module with two functions and one entry in `ADAPTERS`:

    matches(path) -> bool           whether the path is a model of this adapter; reads names and JSON, no weights
    load(path) -> EmbeddingModel    the model; raises a one-line InputError for what it cannot use

An `EmbeddingModel` (`retrieval/embed.py`) is an `Encoder` with `modalities`, `encode_queries` and `encode_products`, or
`PrecomputedVectors`. A `digest` lets `--embeddings` keep its vectors on disk. docs/extending.md has an example.
"""

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from make_jax.errors import InputError
from make_jax.evaluation.models import (
    clip,
    onnx_run,
    open_clip_folder,
    python_file,
    run,
    sentences,
    stablehlo_run,
    torch_run,
)
from make_jax.evaluation.models.run import RunInfo
from make_jax.retrieval.embed import EmbeddingModel
from make_jax.retrieval.vectors import precomputed

BM25 = "bm25"  # the name of BM25 alone, which needs no folder


class Adapter(Protocol):
    """A module that opens one kind of model."""

    def matches(self, path: Path) -> bool:
        """Whether the path is a model of this adapter."""
        ...

    def load(self, path: Path) -> EmbeddingModel:
        """The model at the path."""
        ...


# Name in reports -> module. The first one that matches a path opens it.
ADAPTERS: dict[str, Adapter] = {
    "python_file": python_file,
    "run": run,
    "stablehlo_run": stablehlo_run,
    "onnx_run": onnx_run,
    "torch_run": torch_run,
    "precomputed": precomputed,
    "sentences": sentences,
    "open_clip_folder": open_clip_folder,
    "clip": clip,
}


class OpenedModel(NamedTuple):
    """A model and its names in reports."""

    name: str
    kind: str  # a key of ADAPTERS, or "bm25"
    model: EmbeddingModel | None  # None: BM25 alone
    run_info: RunInfo | None = None  # of a run of train.py


def adapter_name(path: Path) -> str:
    """The first key of `ADAPTERS` that matches. Raises InputError when there is none, or no path."""
    if not path.exists():
        raise InputError(f"{path}: not found, expected a run, another model's folder, a .py file, or {BM25}")
    for name, adapter in ADAPTERS.items():
        if adapter.matches(path):
            return name
    raise InputError(f"{path}: neither a run nor a model of a kind that docs/models.md lists; name such a folder")


def open_model(name: str | Path, checkpoint: Literal["best", "last"] = "best") -> OpenedModel:
    """The model at a path, or BM25 alone for "bm25"; `checkpoint` selects that of a run.

    Nothing of a folder is executed; a Python file is, because the user names it.
    """
    if str(name) == BM25:
        return OpenedModel(BM25, BM25, None)
    path = Path(name)
    kind = adapter_name(path)
    report_name = path.resolve().stem if path.is_file() else path.resolve().name
    if ADAPTERS[kind] is run:
        retriever, info = run.load_with_info(path, checkpoint)
        return OpenedModel(report_name, kind, retriever, info)
    return OpenedModel(report_name, kind, ADAPTERS[kind].load(path))
