"""Small pictures of products for result pages: WebP, at most 320 pixels on the longest side, never enlarged."""

import bisect
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from PIL import Image

from make_jax.catalog.line_chunks import write_batch
from make_jax.catalog.reader import Catalog
from make_jax.catalog.scaled_images import decode_scaled, read_jpeg_header, reduce_to
from make_jax.catalog.schema import Product
from make_jax.errors import InputError
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.serving.index.manifest import DamagedFileError, FileEntry, checksum_problem

MAX_SIDE = 320  # pixels
_NAME = "thumbnails"
_QUALITY = 80
_PER_FILE = 4096  # products
_THREADS = 4
SCHEMA = pa.schema(
    {
        "checksum": pa.string(),  # size and CRC-32 of the original; null without one
        "thumbnail": pa.binary(),  # null without an image, or with one that cannot be decoded
    }
)


def write_thumbnails(
    catalog: Catalog, products: Sequence[Product], folder: Path, progress: Progress = no_progress
) -> list[str]:
    """Writes the pictures of `products` to `folder`, in files of 4,096; existing files are kept.

    Returns why each undecodable image of the files that were written could not be decoded; it has no picture.
    """
    problems: list[str] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnails") as pool:
        for number, start in enumerate(range(0, len(products), _PER_FILE)):
            chunk = products[start : start + _PER_FILE]
            path = folder / f"{_NAME}-{number:05d}.arrow"
            if not path.exists():
                made = list(pool.map(partial(_picture, catalog), chunk))
                columns = [[checksum for checksum, _, _ in made], [picture for _, picture, _ in made]]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
                write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA), path)
                problems += [problem for _, _, problem in made if problem]
            progress("pictures", start + len(chunk), len(products))
    return problems


class Thumbnails:
    """The pictures of a version, memory-mapped. They stay readable after the version is removed."""

    def __init__(self, version: Path, folders: Iterable[tuple[Path, int]], files: Mapping[str, FileEntry]) -> None:
        """Maps the files of `folders`, those of the version and its updates, each with its number of products."""
        self._files: list[_File] = []
        self._first: list[int] = []  # position of the first product of each file
        first = 0
        for folder, count in folders:
            names = [name for name in files if is_thumbnails(name) and (version / name).parent == folder]
            for number, name in enumerate(sorted(names)):
                self._files.append(_File(version / name, files[name]))
                self._first.append(first + number * _PER_FILE)
            first += count

    def picture(self, position: int) -> bytes | None:
        """A product's picture as a WebP file; None without one. Raises DamagedFileError."""
        picture: bytes | None = self._value("thumbnail", position)
        return picture

    def checksum(self, position: int) -> str | None:
        """Size and CRC-32 of a product's original image; None without one. Raises DamagedFileError."""
        checksum: str | None = self._value("checksum", position)
        return checksum

    def _value(self, column: str, position: int) -> Any:
        number = bisect.bisect_right(self._first, position) - 1
        return self._files[number].batch.column(column)[position - self._first[number]].as_py()


class _File:
    """A memory-mapped file of pictures, which is verified when the first of them is read."""

    def __init__(self, path: Path, expected: FileEntry) -> None:
        self._path, self._expected = path, expected
        with pa.memory_map(os.fspath(path)) as file:
            self._content = file.read_buffer()

    @functools.cached_property
    def batch(self) -> pa.RecordBatch:
        if hashlib.sha256(self._content).hexdigest() != self._expected.sha256:
            raise DamagedFileError(checksum_problem(self._path))
        return pa.ipc.open_file(self._content).get_batch(0)


def is_thumbnails(name: str) -> bool:
    """Whether a file of a version, by its path in the manifest, holds pictures."""
    return PurePosixPath(name).name.startswith(f"{_NAME}-")


def image_checksum(catalog: Catalog, product: Product) -> str | None:
    """Size and CRC-32 of a product's image; None without one."""
    if product.image is None:
        return None
    return f"{catalog.source.sizes[product.image]} {catalog.source.checksum(product.image)}"


def thumbnail(data: bytes, where: str) -> bytes:
    """The picture of an encoded image as a WebP file. Raises InputError, naming `where`, as `images.decode`."""
    header = read_jpeg_header(data)
    min_scale = 1.0 if header is None else min(1.0, MAX_SIDE / max(header.width, header.height))
    scaled = decode_scaled(data, where, header, min_scale)
    scale = min(1.0, MAX_SIDE / max(scaled.width, scaled.height))
    width, height = (max(1, round(side * scale)) for side in (scaled.width, scaled.height))
    scaled = reduce_to(scaled, scale)  # of the formats that are decoded at full size
    pixels = scaled.crop((0.0, 0.0, float(scaled.width), float(scaled.height)), width, height)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=_QUALITY)
    return out.getvalue()


def _picture(catalog: Catalog, product: Product) -> tuple[str | None, bytes | None, str]:
    """The checksum, the picture, and why there is no picture of an existing image."""
    checksum = image_checksum(catalog, product)
    if product.image is None:
        return None, None, ""
    try:
        data = catalog.image_bytes(product)
        assert data is not None
        return checksum, thumbnail(data, f"{catalog.path}: product {product.id!r}: {product.image}"), ""
    except InputError as error:
        return checksum, None, str(error)
