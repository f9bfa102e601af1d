"""Images of ESCI's products, downloaded by img2dataset from the addresses in SQID.

The layout is taken from README.md and img2dataset/writer.py of github.com/rom1504/img2dataset: each shard has a Parquet
file of its samples (url, key, status, requested extra columns); the images are in that file as a column `jpg`, in
<shard>.tar as <key>.jpg, or in the folder <shard> (--output_format parquet, webdataset, files). With --encode_format
the extension is png or webp.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Parquet
from make_jax.errors import InputError

EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_KEY = re.compile(r"\d+")


class Shard:
    """The samples of one shard. A row has the sample's values and "image": its bytes, None if not downloaded."""

    def __init__(self, samples: Path, column: str) -> None:
        self._samples = Parquet([samples], ("key", column), EXTENSIONS)
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
            with tarfile.open(self._tar) as tar:
                members = {member.name: member for member in tar if member.isfile()}
                for row in self._samples.rows(start):
                    yield self._with_image(row, (tar, members))
        except (tarfile.TarError, EOFError) as error:
            raise InputError(
                f"{self._tar}: cannot be read ({error}), expected an archive written by img2dataset"
            ) from None

    def _with_image(self, row: Row, archive: tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]] | None) -> Row:
        key = row.values.get("key")
        row.values["image"] = next((data for extension in EXTENSIONS if (data := row.values.get(extension))), None)
        if not row.fault and not (isinstance(key, str) and _KEY.fullmatch(key)):
            row.fault = f"key: found {key!r}, expected digits"
        if row.fault or row.values["image"]:
            return row
        for extension in EXTENSIONS:
            name = f"{key}.{extension}"
            if archive and name in archive[1] and archive[1][name].size <= MAX_BYTES:
                file = archive[0].extractfile(archive[1][name])
                row.values["image"] = file.read() if file else None
            elif not archive and (self._folder / name).is_file():
                row.values["image"] = (self._folder / name).read_bytes()
        return row


def shards(folder: Path, column: str) -> list[Shard]:
    """The shards in an output folder of img2dataset, in order. Raises InputError if there are none."""
    files = sorted(file for file in folder.glob("*.parquet") if file.stem.isdigit())
    if not files:
        text = f"expected the output of img2dataset, called with --save_additional_columns '[\"{column}\"]'"
        raise InputError(f"{folder}: no shard like 00000.parquet, {text} (option --images)")
    return [Shard(file, column) for file in files]


def add_image(state: ImportState, row: Row, column: str) -> None:
    """Adds the image of a sample to its product; skips samples that were not downloaded."""
    data = row.image_bytes("image")
    if data:
        state.add_image(row, row.id(column), data)
