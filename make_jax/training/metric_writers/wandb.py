"""Metrics in Weights & Biases: the optional extra [wandb]."""

import dataclasses
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.extras import install_advice
from make_jax.files import write_atomically

RUN_ID = "wandb_run_id.txt"  # in a run's folder


class WandbWriter:
    """Logs to one W&B run per run folder, resumed when the run is resumed.

    `WANDB_PROJECT` names the project (default make_jax); `WANDB_MODE=offline` and W&B's other variables work as usual.
    W&B keeps the first value of a step that is logged twice; a resumed run computes the same values. Raises InputError
    if the package is missing.
    """

    def __init__(self, folder: Path, start_step: int, config: Config) -> None:
        self._run = _import_wandb().init(
            project=os.environ.get("WANDB_PROJECT", "make_jax"),
            name=folder.name,
            id=_run_id(folder, new=start_step == 0),
            resume="allow",
            dir=str(folder),
            config=dataclasses.asdict(config),
        )

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Logs the metrics of one step; W&B merges several calls for the same step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Uploads what is left and ends the W&B run."""
        self._run.finish()


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            f"train.writers has 'wandb', whose package cannot be imported ({error}); "
            f"{install_advice('wandb')}, or remove it from train.writers"
        ) from error
    return wandb


def _run_id(folder: Path, new: bool) -> str:
    """The W&B id of the run in `folder`; a run that starts at step 0 gets a new one."""
    path = folder / RUN_ID
    if new or not path.exists():
        write_atomically(path, uuid.uuid4().hex[:16])
    return path.read_text("utf-8")
