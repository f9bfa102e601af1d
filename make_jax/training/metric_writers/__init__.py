"""Metric writers: where a run's metrics go. `WRITERS` lists all that `train.writers` can name. Imports no jax.

To add one: write a class that satisfies `MetricWriter` in a file of this folder and enter it in `WRITERS`
(docs/extending.md has an example).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.object_stores import local_path
from make_jax.training.metric_writers.jsonl import JsonlWriter
from make_jax.training.metric_writers.tensorboard import TensorBoardWriter
from make_jax.training.metric_writers.wandb import WandbWriter


@runtime_checkable
class MetricWriter(Protocol):
    """Writes the metrics of a run somewhere."""

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Writes `metrics` of `step`; one step may be written in several calls, each with other metrics.

        Numbers may be NaN or infinite. Text values (the data fingerprint) may be skipped.
        """

    def close(self) -> None:
        """Flushes and releases everything; a second call does nothing."""


# (run folder, first step already done, settings) -> writer. A run resumed at step k passes start_step=k: a writer then
# drops its own records of later steps, which will be written again.
WriterFactory = Callable[[Path, int, Config], MetricWriter]

WRITERS: dict[str, WriterFactory] = {
    "jsonl": JsonlWriter,
    "tensorboard": TensorBoardWriter,
    "wandb": WandbWriter,
}


def check_writers(names: Sequence[str]) -> None:
    """Raises InputError if `train.writers` names a writer that does not exist or whose package is missing."""
    for name in names:
        if name not in WRITERS:
            nearest = difflib.get_close_matches(name, WRITERS, n=1, cutoff=0.0)[0]
            known = ", ".join(WRITERS)
            raise InputError(f"train.writers has {name!r}, expected some of {known}; did you mean {nearest!r}?")
    if len(set(names)) < len(names):
        raise InputError(f"train.writers is {' '.join(names)}, expected each writer once")


def open_writers(config: Config, start_step: int) -> list[MetricWriter]:
    """Returns the writers that `train.writers` names. Raises InputError as `check_writers` does."""
    check_writers(config.train.writers)
    folder = local_path(config.run)
    folder.mkdir(parents=True, exist_ok=True)
    return [WRITERS[name](folder, start_step, config) for name in config.train.writers]
