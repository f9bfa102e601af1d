"""Pictures that img2dataset has fetched by their URLs.

Layout read in README.md and img2dataset/writer.py of github.com/rom1504/img2dataset: each shard has a Parquet file of
its samples (url, key, status, further columns that were asked for), and the pictures are in that file as a column
`jpg`, in <shard>.tar as <key>.jpg, or in the folder <shard> (--output_format parquet, webdataset, files). With
--encode_format the ending is png or webp.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from make_jax.catalog.images import MAX_BYTES
from make_jax.catalog.importers.import_state import Work
from make_jax.catalog.importers.rows import Row
from make_jax.catalog.importers.tables import Parquet
from make_jax.errors import InputError

ENDINGS = ("jpg", "png", "webp")
_KEY = re.compile(r"\d+")


class Shard:
    """The samples of one shard. A row has the sample's values and "picture": its bytes, None if it was not fetched."""

    def __init__(self, samples: Path, column: str) -> None:
        self._samples = Parquet([samples], ("key", column), ENDINGS)
        self._folder, self._tar = samples.with_suffix(""), samples.with_suffix(".tar")
        self.files: tuple[Path, ...] = (samples, self._tar) if self._tar.exists() else (samples,)
        self.name = str(samples.resolve())

    def rows(self, start: int) -> Iterator[Row]:
        """One row a sample. InputError for a damaged archive."""
        if not self._tar.exists():
            for row in self._samples.rows(start):
                yield self._with(row, None)
            return
        try:
            with tarfile.open(self._tar) as archive:
                members = {member.name: member for member in archive if member.isfile()}
                for row in self._samples.rows(start):
                    yield self._with(row, (archive, members))
        except (tarfile.TarError, EOFError) as error:
            raise InputError(
                f"{self._tar}: cannot be read ({error}), expected a whole archive of img2dataset"
            ) from None

    def _with(self, row: Row, packed: tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]] | None) -> Row:
        key = row.values.get("key")
        row.values["picture"] = next((data for end in ENDINGS if (data := row.values.get(end))), None)
        if not row.fault and not (isinstance(key, str) and _KEY.fullmatch(key)):
            row.fault = f"key: found {key!r}, expected digits"
        if row.fault or row.values["picture"]:
            return row
        for end in ENDINGS:
            name = f"{key}.{end}"
            if packed and name in packed[1] and packed[1][name].size <= MAX_BYTES:
                file = packed[0].extractfile(packed[1][name])
                row.values["picture"] = file.read() if file else None
            elif not packed and (self._folder / name).is_file():
                row.values["picture"] = (self._folder / name).read_bytes()
        return row


def shards(folder: Path, column: str) -> list[Shard]:
    """The shards in an output folder of img2dataset, in order. InputError when there is none."""
    files = sorted(file for file in folder.glob("*.parquet") if file.stem.isdigit())
    if not files:
        text = f"expected the output of img2dataset, called with --save_additional_columns '[\"{column}\"]'"
        raise InputError(f"{folder}: no shard like 00000.parquet, {text} (option --images)")
    return [Shard(file, column) for file in files]


def add_picture(work: Work, row: Row, column: str) -> None:
    """Gives the picture of a sample to its product; what was not fetched is passed over."""
    data = row.picture("picture")
    if data:
        work.picture(row, row.name(column), data)
