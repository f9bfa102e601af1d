"""How engines compare and count the values of attributes; all engines share these rules [ours, after Meilisearch].

equal     as texts, in any case: the number 10, 10.0 and the text "10" are equal, and so are true and "True"
order     numbers alone exceed or fall below a value; sorting puts numbers before texts
facets    count values as they are written
"""

import unicodedata
from collections.abc import Iterator

from make_jax.catalog.attributes import AttributeValue
from make_jax.serving.filters import Value

Scalar = str | int | float | bool


def elements(value: AttributeValue) -> Iterator[Scalar]:
    """The elements of a list, or the value itself."""
    if isinstance(value, tuple):
        yield from value
    else:
        yield value


def value_text(value: Scalar | Value) -> str:
    """The text of a value in facets: "true", "10" for 10 and 10.0, "19.99"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def match_key(value: Scalar | Value) -> str:
    """Equal for values that a filter treats as equal."""
    return unicodedata.normalize("NFC", value_text(value)).casefold()


def number_of(value: Scalar | Value) -> float | None:
    """The number that ranges and sorting compare; None for texts and booleans."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def sort_key(value: Scalar) -> tuple[bool, float, str, str]:
    """Ascending: numbers, then texts and booleans in any case."""
    number = number_of(value)
    return number is None, number or 0.0, match_key(value), value_text(value)
