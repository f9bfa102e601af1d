"""Folders of vectors: round trip, and one-line errors for damaged ones."""

import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from make_jax.errors import InputError
from make_jax.retrieval.vectors import shards as module
from make_jax.retrieval.vectors.shards import (
    HEADER,
    Header,
    VectorFolder,
    claim_shard,
    missing_shards,
    prepare_folder,
    read_header,
    write_shard,
)
from tests.retrieval.other_processes import claims

HEAD = Header(model="m", catalog="c", part="test by both", count=10, width=4, per_shard=4)


def rows(header: Header, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(header.count, header.width)).astype(np.float16)


def written(folder: Path, header: Header = HEAD, *, ids: list[str] | None = None, weights: bool = True) -> np.ndarray:
    """Writes a complete folder and returns its vectors."""
    made, names = rows(header), ids or [f"p{i}" for i in range(header.count)]
    for shard in prepare_folder(folder, header):
        at = header.rows(shard)
        share = np.full((len(at), 2), 0.5, np.float32) if weights else None
        write_shard(folder, header, shard, [names[i] for i in at], made[at.start : at.stop], share)
    return made


def test_written_vectors_are_read_back(tmp_path: Path) -> None:
    made = written(tmp_path / "f")
    assert [path.name for path in sorted((tmp_path / "f").iterdir())] == [
        *(f"vectors-0000{i}-of-00003.parquet" for i in range(3)),
        HEADER,
    ]
    folder = VectorFolder(tmp_path / "f")
    assert folder.header == HEAD
    assert folder.ids() == [f"p{i}" for i in range(10)]
    np.testing.assert_array_equal(folder.weights(), np.full((10, 2), 0.5, np.float32))
    blocks = list(folder.blocks(3))
    assert [block.first for block in blocks] == [0, 3, 4, 7, 8]
    found = np.concatenate([block.vectors for block in blocks])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, made)
    written(tmp_path / "without", weights=False)
    assert VectorFolder(tmp_path / "without").weights() is None


def test_folders_of_other_programs_are_read(tmp_path: Path) -> None:
    header = dataclasses.replace(HEAD, count=4)
    made = rows(header).astype(np.float32)
    prepare_folder(tmp_path, header)
    table = pyarrow.table({"id": list("abcd"), "other": [1, 2, 3, 4], "vector": made.tolist()})
    table = table.set_column(2, "vector", table["vector"].cast(pyarrow.list_(pyarrow.float32())))
    parquet.write_table(table, header.path(tmp_path, 0))
    folder = VectorFolder(tmp_path)
    assert folder.ids() == list("abcd")
    (block,) = folder.blocks()
    np.testing.assert_array_equal(block.vectors, made)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def flipped(path: Path) -> None:
    """Flips one bit of the vectors in a shard."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)


def test_a_shard_that_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    shard = HEAD.path(tmp_path, 1)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"vectors-00001-of-00003\.parquet: damaged or cut short .* writes it anew"):
        VectorFolder(tmp_path)
    shard.unlink()
    with pytest.raises(InputError, match=r"vectors-00001-of-00003\.parquet: missing, as are 0 others of 3 shards"):
        VectorFolder(tmp_path)
    assert missing_shards(tmp_path, HEAD) == [1]


def test_a_flipped_bit_is_found_where_vectors_are_read(tmp_path: Path) -> None:
    header = dataclasses.replace(HEAD, width=256)  # so that a quarter into the file is a vector
    written(tmp_path, header)
    flipped(header.path(tmp_path, 2))
    with pytest.raises(InputError, match=r"vectors-00002-of-00003\.parquet: damaged"):
        list(VectorFolder(tmp_path).blocks())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"count": 9}, r"00002-of-00003\.parquet: 2 vectors, expected 1 according to vectors\.json"),
        ({"width": 5}, r"00000-of-00003\.parquet: vectors of 4 numbers, expected 5 according to vectors\.json"),
        ({"shards": 4}, r"vectors\.json: 4 shards, expected 3 of 4 each"),
        ({"format": 2}, r"vectors\.json: format 2, expected 1"),
        ({"width": "4"}, r"vectors\.json: damaged, expected JSON with format, shards"),
        ({"count": 0}, r"vectors\.json: damaged"),
    ],
)
def test_a_header_that_contradicts_the_shards_is_an_input_error(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    written(tmp_path)
    for path in tmp_path.glob("*.parquet"):  # as another program would write it, without the header in the metadata
        parquet.write_table(parquet.read_table(path).replace_schema_metadata(None), path)
    VectorFolder(tmp_path)
    (tmp_path / HEADER).write_text(json.dumps(json.loads(HEAD.to_json()) | change))
    with pytest.raises(InputError, match=expected):
        VectorFolder(tmp_path)


def test_a_folder_without_a_header_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/vectors\.json: not found, expected a folder of vectors"):
        VectorFolder(tmp_path / "nowhere")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds mine\.txt and no vectors\.json; expected a new folder"):
        prepare_folder(tmp_path, HEAD)


def test_a_folder_of_another_model_or_catalog_is_not_continued(tmp_path: Path) -> None:
    written(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for change in ({"model": "n"}, {"catalog": "d"}, {"part": "val by both"}, {"count": 11}, {"width": 5}):
        (name,) = change
        with pytest.raises(InputError, match=rf"vectors\.json: {name} is .*name another folder or delete this one"):
            prepare_folder(tmp_path, dataclasses.replace(HEAD, **change))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_shard_of_another_folder_is_found(tmp_path: Path) -> None:
    written(tmp_path / "a")
    other = dataclasses.replace(HEAD, model="another")
    written(tmp_path / "b", other)
    HEAD.path(tmp_path / "a", 1).write_bytes(other.path(tmp_path / "b", 1).read_bytes())
    with pytest.raises(InputError, match=r"00001-of-00003\.parquet: written under another vectors\.json"):
        VectorFolder(tmp_path / "a")


def test_duplicate_ids_are_named_across_shards(tmp_path: Path) -> None:
    written(tmp_path, ids=[*"abcdefghia"])
    with pytest.raises(InputError, match=r"duplicate id 'a', at positions 0 and 9; expected each id once"):
        VectorFolder(tmp_path).ids()


def table_of(vectors: pyarrow.Array, ids: object = "abcd") -> pyarrow.Table:
    return pyarrow.table({"id": list(ids), "vector": vectors})


NUMBERS = [[1.0, 2.0]] * 4


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            pyarrow.table({"id": list("abcd"), "embedding": NUMBERS}),
            "columns id, embedding, expected the col",
        ),
        (table_of(pyarrow.array(NUMBERS, pyarrow.list_(pyarrow.float64()))), "expected lists of float16 or float32"),
        (table_of(pyarrow.array(NUMBERS, pyarrow.list_(pyarrow.float32())), range(4)), "id is int64, expected strings"),
        (
            table_of(pyarrow.array([[1.0], *NUMBERS[1:]], pyarrow.list_(pyarrow.float32()))),
            "lists of 2 numbers",
        ),
        (
            table_of(pyarrow.array([None, *NUMBERS[1:]], pyarrow.list_(pyarrow.float32(), 2))),
            "lists of 2 numbers",
        ),
        (table_of(pyarrow.array([[1.0, np.nan]] * 4, pyarrow.list_(pyarrow.float32(), 2))), "not finite"),
    ],
)
def test_shards_without_ids_or_valid_vectors_are_input_errors(
    tmp_path: Path, table: pyarrow.Table, expected: str
) -> None:
    header = dataclasses.replace(HEAD, count=4, width=2)
    prepare_folder(tmp_path, header)
    parquet.write_table(table, header.path(tmp_path, 0))
    with pytest.raises(InputError, match=expected):
        list(VectorFolder(tmp_path).blocks())


def test_numbers_over_float16_are_not_written(tmp_path: Path) -> None:
    prepare_folder(tmp_path, HEAD)
    with pytest.raises(InputError, match="numbers that float16 does not hold"):
        write_shard(tmp_path, HEAD, 0, list("abcd"), np.full((4, 4), 1e5, np.float32))
    assert [path.name for path in tmp_path.iterdir()] == [HEADER]


def test_a_shard_is_claimed_by_one_process_at_a_time(tmp_path: Path) -> None:
    prepare_folder(tmp_path, HEAD)
    with multiprocessing.get_context("spawn").Pool(1) as other:
        with claim_shard(tmp_path, 1) as mine:
            assert mine
            assert other.apply(claims, (tmp_path, [0, 1, 2])) == [True, False, True]
        assert other.apply(claims, (tmp_path, [0, 1, 2])) == [True, True, True]


def test_partial_files_of_killed_processes_are_deleted_or_replaced(tmp_path: Path) -> None:
    header = tmp_path / f"{module.PARTIAL}abcdefgh"
    header.write_text("half a header")
    half = tmp_path / f"{module.PARTIAL}{HEAD.path(tmp_path, 0).name}"
    half.write_bytes(b"half a shard")
    written(tmp_path)
    assert not header.exists() and not half.exists()
    VectorFolder(tmp_path)


def test_float32_vectors_are_stored_without_rounding(tmp_path: Path) -> None:
    head = dataclasses.replace(HEAD, count=3, per_shard=3, dtype="float32")
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    prepare_folder(tmp_path, head)
    write_shard(tmp_path, head, 0, ["a", "b", "c"], vectors)
    folder = VectorFolder(tmp_path)
    assert (read_header(tmp_path), folder.vector_bytes) == (head, 16)
    np.testing.assert_array_equal(next(folder.blocks()).vectors, vectors)


def test_the_header_of_float16_vectors_is_as_before_there_was_another_type() -> None:
    assert "dtype" not in json.loads(HEAD.to_json())


def test_an_unknown_type_of_numbers_is_an_input_error(tmp_path: Path) -> None:
    text = dataclasses.replace(HEAD, dtype="float32").to_json().replace("float32", "int8")
    (tmp_path / "vectors.json").write_text(text)
    with pytest.raises(InputError, match="dtype 'int8', expected float16 or float32"):
        read_header(tmp_path)
