"""One row of a published file, and what may be wrong with it."""

import json
from typing import Any

from make_jax.errors import InputError


class BadRow(InputError):  # noqa: N818  # an InputError of one row
    """A row that cannot be imported. The message begins with its place: the file's name and the line or row in it."""


class Row:
    """The values of one row and its place ("styles.csv:17", "data.parquet: row 17"). Getters raise BadRow."""

    __slots__ = ("fault", "place", "values")

    def __init__(self, place: str, values: dict[str, Any], fault: str = "") -> None:
        self.place = place
        self.values = values
        self.fault = fault  # what keeps the row from being read at all; "" when nothing does

    def bad(self, text: str) -> BadRow:
        """The error that says what is wrong with this row."""
        return BadRow(f"{self.place}: {text}")

    def wrong(self, key: str, expected: str) -> BadRow:
        """The error for the value at `key`."""
        shown = json.dumps(self.values.get(key), ensure_ascii=False, default=lambda value: f"<{type(value).__name__}>")
        return self.bad(f"{key}: found {shown if len(shown) <= 60 else shown[:57] + '...'}, expected {expected}")

    def text(self, key: str) -> str:
        """The text at `key` without white space around it; numbers as text, 2011.0 as "2011"; "" when there is none."""
        value = self.values.get(key)
        if value is None or value != value:  # NaN stands for nothing in files that pandas wrote
            return ""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return self.unicode(key, value).strip()

    def unicode(self, key: str, text: str) -> str:
        """A text of the value at `key`, which JSON can make no text at all: of half a character."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise self.bad(f"{key}: half of a surrogate pair, expected valid Unicode") from None
        return text

    def needed(self, key: str) -> str:
        """The text at `key`, not empty."""
        return self.text(key) or self._missing(key, "text")

    def name(self, key: str) -> str:
        """The id at `key`: text without white space, because TREC files separate by it."""
        text = self.text(key) or self._missing(key, "an id")
        if text.split() != [text]:
            raise self.wrong(key, "an id without white space")
        return text

    def integer(self, key: str) -> int:
        """The integer >= 0 at `key`."""
        text = self.text(key)
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
        raise self.wrong(key, "an integer >= 0")

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        """The text at `key`, one of `choices`."""
        text = self.text(key)
        if text not in choices:
            raise self.wrong(key, "one of " + ", ".join(choices))
        return text

    def picture(self, key: str) -> bytes | None:
        """The encoded picture at `key` as Hugging Face stores one: {"bytes", "path"}; None when there is none."""
        value = self.values.get(key)
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is not None and not isinstance(data, bytes):
            raise self.wrong(key, "a picture's bytes")
        return data or None

    def _missing(self, key: str, expected: str) -> str:
        raise self.wrong(key, expected)
