"""Ids to positions, for catalogs whose ids would not fit into a dict: 12 bytes an id."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from jaxtyping import Int64, UInt64


def id_hash(id: str) -> int:
    """A 64-bit hash of an id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8"), digest_size=8).digest(), "little")


class IdIndex(Mapping[str, int]):
    """Id -> position of its first occurrence. Hashes are compared first and ids decide, so that none is mistaken."""

    def __init__(self, ids: pa.ChunkedArray, hashes: UInt64[np.ndarray, " n"]) -> None:
        """`hashes` are the `id_hash` of each of `ids`."""
        self._ids = ids
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    @property
    def duplicates(self) -> Int64[np.ndarray, " n"]:
        """Positions, ascending, of ids that occurred before."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1]) + 1
        repeated = [at for at in self._order[same].tolist() if self[self._ids[at].as_py()] != at]
        return np.array(sorted(repeated), np.int64)

    def positions(self, ids: Iterable[str] | pa.Array) -> Int64[np.ndarray, " n"]:
        """The position of each id, -1 for an unknown one and for null."""
        array = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if not len(array) or not len(self._hashes):
            return np.full(len(array), -1, np.int64)
        hashes = np.fromiter((0 if id is None else id_hash(id) for id in array.to_pylist()), np.uint64, len(array))
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        found = self._order[at].astype(np.int64)
        equal = np.array(pc.equal(self._ids.take(found), array).fill_null(False))
        known = np.asarray(array.is_valid())
        for row in np.flatnonzero(~equal & known & (self._hashes[at] == hashes)).tolist():  # another id of this hash
            found[row], equal[row] = self.get(array[row].as_py(), -1), True
        return np.where(equal, found, -1)

    def __getitem__(self, id: str) -> int:
        hashed = np.uint64(id_hash(id))
        first, end = np.searchsorted(self._hashes, hashed), np.searchsorted(self._hashes, hashed, side="right")
        for at in self._order[first:end].tolist():  # ascending, because the order is stable
            if self._ids[at].as_py() == id:
                return int(at)
        raise KeyError(id)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return (id.as_py() for id in self._ids)

    def __len__(self) -> int:
        return len(self._hashes)
