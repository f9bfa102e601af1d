"""JSON in which an object may have a key once: json.loads keeps the last of equal keys without a word."""

import json
from typing import Any


class DuplicateKeyError(ValueError):
    """A JSON object has a key twice: `key`."""

    def __init__(self, key: str) -> None:
        shown = json.dumps(key if len(key) <= 60 else key[:57] + "...", ensure_ascii=not key.isprintable())
        super().__init__(f"{shown} occurs twice in one object, expected each key once")
        self.key = key


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members, an `object_pairs_hook` of json. Raises DuplicateKeyError."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return values


def loads(text: str | bytes) -> Any:
    """The JSON value. Raises the errors of json.loads, which are ValueErrors, and DuplicateKeyError."""
    return json.loads(text, object_pairs_hook=object_of)
