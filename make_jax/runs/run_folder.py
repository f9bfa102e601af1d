"""The folder of a run: names of its files, and loading the trained model from it.

RUN/config.json       the resolved settings
   /training_data.safetensors   what it was trained on, by `training_data.py`
   /checkpoints/      `checkpoints.py`; each checkpoint holds config.json, tokenizer.json and keywords.json too
   /metrics.jsonl     losses and validation, by `training/metric_writers/jsonl.py`
   /failure-I.txt     why process I of several ended, by `failure_detection.py`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.config import Config, from_json
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.runs.checkpoints import CheckpointInfo, Checkpoints, digest
from make_jax.runs.run_store import pull_run
from make_jax.runs.state import Params
from make_jax.runs.training_data import TrainingData

CHECKPOINTS = "checkpoints"  # subfolder of a run
CONFIG = "config.json"  # in a run and in a checkpoint
TOKENIZER = "tokenizer.json"  # in a checkpoint
KEYWORDS = "keywords.json"  # in a checkpoint


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint's parameters and everything that encoding with them needs; every file was verified once."""

    params: Params  # nested dicts of NumPy arrays; the averaged parameters if the run kept them
    config: Config  # of the run that wrote the checkpoint
    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    metadata: dict[str, Any]  # meta.json: "position" (steps), "seconds" of training, "metrics", "catalog_digest", ...
    digest: str  # SHA-256 of the checkpoint's manifest
    training_data: TrainingData


def load_trained_model(run: str | Path, checkpoint: Literal["best", "last"] = "best") -> TrainedModel:
    """Loads and verifies the newest intact checkpoint of a run; executes nothing from the run. `run` may be a URL.

    Raises InputError when the folder is not a run or none of its checkpoints is intact.
    """
    run = pull_run(run)
    checkpoints = open_checkpoints(run)
    info = checkpoints.latest_intact(checkpoint)
    params = checkpoints.load_params(info)
    return TrainedModel(
        params=params,
        config=read_config(info),
        tokenizer=read_tokenizer(info),
        keywords=read_keywords(info),
        metadata=info.meta,
        digest=digest(info),
        training_data=TrainingData(Path(run), info.meta.get("catalog_digest")),
    )


def open_checkpoints(run: str | Path) -> Checkpoints:
    """The checkpoints of an existing run, for reading. Raises InputError when the folder is not a run."""
    folder = Path(run) / CHECKPOINTS
    if not folder.is_dir():
        raise InputError(f"{run}: not a run (no folder {CHECKPOINTS}/); give the folder that train.py wrote")
    return Checkpoints(folder)


def read_config(info: CheckpointInfo) -> Config:
    """The settings of the run that wrote a checkpoint."""
    return from_json(info.files[CONFIG], f"{info.path}/{CONFIG}")


def read_tokenizer(info: CheckpointInfo) -> Tokenizer:
    """The tokenizer in a checkpoint."""
    return Tokenizer(info.files[TOKENIZER])


def read_keywords(info: CheckpointInfo) -> KeywordVocabulary:
    """The keyword vocabulary in a checkpoint; empty for a checkpoint without one."""
    text = info.files.get(KEYWORDS)
    return KeywordVocabulary(()) if text is None else KeywordVocabulary.from_json(text, f"{info.path}/{KEYWORDS}")
