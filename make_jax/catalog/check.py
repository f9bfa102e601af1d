"""Checks a catalog: reads every line, decodes every image, and lists all problems and warnings."""

import contextlib
import functools
import os
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from make_jax.catalog import images, jsonl
from make_jax.catalog.plausibility import find_warnings
from make_jax.catalog.reader import Catalog, packaged_path, read
from make_jax.catalog.repetitions import NO_IMAGE
from make_jax.catalog.reporting import Problems, progress_bar
from make_jax.catalog.schema import NO_SPLIT, SPLITS
from make_jax.catalog.source import open_source
from make_jax.errors import InputError
from make_jax.files import removed_on_exit

_CHUNK = 1024  # images that are decoded, and their products read, together
_MAX_IN_MEMORY = 64 << 20  # bytes of lines


class Checked(NamedTuple):
    """What `check` found."""

    catalog: Catalog  # the valid part
    problems: Problems
    warnings: Problems


def check(path: str | Path = "") -> Checked:
    """The valid part of a catalog, and all problems and warnings with file and line. Raises InputError for a damaged
    zip.

    The lines of a large catalog are kept in memory-mapped files in the folder for temporary files ($TMPDIR), which are
    gone when the returned catalog is.
    """
    source = open_source(path or packaged_path())
    problems, warnings = Problems(source.path, max_per_kind=None), Problems(source.path, max_per_kind=None)
    size = sum(source.sizes.get(name, 0) for name in (jsonl.PRODUCTS, jsonl.QUERIES, jsonl.CLICKS))
    with contextlib.ExitStack() as stack:
        folder = None
        if size > _MAX_IN_MEMORY:  # a mapped file lives on after its name is removed
            make = functools.partial(tempfile.mkdtemp, prefix="make_jax-check-")
            folder = stack.enter_context(removed_on_exit(make))
        catalog, keys = read(source, problems, warnings, folder)
    checksums = check_images(catalog, problems)
    find_warnings(catalog, keys, checksums, warnings)
    return Checked(catalog, problems, warnings)


def check_images(catalog: Catalog, problems: Problems) -> Int64[np.ndarray, " products"]:
    """Decodes the image of every product and adds those that fail to `problems`, at the place of the product.

    Returns the CRC-32 of each image, NO_IMAGE where there is none or it fails.
    """
    reported = {place for place, text in problems.kept if text.startswith("image: ")}

    def decode(name: str) -> int | str:
        try:
            data = catalog.source.read(name, images.MAX_BYTES)
            images.decode(data, name)
        except InputError as error:
            return str(error)
        return zlib.crc32(data)

    products = catalog.products
    checksums = np.full(len(products), NO_IMAGE, np.int64)
    rows = np.flatnonzero(products.column("image").is_valid().to_numpy())
    if not len(rows):
        return checksums
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # Pillow releases the GIL while decoding
        progress_bar("images", len(rows)) as advance,
    ):
        for start in range(0, len(rows), _CHUNK):
            some = products.select(rows[start : start + _CHUNK])
            [names] = some.values("image")
            places = [f"{jsonl.PRODUCTS}:{some.line(position)}" for position in range(len(some))]
            checked = [i for i, place in enumerate(places) if place not in reported]
            for i, result in zip(checked, pool.map(decode, [names[i] for i in checked]), strict=True):
                if isinstance(result, str):
                    problems.add(places[i], f"image: {result}")
                else:
                    checksums[rows[start + i]] = result
            advance(len(some))
    return checksums


def summary(catalog: Catalog) -> str:
    """One line with the numbers of products, images, judged queries and clicks."""
    splits = ", ".join(f"{split} {len(catalog.split_products(split)):,}" for split in SPLITS)
    if without := int((catalog.products.column("split").to_numpy() == NO_SPLIT).sum()):
        splits = "without split" if without == len(catalog.products) else f"{splits}, without split {without:,}"
    with_image = len(catalog.products) - catalog.products.column("image").null_count
    return (
        f"{catalog.info.name}: {len(catalog.products):,} products ({splits}), {with_image:,} with an image, "
        f"{len(catalog.products) - with_image:,} without, {len(catalog.queries):,} judged queries, "
        f"{len(catalog.clicks):,} clicks"
    )
