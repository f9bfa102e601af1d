"""Exact search of vectors on disk, by us, beside FAISS IndexFlatIP with all of them in memory, in one alternating run.

    python benchmarks/search_scale.py --folder WORK [--faiss-python PYTHON] [--out docs/results/search-scale.json]

WORK receives the vectors, 512 MB a million, made from the seed where they are missing and kept; PYTHON is one that has
faiss (`pip install faiss-cpu`) beside numpy, pyarrow and jaxtyping. Counts of `--beside` are searched by both, where
each round runs one after the other; `--vectors` by us alone. Both use all cores. Our seconds hold reading the disk,
FAISS's do not hold filling its index. Both must find the same, ties of float32 apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import search_scale_vectors

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
ROUNDED = 1e-6  # by which two float32 scores of unit vectors may differ


class Peer:
    """The process of one side."""

    def __init__(self, python: str, side: str, arguments: list[str]) -> None:
        self.side = side
        self.told: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [python, str(HERE / "search_scale_peer.py"), side, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )

    def ask(self, word: str) -> dict[str, Any]:
        """Its answer."""
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"the process of {self.side} ended before it answered; its own message stands above")
        return json.loads(line)

    def found(self) -> dict[str, np.ndarray]:
        """Scores and positions of its last run."""
        with tempfile.TemporaryDirectory() as folder:
            self.ask(f"save {folder}/found.npz")
            return dict(np.load(f"{folder}/found.npz"))

    def close(self) -> None:
        """Ends it."""
        self._process.stdin.close()
        self._process.wait(timeout=60)


def check_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference of scores; InputError when two positions differ and their scores do not tie."""
    apart = np.abs(ours["scores"] - theirs["scores"])
    last = theirs["scores"][:, -1:]  # equals of the last may be left out on either side
    for mine in ours["positions"]:
        if len(set(mine)) < len(mine):
            raise InputError("a position was found twice")
    unlike = ours["positions"] != theirs["positions"]
    for query in np.flatnonzero(unlike.any(axis=1)):
        known = dict(zip(theirs["positions"][query], theirs["scores"][query], strict=True))
        for position, score in zip(ours["positions"][query], ours["scores"][query], strict=True):
            if abs(known.get(position, last[query, 0]) - score) > ROUNDED:
                raise InputError(f"query {query}: make_jax found {position} with {score}, FAISS something else")
    if apart.max() > ROUNDED:
        raise InputError(f"scores differ by {apart.max()}, expected at most {ROUNDED}: not the same search")
    return float(apart.max())


def measure(sides: dict[str, str], folder: Path, asked: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """A row for each side; the first run of each is not timed."""
    arguments = [str(folder), str(asked.seed), str(asked.queries), str(asked.k)]
    peers = [Peer(python, side, arguments) for side, python in sides.items()]
    for peer in peers:
        peer.ask("run")
    apart = check_same(*(peer.found() for peer in peers)) if len(peers) > 1 else None
    for _ in range(asked.rounds):
        for peer in peers:
            peer.told.append(peer.ask("run"))
    rows = []
    for peer in peers:
        seconds = [told["seconds"] for told in peer.told]
        rows.append(
            {
                "side": peer.side,
                "vectors": count,
                "seconds": round(statistics.median(seconds), 2),
                "least_seconds": round(min(seconds), 2),
                "processor_seconds": round(statistics.median(told["processor"] for told in peer.told), 2),
                "peak_gib": round(max(told["peak"] for told in peer.told) / 2**30, 3),
                "from_disk": all(told["from_disk"] for told in peer.told),
                "scores_apart": apart,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        peer.close()
    return rows


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="receives the vectors")
    parser.add_argument("--faiss-python", default=sys.executable, help="a Python that has faiss")
    parser.add_argument("--vectors", type=int, nargs="*", default=[10_000_000], help="counts for us alone")
    parser.add_argument("--beside", type=int, nargs="*", default=[1_000_000, 2_000_000], help="counts for both")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=100, help="vectors found for each query")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "search-scale.json")
    asked = parser.parse_args()
    asks = "import faiss; print(faiss.__version__, faiss.get_compile_options(), faiss.omp_get_max_threads(), sep='; ')"
    version = subprocess.run([asked.faiss_python, "-c", asks], capture_output=True, text=True)
    if version.returncode and asked.beside:
        raise InputError(f"--faiss-python {asked.faiss_python}: cannot import faiss; pip install faiss-cpu there")
    told = metadata(
        Catalog.load(""),
        seed=asked.seed,
        command="python benchmarks/search_scale.py --folder WORK --faiss-python PYTHON",
        faiss=version.stdout.strip(),
        cores=os.cpu_count(),
        load_at_start=round(os.getloadavg()[0], 2),
    )
    settings = {name: getattr(asked, name) for name in ("queries", "k", "rounds")} | {
        "width": search_scale_vectors.WIDTH,
        "vectors_are": "random unit vectors, float16 on disk",
    }
    rows: list[dict[str, Any]] = []
    both = {"make_jax": sys.executable, "faiss": asked.faiss_python}
    for count in [*asked.beside, *asked.vectors]:  # written after each, so that a run that is stopped keeps what it has
        sides = both if count in asked.beside else {"make_jax": sys.executable}
        print(f"{count:,} vectors", file=sys.stderr, flush=True)
        search_scale_vectors.write(asked.folder, asked.seed, count)
        rows += measure(sides, asked.folder / f"{count}-vectors-{asked.seed}", asked, count)
        write_atomically(asked.out, json.dumps({"about": told, **settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
