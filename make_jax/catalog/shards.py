"""Writes and reads products as TFDS shards in ArrayRecord, without TensorFlow."""

import operator
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import tensorflow_datasets as tfds  # type: ignore[import-untyped]  # slow: import this module inside functions

from make_jax.catalog.cache import UNWRITABLE
from make_jax.catalog.schema import Split
from make_jax.files import PARTIAL

SHARD_BYTES = 128 << 20  # approximate size of one shard
SHARD_PRODUCTS = 50_000  # at most in one shard: products without pictures are small, but take as long to write
_NAME = "products"  # of the dataset


class ProductRecord(TypedDict):
    """The stored record of one product."""

    id: str
    title: str  # "" if absent
    image: bytes  # encoded as in the catalog; b"" if absent


def write_shard(folder: Path, split: Split, number: int, records: Iterable[ProductRecord]) -> None:
    """Writes one shard of a split, in order and atomically.

    Shards may be written in any order by any process, also one by two at the same time: a worker whose parent was
    killed may still write when the next build has begun.
    """
    features = _features()
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    path = _template(folder, split).sharded_filepath(shard_index=number, num_shards=None)
    partial = Path(path).with_name(f"{PARTIAL}{uuid.uuid4().hex}-{Path(path).name}")
    examples = (  # `serialize_example` orders the features of a record differently in every process
        (0, serializer.get_tf_example(features.encode_example(record)).SerializeToString(deterministic=True))
        for record in records
    )
    try:
        tfds.core.file_adapters.ArrayRecordFileAdapter.write_examples(partial, examples)
    except RuntimeError as error:  # how ArrayRecord's writer reports a full disk
        for code in UNWRITABLE:
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from None
        raise
    partial.rename(path)


def has_shard(folder: Path, split: Split, number: int) -> bool:
    """Whether a shard has been written."""
    return Path(_template(folder, split).sharded_filepath(shard_index=number, num_shards=None)).exists()


def write_info(folder: Path, lengths: Mapping[Split, Sequence[int]]) -> None:
    """Completes a folder of shards to a TFDS dataset; `lengths` are the records of each shard."""
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=_NAME, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(builder=identity, features=_features(), disable_shuffling=True)
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    splits = []
    for split, of_split in lengths.items():
        template = _template(folder, split)
        paths = [Path(template.sharded_filepath(shard_index=i, num_shards=None)) for i in range(len(of_split))]
        size = sum(path.stat().st_size for path in paths)
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=list(of_split), num_bytes=size, filename_template=template)
        )
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(str(folder))


def _features() -> Any:
    """Images are plain bytes, because TFDS's image feature would encode them again."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "title": tfds.features.Text(),
            "image": tfds.features.Scalar(dtype=np.object_),
        }
    )


def _template(folder: Path, split: Split) -> Any:
    """The names of a split's shards, without their number, which TFDS's writers know only at the end."""
    return tfds.core.ShardedFileTemplate(
        dataset_name=_NAME,
        data_dir=folder,
        split=split,
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )


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
