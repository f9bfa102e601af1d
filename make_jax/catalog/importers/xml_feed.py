"""Reads the items of an RSS or Atom feed one by one.

defusedxml rejects documents that declare entities, which can expand without bound, or refer to external ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import existing_file
from make_jax.errors import InputError

MAX_ITEM = 8 << 20  # bytes of XML between the ends of two items, which memory holds at once
MAX_DEPTH = 50  # of elements in each other
_ITEMS = ("item", "entry")


class FeedItem(Row):
    """The row of an item."""


class Feed:
    """The items of a feed. A row has the texts of an item's elements by their local names ("image_link"); elements that
    occur several times, or have elements inside, are lists of texts, or of such objects."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.files: tuple[Path, ...] = (existing_file(path),)

    def rows(self, start: int) -> Iterator[Row]:
        """One row an item. Raises InputError for what is no XML, declares entities, or has no item."""
        path = self.files[0]
        number = 0
        with path.open("rb") as file:
            bounded = _Bounded(file, path)
            try:
                for values in _items(bounded):
                    number += 1
                    bounded.unread, bounded.items = 0, number
                    if number > start:
                        yield FeedItem(f"{self.name}: item {number}", values)
            except DefusedXmlException as error:
                kind = " ".join(str(error).split())[:80]
                text = f"declares or refers to XML entities ({kind}), expected a feed without them"
                raise InputError(f"{path}: {text}; remove the DOCTYPE") from None
            except (ParseError, ValueError, LookupError) as error:  # ValueError: an encoding that expat lacks
                text = f"not XML ({error}), expected a complete RSS or Atom feed in UTF-8"
                raise InputError(f"{path}: after item {number}: {text}") from None
        if not number:
            raise InputError(f"{path}: no <item> or <entry>, expected an RSS or Atom feed")


class _Bounded:
    """A file for the parser that raises InputError when too much was read since an item ended."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.unread = self.items = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self.unread += len(data)
        if self.unread > MAX_ITEM:
            text = f"an item of more than {MAX_ITEM:,} bytes, expected less"
            raise InputError(f"{self._path}: after item {self.items}: {text}")
        return data


def _items(file: _Bounded) -> Iterator[dict[str, Any]]:
    """The values of each item; elements that were read are freed."""
    open_elements: list[Element] = []
    inside = 0  # open items, of which the outermost counts
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        is_item = _local(element) in _ITEMS
        if event == "start":
            open_elements.append(element)
            inside += is_item
            if len(open_elements) > MAX_DEPTH:
                raise ValueError(f"elements nested more than {MAX_DEPTH} deep")
            continue
        open_elements.pop()
        inside -= is_item
        if is_item and not inside:
            yield _values(element)
        if not inside:
            element.clear()
            if open_elements:
                open_elements[-1].clear()


def _values(element: Element) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for child in element:
        name = _local(child)
        value: Any = _values(child) if len(child) else "".join(child.itertext())
        if not value and name == "link":  # Atom
            value = child.get("href", "")
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _local(element: Element) -> str:
    """The name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2].lower()
