"""Small TFDS data sets, written with TFDS and without TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tests.catalog.importers.published import encoded_image

NAME = "clicked"


def features() -> Any:
    return tfds.features.FeaturesDict(
        {
            "search": tfds.features.Text(),
            "caption": tfds.features.Text(),
            "photo": tfds.features.Image(),
            "kind": tfds.features.ClassLabel(names=["boots", "hats"]),
            "price": tfds.features.Scalar(np.float32),
            "tags": tfds.features.Sequence(tfds.features.Text()),
            "box": tfds.features.BBoxFeature(),
        }
    )


def example(split: str, number: int) -> dict[str, Any]:
    """Two queries a product."""
    product = number // 2
    return {
        "search": f"query {split} {number}",
        "caption": f"Red {split} boots {product}",
        "photo": encoded_image(product),
        "kind": product % 2,
        "price": product + 0.5,
        "tags": ["new", "red"][: product % 3],
        "box": np.array([0.0, 0.1, 0.5, 1.0], np.float32),
    }


def tfds_folder(
    folder: Path, splits: Sequence[str] = ("train", "test"), count: int = 6, file_format: str = "array_record"
) -> Path:
    """A prepared data set of two shards a split. TFDS's image feature encodes an image in TensorFlow only, so the
    bytes are stored as its example format has them."""
    folder.mkdir(parents=True, exist_ok=True)
    described = features()
    serialized = dict(described.get_serialized_info())
    serializer = tfds.core.example_serializer.ExampleSerializer(serialized)
    adapter = tfds.core.file_adapters.ADAPTER_FOR_FORMAT[tfds.core.FileFormat(file_format)]
    infos = []
    for split in splits:
        template = tfds.core.ShardedFileTemplate(
            dataset_name=NAME, data_dir=folder, split=split, filetype_suffix=adapter.FILE_SUFFIX
        )
        lengths = [count // 2, count - count // 2]
        for shard in range(2):
            numbers = range(shard * lengths[0], shard * lengths[0] + lengths[shard])
            records = []
            for number in numbers:
                values = example(split, number)
                photo = values.pop("photo")
                encoded = {name: described[name].encode_example(value) for name, value in values.items()}
                records.append((number, serializer.serialize_example({**encoded, "photo": photo})))
            path = template.sharded_filepath(shard_index=shard, num_shards=2)
            adapter.write_examples(path, records)
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=0, filename_template=template))
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=NAME, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="code_of_the_data_set"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=described)
    info.set_file_format(tfds.core.FileFormat(file_format))
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(str(folder))
    return folder
