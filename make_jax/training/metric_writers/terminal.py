"""Progress of a run in the terminal: step, remaining time and the latest metrics in one line."""

import math
import time
from collections import deque
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress
from rich.table import Column

from make_jax.console import LiteralConsole, text_column

PLAIN_INTERVAL = 10.0  # minimum seconds between two lines where the output is not a terminal

# What the line shows, in this order; other metrics are not shown.
_FORMATS = {
    "loss": "loss {:.3f}",
    "logit_scale": "scale {:.1f}",
    "examples_per_second": "{:,.0f} examples/s",
    "examples_per_second_per_device": "{:,.0f} per device",
    "mfu": "MFU {:.1%}",
    "data_wait": "data wait {:.0%}",
    "peak_device_memory": "device memory {:.3g} GB",
    "peak_process_memory": "process memory {:.3g} GB",
}


class TerminalProgress:
    """A metric writer that shows the latest metrics, with a progress bar on a terminal.

    Elsewhere (CI, nohup) it prints a plain line at most every `PLAIN_INTERVAL` seconds, and a last one at the end.
    """

    def __init__(self, total_steps: int, *, start_step: int = 0, console: Console | None = None) -> None:
        self._total = total_steps
        self._step = start_step
        self._metrics: dict[str, float | str] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=100)  # (time, step), from the end of the first step on
        self._last_plain = -math.inf
        self._closed = False
        self._console = console or LiteralConsole()
        # The text column first: on a narrow terminal the bar shrinks, not the text.
        self._progress = Progress(
            text_column("{task.fields[line]}", Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=self._console,
            expand=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=start_step, line=self._line())
        self._progress.start()

    def advance(self, step: int) -> None:
        """Sets the number of completed steps; cheap enough to call every step."""
        self._step = step
        self._pace.append((time.monotonic(), step))
        self._show()

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Shows `metrics`, together with the latest values of the others."""
        self._metrics |= metrics
        self._show()

    def message(self, text: str) -> None:
        """Prints `text` above the progress line."""
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stops the live display; prints a last plain line where there is none."""
        if not self._closed and not self._console.is_terminal:
            self._show(now=True)
        self._closed = True
        self._progress.stop()

    def _show(self, now: bool = False) -> None:
        if self._console.is_terminal:
            self._progress.update(self._task, completed=self._step, line=self._line())
        elif now or time.monotonic() - self._last_plain >= PLAIN_INTERVAL:
            self._last_plain = time.monotonic()
            self.message(self._line())

    def _line(self) -> str:
        parts = [f"step {self._step}/{self._total}", f"ETA {_format_seconds(self._seconds_left())}"]
        for name, form in _FORMATS.items():
            if name in self._metrics:
                value = self._metrics[name]
                parts.append(form.format(float(value) / 1e9 if name.endswith("memory") else value))
            elif name == "mfu" and "examples_per_second" in self._metrics:
                parts.append("MFU unknown")
        return "  ".join(parts)

    def _seconds_left(self) -> float:
        """Seconds to the last step at the recent pace; infinite while the pace is unknown.

        The first step includes compilation, so its duration is not part of the pace.
        """
        if len(self._pace) < 2:
            return math.inf
        (first_time, first_step), (last_time, last_step) = self._pace[0], self._pace[-1]
        return max(0, self._total - last_step) * (last_time - first_time) / (last_step - first_step)


def _format_seconds(seconds: float) -> str:
    """[hours:]minutes:seconds; "-" for an unknown duration."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
