"""Pairs of images and captions downloaded by img2dataset.

The layout is taken from README.md and img2dataset/writer.py of github.com/rom1504/img2dataset: each shard has a Parquet
file of its samples (url, caption, key, status, requested extra columns); the images are in that file as a column `jpg`,
in <shard>.tar as <key>.jpg, or in the folder <shard> (--output_format parquet, webdataset, files). With --encode_format
the extension is png or webp.
"""

import argparse
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.importers.benchmark_info import BenchmarkInfo
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.table_files import open_table
from make_jax.catalog.importers.tables import Parquet
from make_jax.catalog.importers.webdataset import IMAGES, check_end, read_samples
from make_jax.errors import InputError

DOWNLOAD = (  # columns about the download
    *("url", "status", "error_message", "width", "height", "original_width", "original_height", "exif"),
    *("md5", "sha256", "sha512", "similarity", "pwatermark", "punsafe", "NSFW", *IMAGES),
)


class Shard:
    """The samples of one shard. A row has the sample's values and "image": its bytes, None if not downloaded."""

    def __init__(self, samples: Path, columns: Sequence[str], optional: Sequence[str] = IMAGES) -> None:
        self._samples = Parquet([samples], ("key", *columns), optional)
        self._folder, self._tar = samples.with_suffix(""), samples.with_suffix(".tar")
        self.files: tuple[Path, ...] = (samples, self._tar) if self._tar.exists() else (samples,)
        self.name = str(samples.resolve())

    def rows(self, start: int) -> Iterator[Row]:
        """One row a sample. Raises InputError for a damaged archive."""
        if not self._tar.exists():
            for row in self._samples.rows(start):
                yield self._with_image(row, None)
            return
        try:
            with tarfile.open(self._tar, "r:") as tar:
                members = {member.name: member for member in tar if member.isfile()}
                check_end(tar)
                for row in self._samples.rows(start):
                    yield self._with_image(row, (tar, members))
        except (tarfile.TarError, EOFError) as error:
            raise InputError(
                f"{self._tar}: cannot be read ({error}), expected an archive written by img2dataset"
            ) from None

    def _with_image(self, row: Row, archive: tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]] | None) -> Row:
        key = row.values.get("key")
        row.values["image"] = next((data for extension in IMAGES if (data := row.values.pop(extension, None))), None)
        if not row.fault and not (isinstance(key, str) and key.isascii() and key.isdecimal()):
            row.fault = f"key: found {key!r}, expected digits"
        if row.fault or row.values["image"]:
            return row
        for extension in IMAGES:
            name = f"{key}.{extension}"
            if archive and name in archive[1]:
                file = archive[0].extractfile(archive[1][name])
                row.values["image"] = file.read(MAX_BYTES + 1) if file else None  # see below
            elif not archive and (self._folder / name).is_file():
                with (self._folder / name).open("rb") as file:
                    row.values["image"] = file.read(MAX_BYTES + 1)  # one byte too many is rejected as an image
        return row


def shard_files(folder: Path, expected: str) -> list[Path]:
    """The Parquet files of the shards in an output folder of img2dataset, in order. Raises InputError without one."""
    files = sorted(file for file in folder.glob("*.parquet") if file.stem.isdigit())
    if not files:
        raise InputError(f"{folder}: no shard like 00000.parquet, expected {expected}")
    return files


def read(state: ImportState, options: argparse.Namespace) -> BenchmarkInfo:
    """Reads an output folder in any of the three formats; prints what the columns are taken as."""
    files = shard_files(options.source, "the output folder of img2dataset, whose shards have their Parquet files")
    columns = open_table(files[0]).columns
    for column in ("key", "caption") if not options.columns else ("key",):
        if column not in columns:
            advice = "; call img2dataset with --caption_col, or name the title: --columns title=COLUMN"
            raise InputError(f"{files[0]}: no column {column!r} among {', '.join(columns)[:200]}{advice}")
    named = [name for name in columns if name not in ("key", *IMAGES)]
    tables = [Shard(file, (), (*named, *IMAGES)) for file in files]
    how = f"img2dataset, {len(tables)} shard{'s'[: len(tables) != 1]}"
    # A caption is a title; a further column named "query" is what the download was searched with.
    chosen = argparse.Namespace(**{**vars(options), "columns": [*options.columns, "query="]})
    return read_samples(state, chosen, tables, how, DOWNLOAD)
