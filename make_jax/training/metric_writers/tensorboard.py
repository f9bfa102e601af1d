"""Metrics as TensorBoard scalars in RUN/tensorboard."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from make_jax.config import Config

TENSORBOARD = "tensorboard"  # in a run's folder


class TensorBoardWriter:
    """Writes an event file of scalars. TensorBoard's own writer would import TensorFlow where it is installed."""

    def __init__(self, folder: Path, start_step: int = 0, config: Config | None = None) -> None:
        (folder / TENSORBOARD).mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        self._file: IO[bytes] = (folder / TENSORBOARD / name).open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Readers drop the events of earlier files from this step on.
        self._write(Event(wall_time=time.time(), step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Writes the numbers as scalars and flushes; text is skipped."""
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if not isinstance(value, str)
        ]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()
