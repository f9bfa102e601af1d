"""What a run's checkpoints contain in addition to the state: progress metadata, and the files of the model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from make_jax.config import Config
from make_jax.runs.checkpoints import Checkpoints, Kind
from make_jax.runs.state import TrainState
from make_jax.training.initialization import Initialization


@dataclass
class Progress:
    """Evaluation results, data fingerprint and training time of a run, over all its starts."""

    best_score: float = -math.inf  # of the best checkpoint
    evaluated_step: int = 0  # of the latest complete evaluation; at the last step it includes the keyword heads
    validation: dict[str, float] = field(default_factory=dict)  # latest validation metrics
    data_fingerprint: Any = 0  # uint32 [], of all batches so far (training/data_fingerprint.py)
    seconds: float = 0.0  # of training

    @classmethod
    def restore(cls, init: Initialization, config: Config) -> "Progress":
        """Returns the progress that a resumed run continues from; in a new run an empty one."""
        progress = cls()
        meta = init.metadata
        if meta:
            progress.best_score = -math.inf if meta["best"] is None else meta["best"]
            progress.seconds, progress.validation = meta["seconds"], meta["metrics"]
            progress.evaluated_step, progress.data_fingerprint = meta["evaluated"], meta["data_fingerprint"]
        if init.needs_reevaluation(config):
            progress.best_score, progress.evaluated_step = -math.inf, init.step - 1
        return progress

    def metadata(self) -> dict[str, Any]:
        """Returns what `restore` reads, as JSON values."""
        return {
            "best": self.best_score if math.isfinite(self.best_score) else None,
            "evaluated": self.evaluated_step,
            "metrics": self.validation,
            "data_fingerprint": int(self.data_fingerprint),
            "seconds": self.seconds,
        }


@dataclass
class CheckpointSaver:
    """Saves checkpoints of a run."""

    checkpoints: Checkpoints
    progress: Progress
    metadata: Mapping[str, Any]  # the same in all checkpoints
    files: Mapping[str, str]  # name -> text: config, tokenizer, keywords
    unsaved: bool = False  # whether state or progress changed since the newest "last" checkpoint

    def save(self, kind: Kind, step: int, state: TrainState) -> None:
        """Starts saving in the background; `step` is also the data position, in global batches."""
        metadata = {**self.metadata, "position": step, **self.progress.metadata()}
        self.checkpoints.save(kind, step, state, metadata, self.files)
        self.unsaved = self.unsaved and kind != "last"
