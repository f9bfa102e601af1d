"""Checks a catalog: reads every line, decodes every image, and lists all problems."""

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

_CHUNK = 64  # products of one task of the thread pool


def check(path: str | Path = "") -> tuple[Catalog, Problems]:
    """The valid part of a catalog, and all problems with file and line. Raises InputError for a damaged zip."""
    source = open_source(path or packaged_path())
    problems = Problems(source.path, max_kept=None)
    catalog, numbers = read(source, problems)
    places = [f"{jsonl.PRODUCTS}:{number}" for number in numbers]
    check_images(catalog, catalog.products, places, problems)
    return catalog, problems


def check_images(catalog: Catalog, products: Sequence[Product], places: Sequence[str], problems: Problems) -> None:
    """Decodes the image of every product and adds those that fail to `problems`, at the place of the product."""

    reported = {place for place, text in problems.kept if text.startswith("image: ")}

    def fault(product: Product, place: str) -> str | None:
        if product.image is None or place in reported:
            return None
        try:
            images.decode(catalog.source.read(product.image, images.MAX_BYTES), product.image)
        except InputError as error:
            return str(error)
        return None

    pairs = list(zip(products, places, strict=True))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while decoding
        chunks = pool.map(
            lambda start: [fault(*pair) for pair in pairs[start : start + _CHUNK]], range(0, len(pairs), _CHUNK)
        )
        faults = track(itertools.chain.from_iterable(chunks), len(products), "images")
        for place, text in zip(places, faults, strict=True):
            if text is not None:
                problems.add(place, f"image: {text}")


def summary(catalog: Catalog) -> str:
    """One line with the numbers of products, images, judged queries and clicks."""
    splits = ", ".join(f"{split} {len(catalog.split_products(split)):,}" for split in SPLITS)
    with_image = sum(product.image is not None for product in catalog.products)
    return (
        f"{catalog.info.name}: {len(catalog.products):,} products ({splits}), {with_image:,} with an image, "
        f"{len(catalog.products) - with_image:,} without, {len(catalog.queries):,} judged queries, "
        f"{len(catalog.clicks):,} clicks"
    )
