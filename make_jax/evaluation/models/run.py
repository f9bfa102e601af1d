"""A run of train.py."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from make_jax.config import from_json
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, read_checkpoint


class RunInfo(NamedTuple):
    """Facts about a run that evaluation and its report use."""

    catalog: str  # path of the catalog it was trained on
    seed: int
    run: dict[str, Any]  # step, checkpoint and training time, for the report


def matches(path: Path) -> bool:
    """Whether train.py wrote the folder."""
    return (path / CHECKPOINTS).is_dir()


def load(path: Path) -> Retriever:
    """The model of the run's best checkpoint, with the preprocessing saved there."""
    return Retriever.load(path)


def load_with_info(path: Path, checkpoint: Literal["best", "last"] = "best") -> tuple[Retriever, RunInfo]:
    """The model and the facts of a run's checkpoint, which is read and verified once."""
    params, meta, files = read_checkpoint(path, checkpoint)
    return Retriever.from_checkpoint(path, params, files), _info(path, checkpoint, meta, files)


def run_info(path: Path, checkpoint: Literal["best", "last"] = "best") -> RunInfo:
    """The facts of a run's checkpoint."""
    _, meta, files = read_checkpoint(path, checkpoint)
    return _info(path, checkpoint, meta, files)


def _info(path: Path, checkpoint: str, meta: dict[str, Any], files: dict[str, str]) -> RunInfo:
    config = from_json(files[CONFIG], f"{path}/{CONFIG}")
    training = {"steps": meta["position"], "checkpoint": checkpoint, "training_seconds": meta["seconds"]}
    return RunInfo(config.data.catalog, config.train.seed, training)
