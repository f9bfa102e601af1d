"""Rows of published files: validated values, and hashes that assign ids and splits reproducibly."""

import hashlib
import json
from typing import Any, NoReturn

from make_jax.catalog.schema import Split
from make_jax.catalog.text import strip_text
from make_jax.errors import InputError


class BadRow(InputError):  # noqa: N818  # an InputError of one row
    """A row that cannot be imported. The message starts with its place: the file name and the line or row number."""


class Row:
    """The values of one row and its place ("styles.csv:17", "data.parquet: row 17"). Getters raise BadRow."""

    __slots__ = ("fault", "padded", "place", "values")

    def __init__(self, place: str, values: dict[str, Any], fault: str = "") -> None:
        self.place = place
        self.values = values
        self.fault = fault  # why the row could not be read; "" if it could
        self.padded = False  # whether the last fields are missing in the file, and empty here

    def error(self, text: str) -> BadRow:
        """A BadRow with the place of this row."""
        return BadRow(f"{self.place}: {text}")

    def value_error(self, key: str, expected: str) -> BadRow:
        """A BadRow about the value of `key`."""
        found = json.dumps(self.values.get(key), ensure_ascii=False, default=lambda value: f"<{type(value).__name__}>")
        return self.error(f"{key}: found {found if len(found) <= 60 else found[:57] + '...'}, expected {expected}")

    def text(self, key: str) -> str:
        """The text of `key` without invisible ends; numbers as text, 2011.0 as "2011"; "" if absent, null or NaN."""
        value = self.values.get(key)
        if value is None or value != value:  # pandas writes NaN for missing values
            return ""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.value_error(key, "text")
        return strip_text(self.valid_unicode(key, value))

    def valid_unicode(self, key: str, text: str) -> str:
        """The text, which must not contain half of a surrogate pair (JSON can express one)."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise self.error(f"{key}: half of a surrogate pair, expected valid Unicode") from None
        return text

    def required_text(self, key: str) -> str:
        """The text of `key`, which must not be empty."""
        return self.text(key) or self._missing(key, "text")

    def id(self, key: str) -> str:
        """The id of `key`: text without white space, because TREC files separate by it."""
        text = self.text(key) or self._missing(key, "an id")
        if text.split() != [text]:
            raise self.value_error(key, "an id without white space")
        return text

    def non_negative_int(self, key: str) -> int:
        """The integer >= 0 of `key`."""
        text = self.text(key)
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
        raise self.value_error(key, "an integer >= 0")

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """The text of `key`, which must be one of `choices`."""
        text = self.text(key)
        if text not in choices:
            raise self.value_error(key, "one of " + ", ".join(choices))
        return text

    def image_bytes(self, key: str) -> bytes | None:
        """The encoded image of `key`: bytes, or Hugging Face's {"bytes", "path"}; None if absent."""
        value = self.values.get(key)
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is not None and not isinstance(data, bytes):
            raise self.value_error(key, "the bytes of an image")
        return data or None

    def _missing(self, key: str, expected: str) -> NoReturn:
        raise self.value_error(key, expected)


def hash_fraction(purpose: str, id: str) -> float:
    """A reproducible pseudo-random number in [0, 1): the first 8 bytes of SHA-256 of "<purpose>:<id>" over 2^64."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{id}".encode()).digest()[:8], "big") / 2**64


def hash_split(id: str) -> Split:
    """The split of a product whose source has none: by hash, 80 % `train`, 10 % `val`, 10 % `test`.

    `id` is what variants share, so that they stay together.
    """
    fraction = hash_fraction("split", id)
    return "train" if fraction < 0.8 else "val" if fraction < 0.9 else "test"


def short_digest(text: str) -> str:
    """The first 16 hexadecimal digits of SHA-256 of a text: an id for queries published without one."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
