"""The columns of a catalog as files that every process maps into memory: written once, found by the catalog's files.

columns/products-00000.arrow ...   one Arrow file a chunk of lines, see line_chunks.py
        clicked.npy                position of each click's product
        columns.json               digest, and the stamps of its sources; written last
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from make_jax.catalog import cache as cached
from make_jax.catalog import jsonl
from make_jax.catalog.executors import Executor
from make_jax.catalog.reader import Catalog, read_valid
from make_jax.catalog.reporting import Problems
from make_jax.catalog.schema import Click, Product, Query
from make_jax.catalog.source import Source
from make_jax.files import write_atomically

if TYPE_CHECKING:
    from make_jax.catalog.columns import Records

COLUMNS = "columns"
INFO = "columns.json"
_CLICKED = "clicked.npy"
FORMAT = 2  # of the files; other formats are written anew
_MAX_STAMPS = 16  # sources of the same content that are remembered


def write_columns(source: Source, folder: Path, executor: Executor) -> Catalog:
    """The catalog, mapped from `folder`/columns, which is completed first; continues where a call was interrupted.

    Raises InputError that lists the problems of the catalog's lines.
    """
    columns = folder / COLUMNS
    if catalog := open_columns(source, columns):
        return catalog
    columns.mkdir(parents=True, exist_ok=True)
    catalog = read_valid(source, columns, executor)
    _remove_ignored(columns, catalog.clicks)
    np.save(columns / _CLICKED, catalog.clicked)
    info = {"format": FORMAT, "stamps": [source.stamp], "digest": catalog.digest}
    write_atomically(columns / INFO, json.dumps(info))
    opened = open_columns(source, columns)
    assert opened is not None
    return opened


def _remove_ignored(columns: Path, clicks: "Records[Click]") -> None:
    """Removes the clicks that training ignores, which no parser of single lines can know, from the files of `columns`.

    It may be interrupted: the next call finds the rest.
    """
    from make_jax.catalog.columns import filter_rows
    from make_jax.catalog.line_chunks import chunk_paths, open_batch, write_batch

    lines = clicks.column("line").to_numpy()  # ascending
    for path in chunk_paths(columns, jsonl.CLICKS):
        batch = open_batch(path)
        own = batch.column("line").to_numpy()
        kept = np.searchsorted(lines, own, side="right") > np.searchsorted(lines, own)
        if not kept.all():
            write_batch(filter_rows(batch, kept), path)


def find_columns(source: Source, cache: str = "") -> Catalog | None:
    """The catalog, mapped from its build in `cache`; None if there is none of the present files."""
    cached.pull_build_of(cache, source.stamp)
    root = cached.cache_root(cache)
    if not root.is_dir():
        return None
    for folder in cached.built_folders(root):
        if catalog := open_columns(source, folder / COLUMNS):
            return catalog
    return None


def add_stamp(source: Source, folder: Path) -> None:
    """Notes in complete columns that `source` has the same content."""
    path = folder / COLUMNS / INFO
    stored = json.loads(path.read_text(encoding="utf-8"))
    if source.stamp not in stored["stamps"]:
        stored["stamps"] = [*stored["stamps"], source.stamp][-_MAX_STAMPS:]
        write_atomically(path, json.dumps(stored))


def open_columns(source: Source, columns: Path) -> Catalog | None:
    """The catalog of complete columns; None if they are incomplete, of other files, or of another format."""
    try:
        stored: dict[str, Any] = json.loads((columns / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if stored.get("format") != FORMAT or source.stamp not in stored["stamps"]:
        return None
    return Catalog(
        source.path,
        jsonl.read_info(source, Problems(source.path)),
        *open_records(columns),
        source,
        known_digest=stored["digest"],
        columns=columns,
    )


def open_records(
    columns: Path,
) -> tuple["Records[Product]", "Records[Query]", "Records[Click]", Int32[np.ndarray, " clicks"]]:
    """Products, judged queries, clicks, and the position of each click's product, of complete columns."""
    from make_jax.catalog.columns import PRODUCT_SCHEMA, QUERY_SCHEMA, product_records, query_records
    from make_jax.catalog.line_chunks import open_file

    return (
        product_records(open_file(columns, jsonl.PRODUCTS, PRODUCT_SCHEMA)),
        query_records(open_file(columns, jsonl.QUERIES, QUERY_SCHEMA)),
        *open_clicks(columns),
    )


def open_clicks(folder: Path) -> tuple["Records[Click]", Int32[np.ndarray, " clicks"]]:
    """Clicks, and the position of each one's product."""
    from make_jax.catalog.columns import CLICK_SCHEMA, click_records
    from make_jax.catalog.line_chunks import open_file

    return click_records(open_file(folder, jsonl.CLICKS, CLICK_SCHEMA)), np.load(folder / _CLICKED, mmap_mode="r")


def write_clicks(folder: Path, catalog: Catalog) -> None:
    """Writes the clicks of a catalog for `open_clicks`."""
    from make_jax.catalog.line_chunks import write_file

    write_file(folder, jsonl.CLICKS, catalog.clicks.table)
    np.save(folder / _CLICKED, catalog.clicked)
