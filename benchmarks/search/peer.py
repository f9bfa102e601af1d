"""One system of `faiss_comparison.py`: a process that reads a command per line and writes a line of JSON.

    python benchmarks/search/peer.py make_jax|faiss FOLDER SEED QUERIES K

"run" searches and returns seconds, processor seconds and the peak of resident bytes so far; "save FILE" writes the last
results. make_jax opens the folder and reads it from disk in each run (its pages are dropped from the page cache before,
untimed); FAISS holds all vectors in memory in float32, and its time is that of the search alone.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks.search.random_vectors import make_queries
from make_jax.retrieval.vectors.shards import VectorFolder

Search = Callable[[], tuple[np.ndarray, np.ndarray]]  # scores and positions


def peak() -> int:
    """The peak of resident bytes of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def drop_page_cache(folder: Path) -> bool:
    """Drops the folder's pages from the page cache, so that the disk is read; False where the OS cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def make_jax_search(folder: Path, queries: np.ndarray, k: int) -> Search:
    """Search by make_jax, from disk."""
    from make_jax.retrieval.top_k import top_k

    return lambda: tuple(top_k(queries, VectorFolder(folder), k))


def faiss_search(folder: Path, queries: np.ndarray, k: int) -> Search:
    """Search by FAISS, in memory."""
    import faiss

    vectors = VectorFolder(folder)
    index = faiss.IndexFlatIP(vectors.header.width)
    for block in vectors.blocks(dtype=np.float32):
        index.add(block.vectors)
    return lambda: index.search(queries, k)


def main() -> None:
    """Executes commands until the input ends."""
    system, folder, seed, count, k = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
    search = (make_jax_search if system == "make_jax" else faiss_search)(folder, make_queries(seed, count), k)
    results: tuple[np.ndarray, np.ndarray] | None = None
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "save":
            np.savez(argument, scores=results[0], positions=results[1])
            print(json.dumps({}), flush=True)
            continue
        cold = drop_page_cache(folder) if system == "make_jax" else False
        start, processor = time.perf_counter(), time.process_time()
        results = search()
        seconds = time.perf_counter() - start
        measured = {"seconds": seconds, "processor": time.process_time() - processor, "peak": peak(), "from_disk": cold}
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
