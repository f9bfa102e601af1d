"""Hugging Face datasets on disk: a folder written by `save_to_disk`, or Parquet files as on the hub.

Layouts: `save_to_disk` of github.com/huggingface/datasets writes state.json (names of the Arrow files),
dataset_info.json (features) and data-*.arrow, for a DatasetDict in one folder a split next to dataset_dict.json. On the
hub, files are <split>-00000-of-00002.parquet or <split>/0000.parquet in any folder; features are in their metadata. The
files are read with pyarrow and not with `datasets`: its loader follows file names of state.json out of the folder, and
older versions run scripts of a dataset. No code of a dataset is executed, and images are not decoded here.
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from make_jax import unique_json
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.columns import SYNONYMS, guess, parse_choices
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.table import read_columns
from make_jax.catalog.importers.table_files import SAMPLE_ROWS, open_table
from make_jax.catalog.importers.tables import records
from make_jax.catalog.source import unsafe_name
from make_jax.errors import InputError

STATE, INFO, DICT = "state.json", "dataset_info.json", "dataset_dict.json"
CAPTIONS = ("caption", "text", "prompt", "sentence")  # titles, if no column has a name of one
_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
_SPLIT = re.compile(rf"(?:^|[/_.-])({'|'.join(_SPLITS)})(?:[/_.-]|$)")
_MAX_JSON = 64 << 20  # bytes of a JSON file of a dataset


@dataclass
class Part:
    """Some files of a dataset, read in order, and their split ("" if unknown)."""

    base: Path
    files: tuple[Path, ...]
    split: str
    features: Mapping[str, Any]  # column -> feature of `datasets`

    def __post_init__(self) -> None:
        self.name = self.files[0].relative_to(self.base).as_posix()

    def rows(self, start: int) -> Iterator[Row]:
        """One row a record, its classes as names. Raises InputError for a damaged file."""
        labels = {
            name: feature["names"]
            for name, feature in self.features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
        for file in self.files:
            if start and (size := _count(file)) <= start:
                start -= size
                continue
            place = file.relative_to(self.base).as_posix()
            for number, row in enumerate(_file_rows(file, start), start + 1):
                for name, names in labels.items():
                    value = row.values.get(name)
                    if isinstance(value, int) and 0 <= value < len(names):
                        row.values[name] = str(names[value])
                if self.split:
                    row.values.setdefault("split", self.split)
                yield Row(f"{place}: row {number}", row.values, row.fault)
            start = 0


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads a dataset; prints what its columns are taken as."""
    parts = _parts(options.source)
    columns: list[str] = []
    for part in parts:
        columns += [name for name in part.features if name not in columns]
    sample = [row for part in parts for _, row in zip(range(SAMPLE_ROWS // len(parts) + 1), part.rows(0), strict=False)]
    columns += ["split"] if "split" not in columns and any("split" in row.values for row in sample) else []
    known: dict[str, list[str]] = {}
    images = [name for part in parts for name, feature in part.features.items() if _is_image(feature)]
    known["image"] = images[:1]
    if not any(name.casefold().replace("_", "") in SYNONYMS["title"].split() for name in columns):
        known["title"] = [name for name in CAPTIONS if name in columns][:1]
    guessed = guess(options.source, columns, sample, parse_choices(options.columns, columns), known)
    return read_columns(state, options, parts, guessed, f"Hugging Face dataset, {_splits_text(parts)}")


def _parts(source: Path) -> list[Part]:
    """The files of a dataset by split. A single split is none: its products are split by hash."""
    if source.is_dir() and ((source / STATE).exists() or (source / DICT).exists()):
        parts = _saved(source)
    else:
        files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
        files = [file for file in files if file.suffix == ".parquet"]
        if not files:
            expected = f"a folder written by save_to_disk (with {STATE} or {DICT}), or Parquet files as on the hub"
            raise InputError(f"{source}: no Hugging Face dataset, expected {expected}")
        base = source if source.is_dir() else source.parent
        by_split: dict[str, list[Path]] = {}
        for file in files:
            found = _SPLIT.findall(file.relative_to(base).as_posix())
            by_split.setdefault(found[-1] if found else "", []).append(file)
        parts = [Part(base, tuple(of), split, _parquet_features(of)) for split, of in by_split.items()]
    several = len({part.split for part in parts}) > 1
    return [Part(part.base, part.files, part.split if several else "", part.features) for part in parts]


def _saved(source: Path) -> list[Part]:
    """The parts of a folder written by save_to_disk."""
    names = [""]
    if (source / DICT).exists():
        names = _strings(read_json(source / DICT).get("splits"), source / DICT, "splits")
    parts = []
    for name in names:
        folder = source / _safe(name, source / DICT) if name else source
        listed = read_json(folder / STATE).get("_data_files")
        files = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed or []]
        paths = [folder / _safe(file, folder / STATE) for file in _strings(files, folder / STATE, "_data_files")]
        if missing := next((path for path in paths if not path.is_file()), None):
            raise InputError(f"{missing}: not found, expected it because {STATE} names it")
        features = read_json(folder / INFO).get("features")
        if not paths or not isinstance(features, dict):
            raise InputError(f"{folder}: no files or no features, expected a folder written by save_to_disk")
        parts.append(Part(source, tuple(paths), name, features))
    return parts


def _file_rows(file: Path, start: int) -> Iterator[Row]:
    """The rows of an Arrow or a Parquet file from number `start` on."""
    if file.suffix == ".parquet":
        yield from open_table(file).table.rows(start)
        return
    import pyarrow  # type: ignore[import-untyped]

    try:
        with pyarrow.memory_map(str(file)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
            for batch in stream:
                batch.validate(full=True)  # offsets of an untrusted file may point anywhere
                for first in range(start, batch.num_rows, 64):
                    yield from (Row("", values, fault) for values, fault in records(batch.slice(first, 64)))
                start = max(0, start - batch.num_rows)
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise _unreadable(file, error, "Arrow") from None


def _count(file: Path) -> int:
    """The number of rows of a file."""
    import pyarrow
    from pyarrow import parquet

    try:
        if file.suffix == ".parquet":
            return parquet.read_metadata(file).num_rows
        with pyarrow.memory_map(str(file)) as mapped, pyarrow.ipc.open_stream(mapped) as stream:
            return sum(batch.num_rows for batch in stream)
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise _unreadable(file, error, "Arrow or Parquet") from None


def _parquet_features(files: list[Path]) -> dict[str, Any]:
    """Column -> feature of Parquet files, {} for a column without one."""
    from pyarrow import parquet

    features: dict[str, Any] = {}
    for file in files:
        columns = open_table(file).columns  # also checks that it is complete
        stored: Any = {}
        metadata = parquet.read_schema(file).metadata or {}
        try:
            stored = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            stored = {}
        for name in columns:
            features.setdefault(name, stored.get(name, {}) if isinstance(stored, dict) else {})
    return features


def _is_image(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def _splits_text(parts: list[Part]) -> str:
    count = sum(len(part.files) for part in parts)
    splits = ", ".join(part.split for part in parts if part.split)
    return f"{count} file{'s'[: count != 1]}" + (f", splits {splits}" if splits else "")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file of a data set. Raises InputError if it has none."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise InputError(f"{path}: more than {_MAX_JSON:,} bytes, expected a smaller file")
        values = unique_json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected the file of a saved dataset") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}), expected one object") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not an object, expected one JSON object")
    return values


def _strings(values: Any, path: Path, key: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{path}: {key}: found no list of names, expected one")
    return values


def _safe(name: str, path: Path) -> str:
    """The name of a file inside the folder of `path`."""
    if "/" in name or unsafe_name(name):
        raise InputError(f"{path}: {name[:200]!r} is no name of a file in this folder, expected one")
    return name


def _unreadable(file: Path, error: Exception, kind: str) -> InputError:
    text = " ".join(str(error).split())[:200]
    return InputError(f"{file}: cannot be read ({text}), expected a complete {kind} file")
