"""The metrics and messages of a run: to all writers of `train.writers` and to the terminal. Imports no jax.

Names with a meaning to the terminal line and the curves: `loss`, `logit_scale`, `learning_rate`, `data_wait` (fraction
of the time spent waiting for data), those of `training/utilization.py`, and any name that contains `ndcg@10`.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console

from make_jax.config import Config
from make_jax.training.metric_writers import MetricWriter, open_writers
from make_jax.training.metric_writers.terminal import TerminalProgress


class MetricLogger:
    """Passes metrics on to its writers; a context manager that closes them.

    Without writers and terminal it does nothing: processes other than process 0 use it so.
    """

    def __init__(self, writers: Sequence[MetricWriter] = (), terminal: TerminalProgress | None = None) -> None:
        self._terminal = terminal
        self.writers = [*writers, *([] if terminal is None else [terminal])]

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, step: int) -> None:
        """Shows in the terminal that `step` steps are done; cheap enough to call every step."""
        if self._terminal is not None:
            self._terminal.advance(step)

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Writes `metrics` of `step` to all writers."""
        for writer in self.writers:
            writer.write(step, metrics)

    def message(self, text: str) -> None:
        """Prints `text` in the terminal."""
        if self._terminal is not None:
            self._terminal.message(text)

    def close(self) -> None:
        """Closes all writers. Safe to call twice."""
        for writer in reversed(self.writers):  # the terminal first, so that an upload cannot delay its last line
            writer.close()


def open_logger(config: Config, start_step: int = 0, console: Console | None = None) -> MetricLogger:
    """Returns the logger of a run that has done `start_step` steps.

    Records of later steps, left by an interrupted start, are removed, so that no step is logged twice. Raises
    InputError for an unknown or missing writer and for a broken `metrics.jsonl`.
    """
    writers = open_writers(config, start_step)
    return MetricLogger(writers, TerminalProgress(config.train.steps, start_step=start_step, console=console))
