"""Lines of JSON as records of the schema; whatever is wrong goes to `Problems`, with file, line and key."""

import difflib
import json
import math
from collections.abc import Iterator
from typing import Any

from make_jax.catalog.problems import Problems, shown
from make_jax.catalog.schema import POOLS, SPLITS, CatalogInfo, Click, Pool, Product, Query, Split
from make_jax.catalog.source import READ_ERRORS, Source, unreadable, unsafe_name

PRODUCTS, QUERIES, CLICKS, INFO = "products.jsonl", "queries.jsonl", "clicks.jsonl", "catalog.json"
NEVER_ATTRIBUTES = ("id", "title", "image", "split", "group", "tier", "sensitive", "dropped")
_INFO_KEYS = ("name", "title", "licence", "attributes", "gains", "relevant", "hide_title", "pool")
_MAX_INFO_BYTES = 1 << 20
_DECODER = json.JSONDecoder()


class Row:
    """One JSON object and its place. Each getter notes what is wrong and then returns an empty value."""

    __slots__ = ("place", "problems", "sound", "values")

    def __init__(self, place: str, values: dict[str, Any], problems: Problems) -> None:
        self.place = place
        self.values = values
        self.problems = problems
        self.sound = True  # nothing wrong so far

    def wrong(self, key: str, found: str, expected: str) -> None:
        """Notes one problem of this row."""
        self.sound = False
        self.problems.add(self.place, f"{key}: {found}, expected {expected}")

    def text(self, key: str) -> str:
        """The string at `key` without white space around it; "" when absent or null."""
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.wrong(key, f"found {shown(value)}", "a string")
            return ""
        if not _encodable(value):
            self.wrong(key, "half of a surrogate pair", "valid Unicode")
            return ""
        return value.strip()

    def name(self, key: str) -> str:
        """The id at `key`: not empty, and without white space, because TREC files separate by it. "" when wrong."""
        value = self.values.get(key)
        if isinstance(value, str) and value.split() == [value] and _encodable(value):
            return value
        found = f"found {shown(value)}" if key in self.values else "missing"
        self.wrong(key, found, "a string, not empty, without white space")
        return ""

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of strings at `key`; () when absent or null."""
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(item, str) and _encodable(item) for item in value):
            return tuple(value)
        self.wrong(key, f"found {shown(value)}", "a list of strings")
        return ()

    def flag(self, key: str) -> bool:
        """The truth value at `key`; False when absent or null."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.wrong(key, f"found {shown(value)}", "true or false")
        return False

    def split(self) -> Split:
        """The split; "train" when wrong."""
        value = self.values.get("split")
        for split in SPLITS:
            if value == split:
                return split
        found = f"found {shown(value)}" if "split" in self.values else "missing"
        self.wrong("split", found, "one of " + ", ".join(f'"{split}"' for split in SPLITS))
        return "train"


def rows(source: Source, name: str, problems: Problems) -> Iterator[tuple[int, Row | None]]:
    """The line number (from 1) and the object of each line, None for a broken one; empty lines are passed over."""
    if name not in source.sizes:
        return
    try:
        with source.open(name) as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                place = f"{name}:{number}"
                values, wrong = _parsed(line)
                if wrong:
                    problems.add(place, wrong)
                yield number, None if wrong else Row(place, values, problems)
    except READ_ERRORS as error:
        raise unreadable(source.path, name, error) from None


def read_info(source: Source, problems: Problems) -> CatalogInfo:
    """What catalog.json says; the defaults, with the catalog's file name as its name, when there is none."""
    default = source.path.resolve().name.removesuffix(".zip")
    if INFO not in source.sizes:
        return CatalogInfo(name=default)
    values, wrong = _parsed(source.read(INFO, _MAX_INFO_BYTES))
    if wrong:
        problems.add(INFO, wrong)
        return CatalogInfo(name=default)
    row = Row(INFO, values, problems)
    for key in values:
        if key not in _INFO_KEYS:
            near = difflib.get_close_matches(key, _INFO_KEYS, 1)
            row.wrong(key, "unknown key", f'"{near[0]}"' if near else "one of " + ", ".join(_INFO_KEYS))
    attributes = row.texts("attributes")
    for key in attributes:
        if key in NEVER_ATTRIBUTES:
            row.wrong("attributes", f'"{key}" never is an attribute', "keys that describe the product")
    relevant = values.get("relevant", 3)
    if not _is_grade(relevant) or relevant < 1:
        row.wrong("relevant", f"found {shown(relevant)}", "an integer >= 1")
        relevant = 3
    return CatalogInfo(
        name=row.text("name") or default,
        title=row.text("title"),
        licence=row.text("licence"),
        attributes=attributes,
        gains=_gains(row),
        relevant=relevant,
        hide_title=row.flag("hide_title"),
        pool=_pool(row),
    )


def product(row: Row, info: CatalogInfo, source: Source) -> Product:
    """The product of one row, as much of it as is sound."""
    identity = row.name("id")
    split = row.split()
    title = row.text("title")
    image = row.text("image") or None
    if image is not None:
        _check_image(row, image, source)
    if info.hide_title:
        if image is None:
            row.wrong("image", "missing", 'an image, because catalog.json has "hide_title"')
        title = ""
    elif image is None and not title:
        row.wrong("title", "neither title nor image", "at least one of them")
    category = row.texts("category")
    return Product(
        id=identity,
        title=title,
        image=image,
        split=split,
        category=category,
        group=row.text("group") or None,
        attributes=_attributes(row, info, category) if split == "train" else {},
        dropped=row.texts("dropped"),
        sensitive=row.flag("sensitive"),
    )


def query(row: Row, known: dict[str, int] | None) -> Query:
    """The judged query of one row. `known` holds all product ids; None leaves that test out."""
    grades = row.values.get("rel")
    if not isinstance(grades, dict):
        found = f"found {shown(grades)}" if "rel" in row.values else "missing"
        row.wrong("rel", found, "an object {product id: grade}")
        grades = {}
    for identity, grade in grades.items():
        if not _is_grade(grade):
            row.wrong("rel", f"grade {shown(grade)} of product {shown(identity)}", "an integer >= 0")
            grades = {}
            break
    if known is not None:
        unknown = [identity for identity in grades if identity not in known]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            row.wrong("rel", f"judges the unknown product {shown(unknown[0])}{more}", f"ids that stand in {PRODUCTS}")
    text = row.text("text")
    if not text:
        row.wrong("text", "empty or missing", "what was asked")
    return Query(
        id=row.name("qid"),
        text=text,
        split=row.split(),
        rel=grades,
        kind=row.text("kind"),
        lang=row.text("lang"),
        heldout=row.flag("heldout_combo"),
    )


def click(row: Row, products: list[Product], known: dict[str, int] | None) -> Click:
    """The click of one row. `known` holds all product ids; None leaves the test of the product out."""
    text = row.text("query")
    if not text:
        row.wrong("query", "empty or missing", "what was asked")
    identity = row.name("product")
    if identity and known is not None:
        at = known.get(identity)
        if at is None:
            row.wrong("product", f"found the unknown product {shown(identity)}", f"an id that stands in {PRODUCTS}")
        elif products[at].split != "train":
            found = f"product {shown(identity)} is in the split {shown(products[at].split)}"
            row.wrong("product", found, 'a product of the split "train"')
    return Click(query=text, product=identity, lang=row.text("lang"))


def _parsed(line: bytes) -> tuple[dict[str, Any], str]:
    """The object of a line, and what is wrong with it ("" when nothing is)."""
    try:
        values = _DECODER.decode(line.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 at byte {error.start + 1}, expected UTF-8"
    except json.JSONDecodeError as error:
        return {}, f"not JSON ({error.msg} at column {error.colno}), expected one object"
    except RecursionError:
        return {}, "nested too deep, expected one flat object"
    except ValueError as error:  # an integer of thousands of digits
        return {}, f"not readable ({error}), expected one object"
    if not isinstance(values, dict):
        return {}, f"found {shown(values)}, expected one object"
    return values, ""


def _check_image(row: Row, image: str, source: Source) -> None:
    if reason := unsafe_name(image):
        row.wrong("image", f"{shown(image)} {reason}", "a path inside the catalog")
    elif image not in source.sizes:
        parts = image.split("/")
        linked = any("/".join(parts[:end]) in source.links for end in range(1, len(parts) + 1))
        found = "goes through a symbolic link" if linked else "is not in the catalog"
        row.wrong("image", f"{shown(image)} {found}", "a file inside the catalog")
    elif source.sizes[image] == 0:
        row.wrong("image", f"{shown(image)} is an empty file", "a JPEG, PNG or WebP file")


def _attributes(row: Row, info: CatalogInfo, category: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key in info.attributes:
        value = (category[-1].strip() if category else "") if key == "category" else row.text(key)
        if value:
            found[key] = value
    return found


def _pool(row: Row) -> Pool:
    value = row.values.get("pool", "split")
    for pool in POOLS:
        if value == pool:
            return pool
    row.wrong("pool", f"found {shown(value)}", "one of " + ", ".join(f'"{pool}"' for pool in POOLS))
    return "split"


def _gains(row: Row) -> dict[int, float]:
    value = row.values.get("gains")
    if value is None:
        return {}
    gains: dict[int, float] = {}
    expected = "an object {grade: gain}, grades integers >= 0, gains numbers >= 0"
    if not isinstance(value, dict):
        row.wrong("gains", f"found {shown(value)}", expected)
        return {}
    for grade, gain in value.items():
        number = isinstance(gain, int | float) and not isinstance(gain, bool)
        if grade.isascii() and grade.isdecimal() and len(grade) < 10 and number and 0 <= gain < math.inf:
            gains[int(grade)] = float(gain)
        else:
            row.wrong("gains", f"found {shown({grade: gain})}", expected)
    return gains


def _is_grade(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
