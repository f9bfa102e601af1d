"""A run of train.py."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from make_jax.config import Config
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.run_folder import CHECKPOINTS, load_trained_model, open_checkpoints, read_config


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
    trained = load_trained_model(path, checkpoint)
    return Retriever.from_trained_model(trained), _info(trained.config, trained.metadata, checkpoint)


def run_info(path: Path, checkpoint: Literal["best", "last"] = "best") -> RunInfo:
    """The facts of a run's checkpoint, without its parameters."""
    info = open_checkpoints(path).latest_intact(checkpoint)
    return _info(read_config(info), info.meta, checkpoint)


def _info(config: Config, meta: dict[str, Any], checkpoint: str) -> RunInfo:
    training = {"steps": meta["position"], "checkpoint": checkpoint, "training_seconds": meta["seconds"]}
    return RunInfo(config.data.catalog, config.train.seed, training)
