"""What a model was trained on: hashes of its training products and queries, with which evaluation finds leaks [ours].

    RUN/training_data.safetensors     products, ids, queries: sorted uint64; metadata: digests of the catalogs

A run writes it once, before its first step, and not in each checkpoint: 10 million products take 160 MB. Exports have a
copy. 64 bits are exact in practice: one of 10 million evaluated products matches by chance with probability 5e-6.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from make_jax.catalog.id_index import id_hash
from make_jax.catalog.reader import Catalog
from make_jax.catalog.schema import Product, Query
from make_jax.catalog.text import normalize_query
from make_jax.errors import InputError
from make_jax.files import write_atomically

NAME = "training_data.safetensors"
VERSION = 1  # of the hashes that built catalogs keep
_ARRAYS = ("products", "ids", "queries")


class Overlap(NamedTuple):
    """How much of an evaluation was trained on."""

    products: int  # with the id and the title (without one, the image) of a training product
    same_id: int  # others with the id of a training product
    queries: int  # with the text of a training click


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """The content of the file; each array is sorted."""

    catalogs: tuple[str, ...]  # digests, in the order of training
    complete: bool  # False: the weights that training began with come from a run without a record
    products: UInt64[np.ndarray, "p"]  # of id and content
    ids: UInt64[np.ndarray, "i"]
    queries: UInt64[np.ndarray, "q"]  # of the normalized texts of clicks

    @classmethod
    def of(cls, catalog: Catalog) -> "TrainingRecord":
        """The record of training on a catalog: its products of the split train, and its clicks."""
        products = catalog.split_products("train")
        queries = itertools.chain.from_iterable(catalog.clicks.distinct("query"))
        return cls(
            (catalog.digest,),
            True,
            np.unique(_hashes(_contents(catalog, products))),
            np.unique(products.column("hash").to_numpy()),
            np.unique(_hashes(map(normalize_query, queries))),
        )

    def after(self, previous: "TrainingRecord | None") -> "TrainingRecord":
        """The record of training that began with the weights of another run; None: of one without a record."""
        if previous is None:
            return TrainingRecord(self.catalogs, False, self.products, self.ids, self.queries)
        arrays = (np.union1d(getattr(self, name), getattr(previous, name)) for name in _ARRAYS)
        return TrainingRecord((*previous.catalogs, *self.catalogs), previous.complete, *arrays)

    def overlap(self, catalog: Catalog, products: Sequence[Product], queries: Sequence[Query]) -> Overlap:
        """How many of the products and queries of an evaluation were trained on."""
        same = _contains(self.products, _hashes(_contents(catalog, products)))
        same_id = _contains(self.ids, _hashes(product.id for product in products)) & ~same
        clicked = _contains(self.queries, _hashes(normalize_query(query.text) for query in queries))
        return Overlap(int(same.sum()), int(same_id.sum()), int(clicked.sum()))

    def to_bytes(self) -> bytes:
        """The content of the file."""
        metadata = {"catalogs": json.dumps(self.catalogs), "complete": json.dumps(self.complete)}
        return save({name: getattr(self, name) for name in _ARRAYS}, metadata)


class TrainingData:
    """What is known of the training data of a model in a folder; the record is read on first use."""

    def __init__(self, folder: Path, catalog_digest: object = None) -> None:
        """`catalog_digest` is that of the catalog it was trained on, for a folder without a record."""
        self._folder, self._catalog_digest = folder, catalog_digest

    @functools.cached_property
    def record(self) -> TrainingRecord | None:
        """The record; None without one. Raises InputError for a damaged one."""
        return read_record(self._folder)

    @property
    def catalog_digest(self) -> str | None:
        """The digest of the catalog of the latest training; None if unknown."""
        if self.record is not None:
            return self.record.catalogs[-1]
        return self._catalog_digest if isinstance(self._catalog_digest, str) else None  # an export's JSON may have any


def read_record(folder: Path) -> TrainingRecord | None:
    """The record in the folder of a run or an export; None without one. Raises InputError for a damaged one."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in _ARRAYS}
        catalogs, complete = (json.loads(metadata[name]) for name in ("catalogs", "complete"))
        if any(array.dtype != np.uint64 or array.ndim != 1 for array in arrays.values()) or not catalogs:
            raise ValueError
        return TrainingRecord(tuple(map(str, catalogs)), bool(complete), **arrays)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        text = f"{path}: damaged, expected the hashes of training products that train.py wrote; delete the file"
        raise InputError(f"{text}, and evaluation will not state what the model was trained on") from None


def write_record(
    run: Path, catalog: Catalog, init_from: Mapping[str, Any] | None, *, resumed: bool, built: Path | None = None
) -> None:
    """Writes the record of a run that trains on `catalog`; a resumed run keeps an existing one.

    Args:
        run: the run's folder.
        catalog: what the run trains on.
        init_from: that of the checkpoint's metadata: the checkpoint of another run that the weights come from, or None.
        resumed: whether the run goes on.
        built: the folder of the built catalog, which keeps the record of the catalog for later runs; None: it is not
            kept.
    """
    if resumed and (run / NAME).is_file():
        return
    kept = None if built is None else _keep_record(catalog, built)
    if kept is not None and init_from is None:
        write_atomically(run / NAME, np.memmap(kept / NAME, np.uint8, "r").data)  # mapped, not in memory
        return
    record = (None if kept is None else read_record(kept)) or TrainingRecord.of(catalog)
    if init_from is not None:
        checkpoint = Path(str(init_from.get("checkpoint", "")))
        source = checkpoint.parents[2] if len(checkpoint.parents) > 2 else None  # RUN/checkpoints/KIND/STEP
        record = record.after(None if source is None else read_record(source))
    write_atomically(run / NAME, record.to_bytes())


def _keep_record(catalog: Catalog, built: Path) -> Path:
    """The folder, in that of the built catalog, with the record of the catalog; written if it is missing."""
    key = hashlib.sha256(json.dumps([VERSION, catalog.digest, catalog.derivation]).encode()).hexdigest()[:16]
    folder = built / f"record-{key}"
    if not (folder / NAME).is_file():
        write_atomically(folder / NAME, TrainingRecord.of(catalog).to_bytes())
    return folder


def copy_record(source: Path, target: Path) -> None:
    """Copies the record of a run or an export to another folder, if there is one."""
    if (source / NAME).is_file():
        (target / NAME).write_bytes((source / NAME).read_bytes())


def _contents(catalog: Catalog, products: Iterable[Product]) -> Iterator[str]:
    """The id and the title of each product, or the checksum of its image where no title is read."""
    from make_jax.catalog.columns import Records  # pyarrow is slow to import

    columns = ("id", "title", "image")
    rows: Iterable[tuple[str, str, str | None]] = ((p.id, p.title, p.image) for p in products)
    if isinstance(products, Records):
        parts = zip(*(products.values(name) for name in columns), strict=True)
        rows = itertools.chain.from_iterable(zip(*part, strict=True) for part in parts)
    for id, title, image in rows:
        if title:
            yield f"{id}\0{normalize_query(title)}"
        else:
            yield f"{id}\0\0{'' if image is None else catalog.source.checksum(image)}"


def _hashes(texts: Iterable[str]) -> UInt64[np.ndarray, "n"]:
    return np.fromiter(map(id_hash, texts), np.uint64)


def _contains(ordered: UInt64[np.ndarray, "n"], values: UInt64[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
    """Which values are in the sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[places] == values)
