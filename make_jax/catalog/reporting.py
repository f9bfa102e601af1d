"""What catalog commands report: the problems of a catalog, collected into one error, and a progress bar."""

import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from make_jax.console import LiteralConsole, text_column
from make_jax.errors import InputError

MAX_LISTED = 20  # lines of one error message
_SHOWN = 3  # messages of one kind

# What differs in problems of one kind: what was found, quoted values, names of image files, numbers.
_FOUND = re.compile(r"(?<=: found ).+(?=, expected )")
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=^image: )[^"]+?(?=: )|\d[\d,]*')

T = TypeVar("T")


@dataclass
class _Kind:
    """The problems of one kind in one file."""

    count: int = 0
    shown: list[tuple[str, str]] = field(default_factory=list)  # place and text of the first
    texts_differ: bool = False


class Problems:
    """The problems or warnings of one catalog, in the order of detection, grouped by file and kind.

    `count` counts all of them; `kept` has the place and the text ("key: found, expected") of the first `max_per_kind`
    of each kind (None: all). Problems of one kind differ in values and numbers only.
    """

    def __init__(self, path: Path, max_per_kind: int | None = 3) -> None:
        self.path = path
        self.max_per_kind = max_per_kind
        self.count = 0
        self.kept: list[tuple[str, str]] = []
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(self, place: str, text: str) -> None:
        """Adds one problem at `place` ("products.jsonl:17")."""
        self.count += 1
        kind = self._kinds.setdefault((_file(place), _VALUE.sub("#", _FOUND.sub("#", text))), _Kind())
        kind.count += 1
        kind.texts_differ |= bool(kind.shown) and text != kind.shown[0][1]
        if len(kind.shown) < _SHOWN:
            kind.shown.append((place, text))
        if self.max_per_kind is None or kind.count <= self.max_per_kind:
            self.kept.append((place, text))

    def add_by_line(self, parts: Sequence["Problems"]) -> None:
        """Adds the problems of `parts`, all of one file, in the order of its lines; of one line, in that of `parts`."""
        kept = [(int(place.rpartition(":")[2]), place, text) for part in parts for place, text in part.kept]
        for _, place, text in sorted(kept, key=lambda problem: problem[0]):
            self.add(place, text)
        for part in parts:
            for key, kind in part._kinds.items():
                beyond = 0 if part.max_per_kind is None else max(0, kind.count - part.max_per_kind)
                self.count += beyond
                self._kinds[key].count += beyond
                self._kinds[key].texts_differ |= kind.texts_differ

    @property
    def messages(self) -> list[str]:
        """The kept problems as "file:line: key: found, expected"."""
        return [f"{place}: {text}" for place, text in self.kept]

    def grouped(self) -> list[str]:
        """The messages by file and kind: of each kind the first three and the number, in one line if all are equal."""
        lines: list[str] = []
        for (file, _), kind in self._kinds.items():
            if kind.count > 1 and not kind.texts_differ:
                places = ", ".join(place.removeprefix(f"{file}:") for place, _ in kind.shown)
                dots = ", ..." if kind.count > len(kind.shown) else ""
                lines.append(f"{kind.shown[0][0]}: {kind.shown[0][1]} ({kind.count:,} lines: {places}{dots})")
                continue
            more = kind.count - len(kind.shown)
            lines += [f"{place}: {text}" for place, text in kind.shown]
            lines += [f"{file}: ... {more:,} more like these, {kind.count:,} in all"] if more else []
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
        """Raises InputError: one line for one problem, otherwise a summary line and the first lines of `grouped`."""
        if self.count == 0:
            return
        if self.count == 1:
            raise InputError(f"{self.path}: {self.messages[0]}")
        lines = self.grouped()
        if (more := len(lines) - MAX_LISTED) > 0:
            command = f"python -m make_jax.catalog check {self.path}"
            lines[MAX_LISTED:] = [f"... {more:,} more lines; {command} lists them"]
        raise InputError("\n  ".join([f"{self.path}: {self.count:,} problems:", *lines]))


def _file(place: str) -> str:
    """The part of a place that its kind shares: "products.jsonl" of a line, "product" of a product's id."""
    return re.split("[: ]", place, maxsplit=1)[0]


def preview(value: Any) -> str:
    """A value as JSON, cut to a length that fits into a message; half of a surrogate pair is escaped."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 60 else text[:57] + "..."


def track(items: Iterable[T], total: int | None, description: str) -> Generator[T, None, None]:
    """Yields the items and shows a progress bar on stderr; `total` is None if unknown."""
    with progress_bar(description, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[[float], None]]:
    """Shows a progress bar on stderr and yields the function that advances it; `total` is None if unknown.

    rich.progress.track shows no count of items while the total is unknown, hence the columns here.
    """
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=LiteralConsole(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
