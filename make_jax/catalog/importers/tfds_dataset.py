"""Prepared TFDS data sets: a folder with dataset_info.json, features.json and shards, as TFDS's builders write it.

Read without TensorFlow: ArrayRecord and Parquet as TFDS itself reads them, TFRecord with Grain's reader. Nothing of a
data set is executed: `tfds.builder_from_directory` reads the two JSON files only, except that it imports the module of
a feature class that is not its own, so other classes are refused before. Images stay encoded as they are stored.
"""

import argparse
import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from make_jax import unique_json
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import SYNONYMS, guess, parse_choices
from make_jax.catalog.importers.huggingface import CAPTIONS, read_json
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.parquet_pages import MAX_CELL, batch_rows
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.table import read_columns
from make_jax.catalog.importers.table_files import SAMPLE_ROWS
from make_jax.errors import InputError

INFO, FEATURES = "dataset_info.json", "features.json"
_OWN_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.[\w.]+")
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_CHUNK = 64  # records read together
# What the readers of records raise for damaged files.
_DAMAGED = (ValueError, IndexError, RuntimeError, OSError, OverflowError, MemoryError, TypeError)


@dataclass
class Shards:
    """The records of one split, read in order. Rows state the split if `has_splits`: there are others."""

    folder: Path
    paths: tuple[Path, ...]
    lengths: tuple[int, ...]  # records of each file
    split: str
    file_format: str  # of _READERS
    parse: Callable[[bytes], dict[str, Any]]
    has_splits: bool

    def __post_init__(self) -> None:
        self.name = self.split
        self.files = (self.folder / INFO, self.folder / FEATURES, *self.paths)  # all are the import's source

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record; text that is not UTF-8 is a fault. Raises InputError for a damaged shard."""
        for path, length in zip(self.paths, self.lengths, strict=True):
            if start >= length:
                start -= length
                continue
            number = start
            try:
                with contextlib.closing(_READERS[self.file_format](path, start)) as records:
                    for number, record in enumerate(records, start + 1):
                        yield self._row(f"{self.split}: {path.name} record {number}", record)
            except _DAMAGED as error:
                text = " ".join(str(error).split())[:200] or type(error).__name__
                raise self._unreadable(path, f"after record {number}: {text}") from None
            if number != length:
                raise self._unreadable(path, f"{number:,} records, {INFO} states {length:,}")
            start = 0

    def _row(self, place: str, record: bytes) -> Row:
        try:
            values = self.parse(record)
        except UnicodeDecodeError as error:
            return Row(place, {}, f"not UTF-8 ({error.reason}), expected UTF-8")
        except Exception as error:  # protobuf and TFDS raise many kinds for what is no such record
            text = " ".join(str(error).split())[:200]
            return Row(place, {}, f"no record with the features of {FEATURES} ({text}), expected one")
        if self.has_splits:
            values.setdefault("split", self.split)
        return Row(place, values)

    def _unreadable(self, path: Path, text: str) -> InputError:
        return InputError(f"{path}: cannot be read ({text}), expected a complete {self.file_format} file")


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads a data set; prints what its features are taken as."""
    folder = _version_folder(options.source)
    info = _open(folder)
    # Sorted, because the order of a protobuf map differs between processes.
    features = {name: _reader_of(feature) for name, feature in sorted(info.features.items())}
    tables = _tables(folder, info, _parser(info.features, features))
    columns = [*features]
    rows = (row for table in tables for row in itertools.islice(table.rows(0), SAMPLE_ROWS // len(tables) + 1))
    sample = [row for row in rows if not row.fault]
    columns += ["split"] if "split" not in columns and tables[0].has_splits else []
    images = [name for name in features if _is_image(info.features[name])]
    known = {"image": images[:1], "ignored": [name for name, reader in features.items() if reader is None]}
    if not any(name.casefold().replace("_", "") in SYNONYMS["title"].split() for name in columns):
        known["title"] = [name for name in CAPTIONS if name in columns][:1]
    guessed = guess(options.source, columns, sample, parse_choices(options.columns, columns), known)
    splits = ", ".join(table.split for table in tables)
    how = f"TFDS data set {info.full_name}, {tables[0].file_format}, split{'s'[: len(tables) != 1]} {splits}"
    return read_columns(state, options, tables, guessed, how)


def _version_folder(source: Path) -> Path:
    """The folder with INFO: the source, or the only one in it."""
    if (source / INFO).is_file():
        return source
    found = sorted(path.parent for path in source.glob(f"*/{INFO}")) if source.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)[:200]
        raise InputError(f"{source}: several data sets ({names}), expected the folder of one (SOURCE)")
    expected = f"the folder of a prepared TFDS data set, with {INFO}, {FEATURES} and shards (SOURCE)"
    raise InputError(f"{source}: no TFDS data set, expected {expected}")


def _open(folder: Path) -> Any:
    """The tfds.core.DatasetInfo of a folder. Raises InputError for damaged files and features with own code."""
    read_json(folder / INFO)
    try:
        names = list(_class_names(read_json(folder / FEATURES)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / FEATURES}: not JSON ({error}), expected it as TFDS writes it") from None
    for name in names:
        if not _OWN_CLASS.fullmatch(name):
            text = f"{name[:200]!r} is a feature defined outside of TFDS, whose code is not executed"
            raise InputError(f"{folder / FEATURES}: {text}; expected features of tensorflow_datasets")
    import tensorflow_datasets as tfds  # type: ignore[import-untyped]  # slow

    try:
        info = tfds.builder_from_directory(folder).info
        dict(info.features.items())
    except Exception as error:  # TFDS and protobuf raise many kinds for damaged JSON
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: cannot be read ({text}), expected {INFO} and {FEATURES} as TFDS writes them"
        ) from None
    return info


def _class_names(value: Any) -> Iterator[str]:
    """The classes that FEATURES names, in any depth. In its old form "type" is one, next to "content"."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key in _CLASS_KEYS and (key != "type" or "content" in value):
                yield inner
            if isinstance(inner, str) and key == "content":  # the oldest form: JSON in a string
                inner = unique_json.loads(inner) if inner.lstrip().startswith("{") else inner
            yield from _class_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_names(inner)


def _tables(folder: Path, info: Any, parse: Callable[[bytes], dict[str, Any]]) -> list[Shards]:
    """The shards by split. A single split is none: its products are split by hash."""
    file_format = info.file_format.value if info.file_format else "unknown"
    if file_format not in _READERS:
        convert = f"tfds convert_format --dataset_version_dir={folder} --out_dir=OUT --out_file_format=array_record"
        text = f"the file format {file_format} cannot be read, expected {', '.join(_READERS)}"
        raise InputError(f"{folder}: {text}; convert it: {convert} (needs TensorFlow)")
    filled = {name: split for name, split in info.splits.items() if split.num_examples}
    if not filled:
        raise InputError(f"{folder}: no records, expected at least one split with some")
    tables = []
    for name, split in filled.items():
        paths = tuple(Path(path) for path in split.filepaths)
        for path in paths:
            if path.resolve().parent != folder.resolve():
                text = f"split {name}: {path} is not in this folder, expected its shards there"
                raise InputError(f"{folder / INFO}: {text}")
            if not path.is_file():
                raise InputError(f"{path}: not found, expected it because {INFO} states {len(paths)} shards of {name}")
        lengths = tuple(split.shard_lengths)
        tables.append(Shards(folder, paths, lengths, name, file_format, parse, len(filled) > 1))
    return tables


def _parser(features: Any, readers: dict[str, Callable[[Any], Any] | None]) -> Callable[[bytes], dict[str, Any]]:
    """A function from a record to its values. Images, and features that no column can hold, are not decoded."""
    import tensorflow_datasets as tfds

    raw = [name for name, feature in features.items() if readers[name] is None or _is_image(feature)]

    def parse(record: bytes) -> dict[str, Any]:
        decoders = {name: tfds.decode.SkipDecoding() for name in raw}
        values = features.deserialize_example_np(record, decoders=decoders)
        return {name: None if reader is None else reader(values[name]) for name, reader in readers.items()}

    return parse


def _is_image(feature: Any) -> bool:
    """Whether a feature is an image of 8-bit colors; TFDS stores the bytes of floats as one of four channels."""
    import tensorflow_datasets as tfds

    return type(feature) is tfds.features.Image and feature.np_dtype == np.uint8


def _reader_of(feature: Any) -> Callable[[Any], Any] | None:
    """A function from a feature's value to that of a column; None for features that no column can hold."""
    import tensorflow_datasets as tfds

    if _is_image(feature):
        return lambda value: bytes(value) or None
    if isinstance(feature, tfds.features.ClassLabel):
        return lambda value: feature.int2str(int(value)) if 0 <= value < (feature.num_classes or 0) else None
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        reader = None if isinstance(inner, tfds.features.FeaturesDict) or _is_image(inner) else _reader_of(inner)
        return reader and (lambda values: [reader(value) for value in values])
    if isinstance(feature, tfds.features.Text):
        return lambda value: bytes(value).decode("utf-8")
    if type(feature) in (tfds.features.Tensor, tfds.features.Scalar) and len(feature.shape) <= 1:
        return _plain
    return None


def _plain(value: Any) -> Any:
    """A tensor of at most one axis as a number, a boolean, a text, bytes that are no text, or a list of these."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode("utf-8")
    return value


def _array_records(path: Path, start: int) -> Generator[bytes, None, None]:
    from array_record.python import array_record_data_source  # type: ignore[import-untyped]

    with array_record_data_source.ArrayRecordDataSource([str(path)]) as records:
        for first in range(start, len(records), _CHUNK):
            yield from records.__getitems__(range(first, min(first + _CHUNK, len(records))))


def _parquet_records(path: Path, start: int) -> Generator[bytes, None, None]:
    """TFDS writes the records in the first column."""
    from pyarrow import parquet  # type: ignore[import-untyped]

    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        columns = file.schema_arrow.names[:1]
        for batch in file.iter_batches(batch_size=batch_rows(path, file.metadata, columns), columns=columns):
            for record in batch.column(0).slice(min(start, batch.num_rows)):
                yield record.as_py()
            start = max(0, start - batch.num_rows)


def _tf_records(path: Path, start: int) -> Generator[bytes, None, None]:
    from grain.experimental import TFRecordIterDataset

    _check_lengths(path)
    yield from itertools.islice(iter(TFRecordIterDataset(str(path))), start, None)


def _check_lengths(path: Path) -> None:
    """Raises ValueError for a record of more than MAX_CELL bytes, which states its length before its content."""
    with path.open("rb") as file:
        number = at = 0
        while len(head := file.read(8)) == 8:
            number += 1
            length = int.from_bytes(head, "little")
            if length > MAX_CELL:
                raise ValueError(f"record {number} has {length:,} bytes, expected at most {MAX_CELL:,}")
            at += length + 16  # with the length and two checksums
            file.seek(at)


_READERS: dict[str, Callable[[Path, int], Generator[bytes, None, None]]] = {
    "array_record": _array_records,
    "parquet": _parquet_records,
    "tfrecord": _tf_records,
}
