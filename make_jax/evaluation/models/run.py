"""A run of train.py."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from make_jax.config import from_json
from make_jax.retrieval.retriever import Retriever
from make_jax.runs.run_folder import CHECKPOINTS, CONFIG, read_checkpoint

Checkpoint = Literal["best", "last"]


class RunInfo(NamedTuple):
    """What a run says of itself."""

    catalog: str  # that it was trained on
    seed: int
    run: dict[str, Any]  # for the report


def recognise(path: Path) -> bool:
    """Whether train.py wrote the folder."""
    return (path / CHECKPOINTS).is_dir()


def load(path: Path, checkpoint: Checkpoint = "best") -> Retriever:
    """The run's model, with the preprocessing of its checkpoint."""
    return Retriever.load(path, checkpoint)


def facts(path: Path, checkpoint: Checkpoint = "best") -> RunInfo:
    """What the checkpoint says of catalog, seed and training."""
    _, meta, files = read_checkpoint(path, checkpoint)
    config = from_json(files[CONFIG], f"{path}/{CONFIG}")
    about = {"steps": meta["position"], "checkpoint": checkpoint, "training_seconds": meta["seconds"]}
    return RunInfo(config.data.catalog, config.train.seed, about)
