"""Terminal output through rich in which text is never markup: names of users contain "[v2]" and ":heart:"."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column


class LiteralConsole(Console):
    """A rich console that prints text literally, in cells and titles of tables too.

    Markup, emoji codes and highlighting are off; use `rich.text.Text` for styles. The options are those of Console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)


def text_column(text: str, table_column: Column | None = None) -> TextColumn:
    """Returns a column of a progress bar with `text`, such as "{task.description}", filled in literally.

    rich interprets markup there by default, whatever the console is set to.
    """
    return TextColumn(text, markup=False, table_column=table_column)


@contextlib.contextmanager
def file_bar(text: str, files: int) -> Iterator[Callable[[], None]]:
    """Yields what to call after each file; shows a bar on a terminal, in the main thread only."""
    console = LiteralConsole(stderr=True)
    hidden = not files or not console.is_terminal or threading.current_thread() is not threading.main_thread()
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), text_column("files"))
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        task = progress.add_task(text, total=files)
        yield lambda: progress.advance(task)


class StageBars:
    """Progress bars, one for each stage that a program reports to `show`; without a terminal a line now and then."""

    def __init__(self, console: LiteralConsole, line_seconds: float = 30.0) -> None:
        """Without a terminal, a stage prints to stderr when `line_seconds` have passed since its start or last line."""
        self._stderr, self._line_seconds = LiteralConsole(stderr=True), line_seconds
        self._printed: dict[str, float] = {}  # stage -> time of its last line
        columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "StageBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Sets the progress of a stage. A `retrieval.top_k.Progress`."""
        if self._progress.disable:
            self._print_line(what, done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=min(done, total))

    def _print_line(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._printed.setdefault(what, now) >= self._line_seconds:
            self._printed[what] = now
            self._stderr.print(f"{what}: {min(done, total):,} of {total:,}")
