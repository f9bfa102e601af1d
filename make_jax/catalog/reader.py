"""Reads a catalog from a folder or a .zip: `Catalog.load(path)`. docs/catalog.md describes the format."""

import functools
import hashlib
import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from make_jax.catalog import jsonl
from make_jax.catalog.executors import Executor, open_executor
from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.reporting import Problems
from make_jax.catalog.schema import CatalogInfo, Click, Product, Query, Split
from make_jax.catalog.source import Source, open_source
from make_jax.errors import InputError

if TYPE_CHECKING:  # pyarrow is slow to import
    from make_jax.catalog.columns import Records
    from make_jax.catalog.id_index import IdIndex

PACKAGED = "openclipart.zip"
MAX_SAMPLE = 500_000  # products of a training sample


@dataclass(frozen=True, eq=False)
class Catalog:
    """Products, judged queries and clicks. Immutable; records are made and images read on demand.

    Thread-safe and picklable.
    """

    path: Path  # folder or .zip
    info: CatalogInfo
    products: "Records[Product]"  # all three in file order
    queries: "Records[Query]"
    clicks: "Records[Click]"
    clicked: Int32[np.ndarray, " clicks"] = field(repr=False)  # position of each click's product
    source: Source = field(repr=False)
    derivation: str = ""  # how the clicks were made if they are not those of the file (derived_queries.py)
    lines_sha: jsonl.Hash | None = field(default=None, repr=False)  # of the JSON files, updated as they were read
    known_digest: str | None = field(default=None, repr=False)  # of memory-mapped columns
    columns: Path | None = None  # folder of memory-mapped columns; None if they are in memory

    @classmethod
    def load(cls, path: str | Path = "", cache: str = "") -> "Catalog":
        """Loads the catalog at `path`, a folder or a .zip; "" is the packaged catalog.

        A catalog that has been built in `cache` (see `build`), and whose files have the sizes and times of that time,
        is memory-mapped from there. Raises InputError if it is missing, damaged or unsafe; problems of its lines are
        reported together.
        """
        from make_jax.catalog.stored_columns import find_columns

        source = open_source(path or packaged_path())
        return find_columns(source, cache) or read_valid(source)

    @functools.cached_property
    def index(self) -> "IdIndex":
        """Product id -> position in `products`."""
        from make_jax.catalog.id_index import IdIndex

        return IdIndex(self.products.column("id"), self.products.column("hash").to_numpy())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the catalog's JSON files and of the sizes and checksums of its images.

        It changes when a line or an image does, and is the same for a folder and a .zip of it.
        """
        if self.known_digest is not None:
            return self.known_digest
        if self.lines_sha is None:  # a pickled copy
            return Catalog.load(self.path).digest
        sha = self.lines_sha.copy()
        for image in self.products.column("image"):
            if name := image.as_py():
                size, checksum = self.source.sizes[name], self.source.checksum(name)
                sha.update(f"{name} {size} {checksum}\n".encode())
        return sha.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"lines_sha": None}  # hash objects cannot be pickled

    def training_sample(self) -> tuple["Records[Product]", "Records[Click]"]:
        """The training products and the clicks on them; every n-th product of more than MAX_SAMPLE.

        For what is learned from counts and would otherwise hold a large catalog in memory: tokenizer and keywords.
        """
        products = self.split_products("train")
        if len(products) <= MAX_SAMPLE:
            return products, self.clicks
        products = products[:: -(-len(products) // MAX_SAMPLE)]
        assert products.rows is not None
        return products, self.clicks.select(np.flatnonzero(np.isin(self.clicked, products.rows)))

    def with_clicks(self, clicks: Iterable[Click], derivation: str, *, add: bool = False) -> "Catalog":
        """The catalog with other clicks, of known products, instead of its own or, with `add`, after them."""
        import pyarrow as pa  # type: ignore[import-untyped]

        from make_jax.catalog.columns import click_records, click_table

        table = click_table(clicks)
        positions = [self.index.positions(batch.column("product")) for batch in table.to_batches()]
        clicked = np.concatenate([np.zeros(0, np.int32), *positions]).astype(np.int32)
        if add:
            table = pa.concat_tables([self.clicks.table, table])
            clicked = np.concatenate([self.clicked, clicked])
        return replace(self, clicks=click_records(table), clicked=clicked, derivation=derivation)

    def image_bytes(self, product: Product) -> bytes | None:
        """The encoded image of a product, None without one. Raises InputError if it cannot be read."""
        return None if product.image is None else self.source.read(product.image, MAX_BYTES)

    def split_products(self, split: Split) -> "Records[Product]":
        """The products of a split, in file order."""
        return self.products.of_split(split)

    def split_queries(self, split: Split) -> "Records[Query]":
        """The judged queries of a split, in file order."""
        return self.queries.of_split(split)

    def training_texts(self) -> list[str]:
        """Titles and clicked queries of the training sample: what a tokenizer is trained on."""
        products, clicks = self.training_sample()
        return [
            text for column in (products.values("title"), clicks.values("query")) for texts in column for text in texts
        ]


def packaged_path() -> Path:
    """Path of the catalog inside the package. Raises InputError if the installation lacks it."""
    path = Path(str(importlib.resources.files("make_jax.catalog").joinpath(PACKAGED)))
    if not path.exists():
        raise InputError(f"{path}: not found, expected the packaged catalog; reinstall make_jax or set data.catalog")
    return path


def read_valid(source: Source, folder: Path | None = None, executor: Executor | None = None) -> Catalog:
    """The catalog, see `read`. Raises InputError that lists the problems of its lines."""
    problems = Problems(source.path)
    catalog, _ = read(source, problems, Problems(source.path), folder, executor)
    problems.raise_if_any()
    return catalog


def read(
    source: Source, problems: Problems, warnings: Problems, folder: Path | None = None, executor: Executor | None = None
) -> tuple[Catalog, set[str]]:
    """The valid part of a catalog, and the keys of its products that the format does not declare.

    Args:
        source: the catalog's files.
        problems: receives what is wrong with the rest, of each file in the order of its lines.
        warnings: receives the clicks that training ignores.
        folder: keeps the columns as memory-mapped files, see `parse_file`; None keeps them in memory.
        executor: workers that parse large files; None is a local process a core.
    """
    from make_jax.catalog.columns import click_records, product_records, query_records
    from make_jax.catalog.line_chunks import parse_file
    from make_jax.catalog.line_parsers import ClickParser, ProductParser, QueryParser
    from make_jax.catalog.references import unique_products, valid_clicks, valid_queries

    if executor is None:
        with open_executor() as executor:
            return read(source, problems, warnings, folder, executor)
    sha = hashlib.sha256()
    info = jsonl.read_info(source, problems, sha)
    parse = functools.partial(
        parse_file,
        source,
        sha=sha,
        max_per_kind=problems.max_per_kind,
        folder=folder,
        executor=executor,
    )
    if jsonl.PRODUCTS not in source.sizes:
        problems.add(jsonl.PRODUCTS, "not found, expected one product a line")
    parsed = parse(ProductParser(info, source))
    products, index = unique_products(parsed, problems)
    if not parsed.lines and jsonl.PRODUCTS in source.sizes:
        problems.add(jsonl.PRODUCTS, "no product, expected one product a line")
    # If a product line is invalid, its id may be unknown for that reason only: references are not checked.
    known = index if 0 < parsed.lines == len(products) else None
    queries = valid_queries(parse(QueryParser(source.path)), known, problems)
    splits = products.column("split").to_numpy()
    clicks, clicked = valid_clicks(parse(ClickParser(source.path)), known, splits, problems, warnings)
    catalog = Catalog(
        source.path,
        info,
        product_records(products),
        query_records(queries),
        click_records(clicks),
        clicked,
        source,
        lines_sha=sha,
    )
    return catalog, parsed.keys
