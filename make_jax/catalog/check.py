"""Checks a catalog: reads every line, decodes every image, and lists all problems and warnings."""

import itertools
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from make_jax.catalog import images, jsonl
from make_jax.catalog.plausibility import find_warnings
from make_jax.catalog.reader import Catalog, Lines, packaged_path, read
from make_jax.catalog.reporting import Problems, track
from make_jax.catalog.schema import SPLITS, Product
from make_jax.catalog.source import open_source
from make_jax.errors import InputError

_CHUNK = 64  # products of one task of the thread pool


class Checked(NamedTuple):
    """What `check` found."""

    catalog: Catalog  # the valid part
    problems: Problems
    warnings: Problems


def check(path: str | Path = "") -> Checked:
    """The valid part of a catalog, and all problems and warnings with file and line. Raises InputError for a damaged
    zip."""
    source = open_source(path or packaged_path())
    problems, warnings = Problems(source.path, max_per_kind=None), Problems(source.path, max_per_kind=None)
    catalog, keys = read(source, problems, warnings)
    lines = Lines(catalog.products.column("line").to_pylist(), catalog.queries.column("line").to_pylist(), keys)
    places = [f"{jsonl.PRODUCTS}:{number}" for number in lines.products]
    checksums = check_images(catalog, catalog.products, places, problems)
    find_warnings(catalog, lines, checksums, warnings)
    return Checked(catalog, problems, warnings)


def check_images(
    catalog: Catalog, products: Sequence[Product], places: Sequence[str], problems: Problems
) -> list[int | None]:
    """Decodes the image of every product and adds those that fail to `problems`, at the place of the product.

    Returns the CRC-32 of each image, None where there is none or it fails.
    """

    reported = {place for place, text in problems.kept if text.startswith("image: ")}

    def decode(product: Product, place: str) -> int | str | None:
        if product.image is None or place in reported:
            return None
        try:
            data = catalog.source.read(product.image, images.MAX_BYTES)
            images.decode(data, product.image)
        except InputError as error:
            return str(error)
        return zlib.crc32(data)

    pairs = list(zip(products, places, strict=True))
    checksums: list[int | None] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while decoding
        chunks = pool.map(
            lambda start: [decode(*pair) for pair in pairs[start : start + _CHUNK]], range(0, len(pairs), _CHUNK)
        )
        results = track(itertools.chain.from_iterable(chunks), len(products), "images")
        for place, result in zip(places, results, strict=True):
            if isinstance(result, str):
                problems.add(place, f"image: {result}")
            checksums.append(None if isinstance(result, str) else result)
    return checksums


def summary(catalog: Catalog) -> str:
    """One line with the numbers of products, images, judged queries and clicks."""
    splits = ", ".join(f"{split} {len(catalog.split_products(split)):,}" for split in SPLITS)
    if without := sum(product.split is None for product in catalog.products):
        splits = "without split" if without == len(catalog.products) else f"{splits}, without split {without:,}"
    with_image = sum(product.image is not None for product in catalog.products)
    return (
        f"{catalog.info.name}: {len(catalog.products):,} products ({splits}), {with_image:,} with an image, "
        f"{len(catalog.products) - with_image:,} without, {len(catalog.queries):,} judged queries, "
        f"{len(catalog.clicks):,} clicks"
    )
