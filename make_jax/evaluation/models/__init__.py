"""Models that evaluation opens by a path or a name: `open_model(name)`. docs/models.md says what each kind is.

A kind is a module with two functions, and a line in `KINDS`:

    recognise(path) -> bool     whether the path is a model of this kind; reads names and JSON, never a weight
    load(path) -> EmbeddingModel     the model; InputError in one line for what it cannot use
"""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from make_jax.errors import InputError
from make_jax.evaluation.models import (
    clip,
    onnx_run,
    open_clip_folder,
    python_file,
    run,
    sentences,
    stablehlo_run,
    stored,
    torch_run,
)
from make_jax.retrieval.embed import EmbeddingModel

BM25 = "bm25"  # the name of BM25 alone, which needs no folder


@runtime_checkable
class Kind(Protocol):
    """A module of this package that opens one kind of model."""

    def recognise(self, path: Path) -> bool:
        """Whether the path is a model of this kind."""
        ...

    def load(self, path: Path) -> EmbeddingModel:
        """The model."""
        ...


# In this order: the first that recognises a path opens it.
KINDS: tuple[Kind, ...] = (
    python_file,
    run,
    stablehlo_run,
    onnx_run,
    torch_run,
    stored,
    sentences,
    open_clip_folder,
    clip,
)


class Opened(NamedTuple):
    """A model and what a report calls it."""

    name: str
    kind: str  # the module that opened it, or "bm25"
    model: EmbeddingModel | None  # None: BM25 alone


def kind_of(path: Path) -> Kind:
    """The kind that recognises a path. InputError when there is no such path, or no kind knows it."""
    if not path.exists():
        raise InputError(f"{path}: not found, expected a run, another model's folder, a .py file, or {BM25}")
    for kind in KINDS:
        if kind.recognise(path):
            return kind
    raise InputError(f"{path}: no run there and no model of a kind that docs/models.md lists; name such a folder")


def open_model(name: str | Path, checkpoint: run.Checkpoint = "best") -> Opened:
    """The model that `name` says: a folder, a Python file of yours, or "bm25".

    `checkpoint` is which one of a run. Nothing of a folder is executed; a Python file is, because you named it.
    """
    if str(name) == BM25:
        return Opened(BM25, BM25, None)
    path = Path(name)
    kind = kind_of(path)
    model = run.load(path, checkpoint) if kind is run else kind.load(path)
    return Opened(path.resolve().stem if path.is_file() else path.resolve().name, name_of(kind), model)


def name_of(kind: Kind) -> str:
    """What a report calls a kind."""
    return str(kind.__name__).rpartition(".")[2]  # type: ignore[attr-defined]  # a module has one
