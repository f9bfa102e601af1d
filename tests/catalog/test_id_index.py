"""`IdIndex`: equal to a dict, also where hashes collide."""

import numpy as np
import pyarrow as pa
import pytest

from make_jax.catalog import id_index
from make_jax.catalog.id_index import IdIndex, id_hash


def index_of(ids: list[str]) -> IdIndex:
    hashes = np.array([id_index.id_hash(id) for id in ids], np.uint64)
    half = len(ids) // 2
    return IdIndex(pa.chunked_array([ids[:half], ids[half:]], pa.string()), hashes)


@pytest.mark.parametrize("bits", [64, 2, 0])  # with 2 bits most hashes collide, with 0 all
def test_positions_are_those_of_a_dict_whatever_collides(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(id_index, "id_hash", lambda id: id_hash(id) % (1 << bits))
    ids = [f"p{i}" for i in range(50)] + ["p3", "鞋", "p49", "鞋"]
    index = index_of(ids)
    expected = {id: ids.index(id) for id in ids}
    requested = ["p0", "鞋", "none", "p49", "p3", ""]
    assert index.positions(requested).tolist() == [expected.get(id, -1) for id in requested]
    assert index.positions(pa.array(["p1", None])).tolist() == [1, -1]
    assert [index.get(id) for id in requested] == [expected.get(id) for id in requested]
    assert index.duplicates.tolist() == [50, 52, 53]


def test_an_empty_index_knows_nothing() -> None:
    index = index_of([])
    assert index.positions(["a"]).tolist() == [-1] and "a" not in index and len(index) == 0


def test_hashes_are_the_same_in_every_process() -> None:
    assert id_hash("a") == 0x2F42665B399EF840  # BLAKE2b, first 8 bytes of a digest of 8, little-endian
