"""Reads a whole catalog, every picture decoded, and lists everything that is wrong with it."""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_jax.catalog import images, jsonl
from make_jax.catalog.reader import Catalog, packaged_path, read
from make_jax.catalog.reporting import Problems, track
from make_jax.catalog.schema import SPLITS, Product
from make_jax.catalog.source import open_source
from make_jax.errors import InputError

_PART = 64  # products that one thread takes at a time


def check(path: str | Path = "") -> tuple[Catalog, Problems]:
    """The catalog, as much of it as is sound, and every problem with file and line. InputError for a damaged zip."""
    source = open_source(path or packaged_path())
    problems = Problems(source.path, max_kept=None)
    catalog, numbers = read(source, problems)
    places = [f"{jsonl.PRODUCTS}:{number}" for number in numbers]
    check_images(catalog, catalog.products, places, problems)
    return catalog, problems


def check_images(catalog: Catalog, products: Sequence[Product], places: Sequence[str], problems: Problems) -> None:
    """Decodes the picture of every product; `problems` receives those that fail, each at its product's place."""

    def fault(product: Product) -> str | None:
        if product.image is None or product.image not in catalog.source.sizes:
            return None  # a missing file is a problem of its line
        try:
            images.decode(catalog.source.read(product.image, images.MAX_BYTES), product.image)
        except InputError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
        parts = pool.map(
            lambda start: [fault(p) for p in products[start : start + _PART]], range(0, len(products), _PART)
        )
        faults = track(itertools.chain.from_iterable(parts), len(products), "pictures")
        for place, text in zip(places, faults, strict=True):
            if text is not None:
                problems.add(place, f"image: {text}")


def counts(catalog: Catalog) -> str:
    """One line: how much of everything the catalog holds."""
    splits = ", ".join(f"{split} {len(catalog.split_products(split)):,}" for split in SPLITS)
    pictures = sum(product.image is not None for product in catalog.products)
    return (
        f"{catalog.info.name}: {len(catalog.products):,} products ({splits}), {pictures:,} with an image, "
        f"{len(catalog.queries):,} judged queries, {len(catalog.clicks):,} clicks"
    )
