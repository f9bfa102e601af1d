"""What is wrong with a catalog, collected so that all of it is reported together."""

import json
from pathlib import Path
from typing import Any

from make_jax.errors import InputError

SHOWN = 20  # problems that one error message lists


class Problems:
    """Everything found wrong with one catalog, in the order it was found.

    `count` counts all of them; `texts` keeps the first `keep` (None keeps all), each "file:line: key: found, expected".
    """

    def __init__(self, path: Path, keep: int | None = SHOWN) -> None:
        self.path = path
        self.keep = keep
        self.count = 0
        self.texts: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Notes one problem at `where` ("products.jsonl:17")."""
        self.count += 1
        if self.keep is None or len(self.texts) < self.keep:
            self.texts.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """Raises InputError: one line for one problem, else a summary line and then one problem a line."""
        if self.count == 0:
            return
        if self.count == 1:
            raise InputError(f"{self.path}: {self.texts[0]}")
        first = f"; the first {len(self.texts)}" if len(self.texts) < self.count else ""
        raise InputError("\n  ".join([f"{self.path}: {self.count} problems{first}:", *self.texts]))


def shown(value: Any) -> str:
    """A JSON value as it stands in the file, cut to a length that fits in a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
