"""Reads a catalog from a folder or a .zip: `Catalog.load(path)`. docs/catalog.md describes the format."""

import functools
import hashlib
import importlib.resources
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_jax.catalog import jsonl
from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import CatalogInfo, Click, Product, Query, Split
from make_jax.catalog.source import Source, open_source, unsafe_name
from make_jax.errors import InputError

PACKAGED = "openclipart.zip"


@dataclass(frozen=True, eq=False)
class Catalog:
    """Products, judged queries and clicks. Immutable; images are read on demand.

    Thread-safe and picklable.
    """

    path: Path  # folder or .zip
    info: CatalogInfo
    products: tuple[Product, ...]  # all three in file order
    queries: tuple[Query, ...]
    clicks: tuple[Click, ...]
    source: Source = field(repr=False)
    derivation: str = ""  # how the clicks were made if they are not those of the file (derived_queries.py)
    lines_sha: jsonl.Hash | None = field(default=None, repr=False)  # of the JSON files, updated as they were read

    @classmethod
    def load(cls, path: str | Path = "") -> "Catalog":
        """Loads the catalog at `path`, a folder or a .zip; "" is the packaged catalog.

        Raises InputError if it is missing, damaged or unsafe; problems of its lines are reported together.
        """
        source = open_source(path or packaged_path())
        problems = Problems(source.path)
        catalog, _ = read(source, problems, Problems(source.path))
        problems.raise_if_any()
        return catalog

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Product id -> position in `products`."""
        return {product.id: position for position, product in enumerate(self.products)}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the catalog's JSON files and of the sizes and checksums of its images.

        It changes when a line or an image does, and is the same for a folder and a .zip of it.
        """
        if self.lines_sha is None:  # a pickled copy
            return Catalog.load(self.path).digest
        sha = self.lines_sha.copy()
        for product in self.products:
            if product.image is not None:
                size, checksum = self.source.sizes[product.image], self.source.checksum(product.image)
                sha.update(f"{product.image} {size} {checksum}\n".encode())
        return sha.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"lines_sha": None}  # hash objects cannot be pickled

    def image_bytes(self, product: Product) -> bytes | None:
        """The encoded image of a product, None without one. Raises InputError if it cannot be read."""
        return None if product.image is None else self.source.read(product.image, MAX_BYTES)

    def split_products(self, split: Split) -> list[Product]:
        """The products of a split, in file order."""
        return [product for product in self.products if product.split == split]

    def split_queries(self, split: Split) -> list[Query]:
        """The judged queries of a split, in file order."""
        return [query for query in self.queries if query.split == split]

    def training_texts(self) -> list[str]:
        """Titles and clicked queries of the train split: what a tokenizer is trained on."""
        return [*(product.title for product in self.split_products("train")), *(click.query for click in self.clicks)]


def packaged_path() -> Path:
    """Path of the catalog inside the package. Raises InputError if the installation lacks it."""
    path = Path(str(importlib.resources.files("make_jax.catalog").joinpath(PACKAGED)))
    if not path.exists():
        raise InputError(f"{path}: not found, expected the packaged catalog; reinstall make_jax or set data.catalog")
    return path


@dataclass(frozen=True)
class Lines:
    """Where a catalog was read from, for messages."""

    products: list[int] = field(default_factory=list)  # line number of each product
    queries: list[int] = field(default_factory=list)  # line number of each query
    keys: set[str] = field(default_factory=set)  # of products.jsonl, except those that jsonl.ProductLine declares


def read(source: Source, problems: Problems, warnings: Problems) -> tuple[Catalog, Lines]:
    """The valid part of a catalog, and its lines. The rest is added to `problems`, ignored clicks to `warnings`."""
    sha = hashlib.sha256()
    lines = Lines()
    info = jsonl.read_info(source, problems, sha)
    products, complete = _products(source, info, problems, sha, lines)
    # If a product line is invalid, its id may be unknown for that reason only: references are not checked.
    known = {product.id: product.split for product in products} if complete else None
    queries = _queries(source, known, problems, sha, lines)
    clicks = _clicks(source, known, problems, warnings, sha)
    catalog = Catalog(source.path, info, tuple(products), tuple(queries), tuple(clicks), source=source, lines_sha=sha)
    return catalog, lines


def _products(
    source: Source, info: CatalogInfo, problems: Problems, sha: jsonl.Hash, lines: Lines
) -> tuple[list[Product], bool]:
    """The products, and whether every line gave one."""
    products: list[Product] = []
    first: dict[str, int] = {}
    count, with_split, without_split = 0, 0, list[int]()
    if jsonl.PRODUCTS not in source.sizes:
        problems.add(jsonl.PRODUCTS, "not found, expected one product a line")
    for number, parsed in jsonl.read_lines(jsonl.ProductLine, source, jsonl.PRODUCTS, problems, sha):
        count += 1
        if parsed is None:
            continue
        place = f"{jsonl.PRODUCTS}:{number}"
        lines.keys.update(parsed.line.model_extra or ())
        if parsed.line.split is None and "split" not in parsed.wrong:
            without_split.append(number)
        else:
            with_split += 1
        product = _product(parsed.line, info, source, place, problems)
        if "id" in parsed.wrong:
            continue
        if product.id in first:
            problems.add(place, f'id: "{product.id}" is the id of line {first[product.id]} too, expected unique ids')
            continue
        first[product.id] = number
        products.append(product)
        lines.products.append(number)
    if not count and jsonl.PRODUCTS in source.sizes:
        problems.add(jsonl.PRODUCTS, "no product, expected one product a line")
    for number in without_split if with_split else ():
        expected = f"expected {jsonl.SPLIT_CHOICES}, or no split in any line"
        problems.add(f"{jsonl.PRODUCTS}:{number}", f"split: missing, {expected}")
    return products, 0 < count == len(products)


def _product(line: jsonl.ProductLine, info: CatalogInfo, source: Source, place: str, problems: Problems) -> Product:
    image = re.sub(r"^(\./)+", "", line.image)
    image = source.find(image) or image
    if image and (fault := _image_fault(image, source)):
        problems.add(place, f"image: {preview(line.image)} {fault}")
    if info.hide_title and not line.image:
        problems.add(place, 'image: missing, expected an image, because catalog.json has "hide_title"')
    elif not line.image and not line.title:
        problems.add(place, "title: neither title nor image, expected at least one of them")
    return Product(
        id=line.id,
        title="" if info.hide_title else line.title,
        image=image or None,
        split=line.split,
        category=line.category,
        group=line.group or None,
        attributes=jsonl.attributes(line, info, place, problems),
        dropped=line.dropped,
        sensitive=line.sensitive,
    )


def _image_fault(image: str, source: Source) -> str:
    """What is wrong with the path of an image, and what was expected; "" if nothing is."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|//|data:", image):
        kind = "a data URL" if image.lower().startswith("data:") else "a URL"
        return f"is {kind}, expected a path inside the catalog; save the image there, for example with img2dataset"
    if reason := unsafe_name(image):
        return f"{reason}, expected a path inside the catalog"
    if image not in source.sizes:
        parts = image.split("/")
        linked = any("/".join(parts[:end]) in source.links for end in range(1, len(parts) + 1))
        found = "goes through a symbolic link" if linked else "is not in the catalog"
        similar = source.similar(image)
        found += f", which has {preview(similar)}" if similar and not linked else ""
        return f"{found}, expected a file inside the catalog"
    return "is an empty file, expected a JPEG, PNG or WebP file" if source.sizes[image] == 0 else ""


def _queries(
    source: Source, known: dict[str, Split | None] | None, problems: Problems, sha: jsonl.Hash, lines: Lines
) -> list[Query]:
    queries: list[Query] = []
    first: dict[str, int] = {}
    for number, parsed in jsonl.read_lines(jsonl.QueryLine, source, jsonl.QUERIES, problems, sha):
        if parsed is None:
            continue
        line, valid = parsed.line, not parsed.wrong
        place = f"{jsonl.QUERIES}:{number}"
        unknown = [id for id in line.rel if id not in known] if known is not None else []
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            found = f"judges the unknown product {preview(unknown[0])}{more}"
            problems.add(place, f"rel: {found}, expected ids of {jsonl.PRODUCTS}")
        duplicate = "qid" not in parsed.wrong and first.setdefault(line.qid, number) != number
        if duplicate:
            problems.add(place, f'qid: "{line.qid}" is the qid of line {first[line.qid]} too, expected unique qids')
        if valid and not unknown and not duplicate:
            heldout = line.heldout_combo
            queries.append(Query(line.qid, line.text, line.split, line.rel, line.kind, line.lang, heldout))
            lines.queries.append(number)
    return queries


def _clicks(
    source: Source, known: dict[str, Split | None] | None, problems: Problems, warnings: Problems, sha: jsonl.Hash
) -> list[Click]:
    """The clicks on products of the training split, or on any if products have no split."""
    clicks: list[Click] = []
    for number, parsed in jsonl.read_lines(jsonl.ClickLine, source, jsonl.CLICKS, problems, sha):
        if parsed is None:
            continue
        line, place = parsed.line, f"{jsonl.CLICKS}:{number}"
        if known is not None and "product" not in parsed.wrong:
            found = preview(line.product)
            if line.product not in known:
                problems.add(place, f"product: found the unknown product {found}, expected an id of {jsonl.PRODUCTS}")
                continue
            if known[line.product] not in ("train", None):
                split = known[line.product]
                warnings.add(place, f'product: {found} is in the split "{split}", so training ignores the click')
                continue
        if not parsed.wrong:
            clicks.append(Click(line.query, line.product, line.lang))
    return clicks
