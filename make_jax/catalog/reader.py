"""Reads a catalog from a folder or a .zip: `Catalog.load(path)`. The format is described in docs/catalog.md."""

import functools
import hashlib
import importlib.resources
from dataclasses import dataclass, field
from pathlib import Path

from make_jax.catalog import jsonl
from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.problems import Problems
from make_jax.catalog.schema import CatalogInfo, Click, Product, Query, Split
from make_jax.catalog.source import Source, open_source
from make_jax.errors import InputError

PACKAGED = "openclipart.zip"


@dataclass(frozen=True, eq=False)
class Catalog:
    """What a shop has: products, judged queries, clicks. Read once, never changed; images are read when asked for.

    May be used from several threads and pickled into other processes.
    """

    path: Path  # the folder or .zip it was read from
    info: CatalogInfo
    products: tuple[Product, ...]  # in the order of the file, as are the others
    queries: tuple[Query, ...]
    clicks: tuple[Click, ...]
    source: Source = field(repr=False)

    @classmethod
    def load(cls, path: str | Path = "") -> "Catalog":
        """The catalog at `path`, a folder or a .zip; "" is the one inside the package.

        Raises InputError when there is none, when it is damaged or unsafe, or with all that is wrong with its lines.
        """
        source = open_source(path or packaged_path())
        problems = Problems(source.path)
        catalog, _ = read(source, problems)
        problems.raise_if_any()
        return catalog

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Product id -> position in `products`."""
        return {product.id: position for position, product in enumerate(self.products)}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that the catalog says and of its pictures' sizes and checksums.

        It changes when a line or a picture does, and is the same for a folder and a .zip of it.
        """
        sha = hashlib.sha256()
        for name in (jsonl.INFO, jsonl.PRODUCTS, jsonl.QUERIES, jsonl.CLICKS):
            if name in self.source.sizes:
                sha.update(f"{name} {self.source.sizes[name]}\n".encode())
                with self.source.open(name) as file:
                    while block := file.read(1 << 20):
                        sha.update(block)
        for product in self.products:
            if product.image is not None:
                size, checksum = self.source.sizes[product.image], self.source.checksum(product.image)
                sha.update(f"{product.image} {size} {checksum}\n".encode())
        return sha.hexdigest()

    def image_bytes(self, product: Product) -> bytes | None:
        """The encoded image of a product; None when it has none. InputError when it cannot be read."""
        return None if product.image is None else self.source.read(product.image, MAX_BYTES)

    def split_products(self, split: Split) -> list[Product]:
        """The products of a split, in the order of the file."""
        return [product for product in self.products if product.split == split]

    def split_queries(self, split: Split) -> list[Query]:
        """The judged queries of a split, in the order of the file."""
        return [query for query in self.queries if query.split == split]


def packaged_path() -> Path:
    """Where the catalog inside the package lies. InputError when the installation has none."""
    path = Path(str(importlib.resources.files("make_jax.catalog").joinpath(PACKAGED)))
    if not path.exists():
        raise InputError(f"{path}: not found, expected the packaged catalog; reinstall make_jax or set data.catalog")
    return path


def read(source: Source, problems: Problems) -> tuple[Catalog, list[int]]:
    """The catalog, as much of it as is sound, and the line number of each product. `problems` receives the rest."""
    info = jsonl.read_info(source, problems)
    products: list[Product] = []
    numbers: list[int] = []
    index: dict[str, int] = {}
    if jsonl.PRODUCTS not in source.sizes:
        problems.add(jsonl.PRODUCTS, "not found, expected one product a line")
    found = 0
    for number, row in jsonl.rows(source, jsonl.PRODUCTS, problems):
        found += 1
        if row is None:
            continue
        product = jsonl.product(row, info, source)
        if product.id in index:
            row.wrong("id", f'"{product.id}" stands in line {numbers[index[product.id]]} too', "each id once")
        elif product.id:
            index[product.id] = len(products)
            products.append(product)
            numbers.append(number)
    if not found and jsonl.PRODUCTS in source.sizes:
        problems.add(jsonl.PRODUCTS, "no product, expected one product a line")
    whole = 0 < found == len(products)  # else an id may be unknown because its own line is broken
    queries = _queries(source, problems, index if whole else None)
    clicks = _clicks(source, problems, products, index if whole else None)
    catalog = Catalog(source.path, info, tuple(products), tuple(queries), tuple(clicks), source)
    return catalog, numbers


def _queries(source: Source, problems: Problems, known: dict[str, int] | None) -> list[Query]:
    queries: list[Query] = []
    first: dict[str, int] = {}
    for number, row in jsonl.rows(source, jsonl.QUERIES, problems):
        if row is None:
            continue
        query = jsonl.query(row, known)
        if query.id in first:
            row.wrong("qid", f'"{query.id}" stands in line {first[query.id]} too', "each qid once")
        elif query.id:
            first[query.id] = number
        if row.sound:
            queries.append(query)
    return queries


def _clicks(source: Source, problems: Problems, products: list[Product], known: dict[str, int] | None) -> list[Click]:
    clicks: list[Click] = []
    for _, row in jsonl.rows(source, jsonl.CLICKS, problems):
        if row is None:
            continue
        click = jsonl.click(row, products, known)
        if row.sound:
            clicks.append(click)
    return clicks
