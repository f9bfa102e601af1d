"""Writes and reads products as TFDS shards in ArrayRecord, without TensorFlow."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]  # slow: import this module inside functions

from make_jax.catalog.schema import Split

SHARD_BYTES = 128 << 20  # approximate size of one shard


class ProductRecord(TypedDict):
    """The stored record of one product."""

    id: str
    title: str  # "" if absent
    image: bytes  # encoded as in the catalog; b"" if absent


def write(folder: Path, splits: Mapping[Split, Iterable[ProductRecord]], per_shard: int) -> None:
    """Writes the records of each split, in order, as a TFDS dataset with shards of `per_shard` records.

    Uses TFDS's SequentialWriter: GeneratorBasedBuilder keeps a split in memory and needs TensorFlow above 1 GB. Images
    are plain bytes because TFDS's image feature would re-encode them.
    """
    folder.mkdir()
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "title": tfds.features.Text(),
            "image": tfds.features.Scalar(dtype=np.object_),
        }
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="products", version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, disable_shuffling=True)
    writer = tfds.core.SequentialWriter(info, per_shard, file_format="array_record")
    writer.initialize_splits(list(splits))
    for split, records in splits.items():
        for chunk in _chunks(records, 1000):
            writer.add_examples({split: chunk})
        writer.close_splits([split])


def _chunks(records: Iterable[ProductRecord], size: int) -> Iterable[list[ProductRecord]]:
    chunk: list[ProductRecord] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class ProductSource(Sequence[ProductRecord]):
    """The products of one split as a sequence in catalog order.

    Thread-safe. Pickles as its path; the unpickled copy opens the shards again.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder
        self._split = split
        builder = tfds.builder_from_directory(folder)
        self._records = builder.as_data_source(split=split)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: Any) -> Any:
        at = operator.index(position)
        if not 0 <= at < len(self):
            raise IndexError(f"position {at} of {len(self)} products")
        return _record(self._records[at])

    def __getitems__(self, positions: Sequence[int]) -> list[ProductRecord]:
        return [_record(values) for values in self._records.__getitems__(positions)]

    def __reduce__(self) -> tuple[Any, ...]:
        return ProductSource, (self._folder, self._split)

    def __repr__(self) -> str:
        return f"ProductSource({self._folder.name!r}, {self._split!r})"


def _record(values: dict[str, Any]) -> ProductRecord:
    return {
        "id": values["id"].decode("utf-8"),
        "title": values["title"].decode("utf-8"),
        "image": values["image"],
    }
