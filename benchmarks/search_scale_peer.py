"""One side of `search_scale.py`: a process that searches when it reads a line, and answers with a line of JSON.

    python benchmarks/search_scale_peer.py make_jax|faiss FOLDER SEED QUERIES K

"run" searches and tells seconds, seconds of processor, and the peak of resident bytes so far; "save FILE" writes what
was found. make_jax opens the folder and reads it from the disk in each run (its pages are dropped from the system's
cache before, outside the time); FAISS has all vectors in memory in float32, and its time is that of the search alone.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from search_scale_vectors import queries

from make_jax.retrieval.vectors.shards import VectorFolder

Search = Callable[[], tuple[np.ndarray, np.ndarray]]  # scores and positions


def peak() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def dropped(folder: Path) -> bool:
    """Drops the folder's pages from the system's cache, so that the disk is read; whether the system can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def ours(folder: Path, asked: np.ndarray, k: int) -> Search:
    """Search from disk."""
    from make_jax.retrieval.top_k import top_k

    return lambda: tuple(top_k(asked, VectorFolder(folder), k))


def theirs(folder: Path, asked: np.ndarray, k: int) -> Search:
    """Search in memory by FAISS."""
    import faiss

    vectors = VectorFolder(folder)
    index = faiss.IndexFlatIP(vectors.header.width)
    for block in vectors.blocks(dtype=np.float32):
        index.add(block.vectors)
    return lambda: index.search(asked, k)


def main() -> None:
    """Answers until its input ends."""
    side, folder, seed, count, k = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
    search = (ours if side == "make_jax" else theirs)(folder, queries(seed, count), k)
    found: tuple[np.ndarray, np.ndarray] | None = None
    for line in sys.stdin:
        word, _, argument = line.strip().partition(" ")
        if word == "save":
            np.savez(argument, scores=found[0], positions=found[1])
            print(json.dumps({}), flush=True)
            continue
        cold = dropped(folder) if side == "make_jax" else False
        start, processor = time.perf_counter(), time.process_time()
        found = search()
        seconds = time.perf_counter() - start
        told = {"seconds": seconds, "processor": time.process_time() - processor, "peak": peak(), "from_disk": cold}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
