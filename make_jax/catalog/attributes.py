"""Attributes of products: what a value may be, the texts that keywords are mined from, and how results show them."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from make_jax.catalog.reporting import preview
from make_jax.catalog.text import strip_text

AttributeValue = str | int | float | bool | tuple[str | int | float, ...]  # as in the file; a list is a tuple

_EXPECTED = "a string, a number, true or false, or a list of strings and numbers"


def attribute_value(value: Any) -> AttributeValue | None:
    """The value of an attribute in a line of products.jsonl; None for null, "" and an empty list.

    Texts are stripped; empty items of a list are left out. Raises ValueError that states what was found and expected.
    """
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        return _scalar(value, value)
    items = (_scalar(item, value) for item in value)
    return tuple(item for item in items if item is not None) or None


def _scalar(item: Any, value: Any) -> str | int | float | None:
    """A text or a number, None if empty. `value` is what an error shows."""
    if isinstance(item, str):
        try:
            item.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, expected valid Unicode") from None
        return strip_text(item) or None
    number = isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
    if item is None or number:
        return item
    raise ValueError(f"found {preview(value)}, expected {_EXPECTED}")


def attributes_of_json(text: str) -> dict[str, AttributeValue]:
    """The attributes of a JSON object, with lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}


def attribute_texts(attributes: Mapping[str, AttributeValue]) -> Iterator[tuple[str, str]]:
    """Yields the key and the text of each text value, and of each text in a list. Keywords are mined from these;
    numbers and booleans are no keywords."""
    for key, value in attributes.items():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str):
                yield key, item


def value_kind(value: AttributeValue) -> str:
    """What a value is: "text", "number", "true or false" or "list"."""
    if isinstance(value, tuple):
        return "list"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "number"


def format_attributes(attributes: Mapping[str, AttributeValue]) -> str:
    """The attributes of a product in one line: "brand: Nike · price: 19.99 · sizes: S, M"."""
    parts = []
    for key, value in attributes.items():
        items = value if isinstance(value, tuple) else (value,)
        shown = (str(item).lower() if isinstance(item, bool) else str(item) for item in items)
        parts.append(f"{key}: {', '.join(shown)}")
    return " · ".join(parts)
