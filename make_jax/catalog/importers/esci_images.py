"""Images of ESCI's products, downloaded by img2dataset from the addresses in SQID."""

from pathlib import Path

from make_jax.catalog.importers.img2dataset import Shard, shard_files
from make_jax.catalog.importers.import_state import ImportState
from make_jax.catalog.importers.rows import Row


def shards(folder: Path, column: str) -> list[Shard]:
    """The shards in an output folder of img2dataset, in order. Raises InputError if there are none."""
    expected = f"the output of img2dataset, called with --save_additional_columns '[\"{column}\"]' (option --images)"
    return [Shard(file, (column,)) for file in shard_files(folder, expected)]


def add_image(state: ImportState, row: Row, column: str) -> None:
    """Adds the image of a sample to its product; skips samples that were not downloaded."""
    data = row.image_bytes("image")
    if data:
        state.add_image(row, row.id(column), data)
