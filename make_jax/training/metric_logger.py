"""What a run tells while it goes: a live line, `metrics.jsonl`, and TensorBoard events. Imports no jax.

Names known to the live line and the curves: `loss`, `logit_scale`, `learning_rate`, `data_wait` (fraction of the time
spent waiting for data), those of `training/utilization.py`, and any name that contains `ndcg@10`.
"""

import json
import math
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from make_jax.errors import InputError
from make_jax.files import write_atomically

METRICS = "metrics.jsonl"  # file of a run's folder
TENSORBOARD = "tensorboard"  # subfolder of a run's folder
PLAIN_INTERVAL = 10.0  # least seconds between two lines where the output is not a terminal


class Silent:
    """The telemetry of a process that another one tells for."""

    def advance(self, step: int) -> None:
        """Nothing."""

    def write(self, step: int, metrics: Mapping[str, float], **texts: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class MetricLogger:
    """The one teller of a run: use it as a context manager, `advance` every step, `write` at the steps that are logged.

    `folder` is the run's folder; `total_steps` is where the run ends. A run that goes on from step k passes
    `start_step=k`: what was told of later steps is taken back first, so that no step is told twice. On a terminal
    the line is live; elsewhere (CI, nohup) it is a plain line at most every `PLAIN_INTERVAL` seconds.

    Raises InputError if a line of an earlier `metrics.jsonl` is not what this class writes.
    """

    def __init__(self, folder: Path, total_steps: int, *, start_step: int = 0, console: Console | None = None) -> None:
        self._total = total_steps
        self._shown: dict[str, float] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=100)  # (when, step), from the first step's end
        self._step = start_step
        self._last_plain = -math.inf

        folder.mkdir(parents=True, exist_ok=True)
        metrics = folder / METRICS
        kept = [record for record in read_metrics(metrics) if record["step"] <= start_step] if metrics.exists() else []
        write_atomically(metrics, "".join(f"{json.dumps(record)}\n" for record in kept))
        self._metrics = metrics.open("a", encoding="utf-8")
        self._events = _Events(folder / TENSORBOARD, start_step)

        self._console = console or Console()
        # The text first: on a narrow terminal it is the bar that gives way.
        self._progress = Progress(
            TextColumn("{task.fields[line]}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=start_step, line=self._line())

    def __enter__(self) -> "MetricLogger":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, step: int) -> None:
        """Moves the line to `step`, the count of steps done. Costs next to nothing: call it every step."""
        self._step = step
        self._pace.append((time.monotonic(), step))
        self._show()

    def write(self, step: int, metrics: Mapping[str, float], **texts: str) -> None:
        """Tells `metrics` of `step`: one flushed line of `metrics.jsonl`, TensorBoard scalars, and the live line.

        A value that is not finite stands as null, because JSON has no word for it. `texts` stand in the line only.
        """
        values = {name: float(value) for name, value in metrics.items()}
        told = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, "time": round(time.time(), 3), **told, **texts}) + "\n")
        self._metrics.flush()
        self._events.scalars(step, values)
        self._shown |= values
        self._show()

    def note(self, text: str) -> None:
        """Prints `text` above the line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the live line and closes the files. Safe to call twice."""
        if not self._metrics.closed and not self._console.is_terminal:
            self._show(now=True)
        self._progress.stop()
        self._metrics.close()
        self._events.close()

    def _show(self, now: bool = False) -> None:
        if self._console.is_terminal:
            self._progress.update(self._task, completed=self._step, line=self._line())
        elif now or time.monotonic() - self._last_plain >= PLAIN_INTERVAL:
            self._last_plain = time.monotonic()
            self.note(self._line())

    def _line(self) -> str:
        parts = [f"step {self._step}/{self._total}", f"ETA {_clock(self._seconds_left())}"]
        for name, form in (
            ("loss", "loss {:.3f}"),
            ("logit_scale", "scale {:.1f}"),
            ("examples_per_second", "{:,.0f} examples/s"),
            ("examples_per_second_per_device", "{:,.0f} a device"),
            ("mfu", "MFU {:.1%}"),
            ("data_wait", "data wait {:.0%}"),
            ("peak_device_memory", "device memory {:.3g} GB"),
            ("peak_process_memory", "process memory {:.3g} GB"),
        ):
            if name in self._shown:
                value = self._shown[name]
                parts.append(form.format(value / 1e9 if name.endswith("memory") else value))
            elif name == "mfu" and "examples_per_second" in self._shown:
                parts.append("MFU unknown")
        return "  ".join(parts)

    def _seconds_left(self) -> float:
        """Seconds to the last step at the pace of the latest steps; infinite while that is not known.

        The first step compiles: its time tells nothing of the others'.
        """
        if len(self._pace) < 2:
            return math.inf
        (first_time, first_step), (last_time, last_step) = self._pace[0], self._pace[-1]
        return max(0, self._total - last_step) * (last_time - first_time) / (last_step - first_step)


def _clock(seconds: float) -> str:
    """Minutes:seconds, with hours before them where there are any; a dash for a time that is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class _Events:
    """A TensorBoard event file of scalars, without TensorFlow (TensorBoard's own writer loads it where it finds it)."""

    def __init__(self, folder: Path, start_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        self._file: IO[bytes] = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Readers drop what earlier files told of this step and later.
        self._write(Event(wall_time=time.time(), step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, in order: `step` int, `time` in seconds since 1970, metrics (None: not finite).

    A last line without its end, as a killed run leaves it, is left out. Raises InputError with the line's number for
    any other line that is not such a record.
    """
    *lines, _unfinished = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise InputError(f'{path}:{number}: found {line[:60]!r}, expected one JSON object with a whole "step"')
        records.append(record)
    return records
