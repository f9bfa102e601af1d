"""Repeated products, pictures and groups, found in columns: about 24 bytes a product, whatever the number."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int32, Int64

from make_jax.catalog import jsonl
from make_jax.catalog.reader import Catalog
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import split_name

if TYPE_CHECKING:  # slow to import
    import pyarrow as pa  # type: ignore[import-untyped]

NO_IMAGE = -1  # as a checksum: a product without a readable image
_CONTENT = ("title", "category", "attributes")  # of a product, with the checksum of its image


def add_repeated_products(catalog: Catalog, checksums: Int64[np.ndarray, " products"], warnings: Problems) -> None:
    """Adds products that are equal except for their id, and pictures that several products have, to `warnings`.

    `checksums` are those of the images, NO_IMAGE for a product without a readable one. Products whose image cannot be
    read are left out, and so are variants of one group.
    """
    products = catalog.products
    has_image = products.column("image").is_valid().to_numpy()
    readable = checksums != NO_IMAGE
    first = _first_equal(_content_hashes(catalog, checksums), np.logical_not(has_image) | readable)
    first_picture = _first_equal(_picture_hashes(catalog, checksums), readable)
    positions = np.arange(len(first))
    for at in np.flatnonzero((first != positions) | (first_picture != positions)).tolist():
        product, same, pictured = products[at], int(first[at]), int(first_picture[at])
        place = f"{jsonl.PRODUCTS}:{products.line(at)}"
        if same != at and not _variants(product.group, products[same].group):
            text = f"the same product as line {products.line(same)} under another id"
            split = products[same].split
            text += f', there in the split "{split}", here in "{product.split}"' if split != product.split else ""
            warnings.add(place, text)
        elif pictured != at and not _variants(product.group, products[pictured].group):
            warnings.add(place, f"image: the same picture as line {products.line(pictured)}")


def _variants(group: str | None, other: str | None) -> bool:
    return group is not None and group == other


def _first_equal(hashes: Int64[np.ndarray, " n"], counted: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """For each of the `counted` positions the first one with its hash; others are their own."""
    first = np.arange(len(hashes))
    rows = np.flatnonzero(counted)
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    ordered = hashes[rows]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(rows) else np.zeros(0, bool)
    first[rows] = rows[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first


def _content_hashes(catalog: Catalog, checksums: Int64[np.ndarray, " products"]) -> Int64[np.ndarray, " products"]:
    """A hash of each product without its id, the same within a process."""
    hashes, start = np.zeros(len(catalog.products), np.int64), 0
    for columns in zip(*(catalog.products.values(name) for name in _CONTENT), strict=True):
        images = checksums[start : start + len(columns[0])].tolist()
        for title, category, attributes, image in zip(*columns, images, strict=True):
            hashes[start] = hash((title, tuple(category), attributes, image))
            start += 1
    return hashes


def _picture_hashes(catalog: Catalog, checksums: Int64[np.ndarray, " products"]) -> Int64[np.ndarray, " products"]:
    """A hash of size and checksum of each readable image."""
    hashes, names = checksums.copy(), catalog.products.column("image")
    for at in np.flatnonzero(checksums != NO_IMAGE).tolist():
        hashes[at] |= (catalog.source.sizes[names[at].as_py()] & 0x7FFFFFFF) << 32
    return hashes


def add_divided_groups(catalog: Catalog, warnings: Problems) -> None:
    """Adds products whose group has its first product in another split to `warnings`."""
    groups = catalog.products.column("group")
    rows = np.flatnonzero(groups.is_valid().to_numpy())
    if not len(rows):
        return
    codes = _codes(groups.take(rows))
    splits = catalog.products.column("split").to_numpy()[rows]
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    for at in np.flatnonzero(splits != splits[first[inverse]]).tolist():
        row = int(rows[at])
        one, other = (split_name(int(splits[i])) for i in (first[inverse[at]], at))
        found = f'group: {preview(groups[row].as_py())} is in the splits "{one}" and "{other}"'
        place = f"{jsonl.PRODUCTS}:{catalog.products.line(row)}"
        warnings.add(place, f"{found}; variants belong in one")


def _codes(texts: "pa.ChunkedArray") -> Int32[np.ndarray, " n"]:
    """A number of each text, equal for equal texts."""
    encoded = texts.dictionary_encode().unify_dictionaries()
    return np.concatenate([np.asarray(chunk.indices) for chunk in encoded.chunks])
