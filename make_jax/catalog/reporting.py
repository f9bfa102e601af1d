"""What catalog commands report: the problems of a catalog, collected into one error, and a progress bar."""

import json
import re
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from make_jax.console import LiteralConsole, text_column
from make_jax.errors import InputError

MAX_LISTED = 20  # problems that one error message lists

# A quoted value, the name of an image file, or a number in a message.
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=^image: )[^"]+?(?=: )|\d[\d,]*')

T = TypeVar("T")


class Problems:
    """The problems of one catalog, in the order of detection.

    `count` counts all of them; `kept` has the place and the text ("key: found, expected") of the first `max_kept`
    (None: all).
    """

    def __init__(self, path: Path, max_kept: int | None = MAX_LISTED) -> None:
        self.path = path
        self.max_kept = max_kept
        self.count = 0
        self.kept: list[tuple[str, str]] = []

    def add(self, place: str, text: str) -> None:
        """Adds one problem at `place` ("products.jsonl:17")."""
        self.count += 1
        if self.max_kept is None or len(self.kept) < self.max_kept:
            self.kept.append((place, text))

    @property
    def messages(self) -> list[str]:
        """The kept problems as "file:line: key: found, expected"."""
        return [f"{place}: {text}" for place, text in self.kept]

    def grouped(self, shown: int = 3) -> list[str]:
        """The messages, grouped by file and kind: of each group the number and the first `shown`.

        Problems of one kind differ in quoted values and numbers only.
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for place, text in self.kept:
            kind = _VALUE.sub("#", text)
            groups.setdefault((place.partition(":")[0], kind), []).append(f"{place}: {text}")
        lines: list[str] = []
        for (file, _), messages in groups.items():
            more = len(messages) - shown
            lines += messages[:shown]
            lines += [f"{file}: ... {more:,} more like these, {len(messages):,} in all"] if more > 0 else []
        return lines

    def of_images(self) -> list[str]:
        """The messages about images; a file that several products name counts once."""
        first: dict[str, str] = {}
        for place, text in self.kept:
            if text.startswith("image: "):
                names_file = not text.startswith(("image: missing", "image: found"))
                first.setdefault(text if names_file else place, f"{place}: {text}")
        return list(first.values())

    def raise_if_any(self) -> None:
        """Raises InputError: one line for one problem, otherwise a summary line and one line a problem."""
        if self.count == 0:
            return
        if self.count == 1:
            raise InputError(f"{self.path}: {self.messages[0]}")
        first = f"; the first {len(self.messages)}" if len(self.messages) < self.count else ""
        raise InputError("\n  ".join([f"{self.path}: {self.count} problems{first}:", *self.messages]))


def preview(value: Any) -> str:
    """A value as JSON, cut to a length that fits into a message; half of a surrogate pair is escaped."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 60 else text[:57] + "..."


def track(items: Iterable[T], total: int | None, description: str) -> Generator[T, None, None]:
    """Yields the items and shows a progress bar on stderr; `total` is None if unknown.

    rich.progress.track shows no count of items while the total is unknown, hence the columns here.
    """
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=LiteralConsole(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task)
