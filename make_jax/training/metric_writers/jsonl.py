"""Metrics as lines of JSON in RUN/metrics.jsonl."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.files import write_atomically

METRICS = "metrics.jsonl"  # in a run's folder


class JsonlWriter:
    """Appends one flushed line per `write` to `metrics.jsonl`: `step`, `time` in seconds since 1970, metrics.

    NaN and infinity are written as null, which JSON has no other word for. Raises InputError if a line of an earlier
    file is not a record of this class.
    """

    def __init__(self, folder: Path, start_step: int = 0, config: Config | None = None) -> None:
        path = folder / METRICS
        kept = [record for record in read_metrics(path) if record["step"] <= start_step] if path.exists() else []
        write_atomically(path, "".join(f"{json.dumps(record)}\n" for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Appends and flushes one line."""
        values = {name: None if _is_non_finite(value) else value for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a `metrics.jsonl` in order; a value that was not finite is None.

    An incomplete last line, left by a killed run, is skipped. Raises InputError with the line number for any other
    line that is not a record.
    """
    *lines, _incomplete = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise InputError(f'{path}:{number}: found {line[:60]!r}, expected one JSON object with an integer "step"')
        records.append(record)
    return records


def _is_non_finite(value: float | str) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
