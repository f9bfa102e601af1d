"""Exact search of vectors on disk by make_jax and in memory by FAISS IndexFlatIP, in one alternating run.

    python benchmarks/search/faiss_comparison.py --folder WORK [--faiss-python PYTHON]

WORK receives the vectors, 512 MB per million, generated from the seed where missing; PYTHON has faiss
(`pip install faiss-cpu`), numpy, pyarrow and jaxtyping. Counts of `--both` are searched by both systems, alternating in
each round; counts of `--vectors` by make_jax alone. Both use all cores. The seconds of make_jax include reading the
disk; those of FAISS exclude filling its index. Both must return the same results except for float32 ties.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.search import random_vectors
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-6  # between two float32 scores of unit vectors


class Peer:
    """The process of one system."""

    def __init__(self, python: str, system: str, arguments: list[str]) -> None:
        self.system = system
        self.measurements: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [python, str(HERE / "peer.py"), system, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )

    def call(self, command: str) -> dict[str, Any]:
        """The response to one command."""
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"the process of {self.system} ended without a response; its own message is above")
        return json.loads(line)

    def results(self) -> dict[str, np.ndarray]:
        """Scores and positions of its last search."""
        with tempfile.TemporaryDirectory() as folder:
            self.call(f"save {folder}/found.npz")
            return dict(np.load(f"{folder}/found.npz"))

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(timeout=60)


def check_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference of scores. Raises InputError when positions differ without a tie of their scores."""
    differences = np.abs(ours["scores"] - theirs["scores"])
    last = theirs["scores"][:, -1:]  # ties with the last result may be cut off on either side
    for positions in ours["positions"]:
        if len(set(positions)) < len(positions):
            raise InputError("a position is in one result twice")
    unequal = ours["positions"] != theirs["positions"]
    for query in np.flatnonzero(unequal.any(axis=1)):
        known = dict(zip(theirs["positions"][query], theirs["scores"][query], strict=True))
        for position, score in zip(ours["positions"][query], ours["scores"][query], strict=True):
            if abs(known.get(position, last[query, 0]) - score) > TOLERANCE:
                raise InputError(f"query {query}: make_jax returned {position} with {score}, FAISS another one")
    if differences.max() > TOLERANCE:
        raise InputError(f"scores differ by {differences.max()}, expected at most {TOLERANCE}: not the same search")
    return float(differences.max())


def measure(systems: dict[str, str], folder: Path, options: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """A row for each system; the first run of each is not timed."""
    arguments = [str(folder), str(options.seed), str(options.queries), str(options.k)]
    peers = [Peer(python, system, arguments) for system, python in systems.items()]
    for peer in peers:
        peer.call("run")
    difference = check_same(*(peer.results() for peer in peers)) if len(peers) > 1 else None
    for _ in range(options.rounds):
        for peer in peers:
            peer.measurements.append(peer.call("run"))
    rows = []
    for peer in peers:
        seconds = [measured["seconds"] for measured in peer.measurements]
        rows.append(
            {
                "side": peer.system,
                "vectors": count,
                "seconds": round(statistics.median(seconds), 2),
                "least_seconds": round(min(seconds), 2),
                "processor_seconds": round(statistics.median(one["processor"] for one in peer.measurements), 2),
                "peak_gib": round(max(measured["peak"] for measured in peer.measurements) / 2**30, 3),
                "from_disk": all(measured["from_disk"] for measured in peer.measurements),
                "scores_apart": difference,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        peer.close()
    return rows


def main() -> None:
    """Measures, and writes the result file after each count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="receives the vectors")
    parser.add_argument("--faiss-python", default=sys.executable, help="a Python that has faiss")
    parser.add_argument("--vectors", type=int, nargs="*", default=[10_000_000], help="counts for make_jax alone")
    parser.add_argument("--both", type=int, nargs="*", default=[1_000_000, 2_000_000], help="counts for both")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=100, help="vectors found for each query")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each system")
    parser.add_argument("--out", type=Path, default=RESULTS / "search-scale.json")
    options = parser.parse_args()
    probe = "import faiss; print(faiss.__version__, faiss.get_compile_options(), faiss.omp_get_max_threads(), sep='; ')"
    version = subprocess.run([options.faiss_python, "-c", probe], capture_output=True, text=True)
    if version.returncode and options.both:
        raise InputError(f"--faiss-python {options.faiss_python}: cannot import faiss; pip install faiss-cpu there")
    about = metadata(
        Catalog.load(""),
        seed=options.seed,
        command="python benchmarks/search/faiss_comparison.py --folder WORK --faiss-python PYTHON",
        faiss=version.stdout.strip(),
        cores=os.cpu_count(),
        load_at_start=round(os.getloadavg()[0], 2),
    )
    settings = {name: getattr(options, name) for name in ("queries", "k", "rounds")} | {
        "width": random_vectors.WIDTH,
        "vectors_are": "random unit vectors, float16 on disk",
    }
    rows: list[dict[str, Any]] = []
    both_systems = {"make_jax": sys.executable, "faiss": options.faiss_python}
    for count in [*options.both, *options.vectors]:
        systems = both_systems if count in options.both else {"make_jax": sys.executable}
        print(f"{count:,} vectors", file=sys.stderr, flush=True)
        random_vectors.write(options.folder, options.seed, count)
        rows += measure(systems, options.folder / f"{count}-vectors-{options.seed}", options, count)
        write_atomically(options.out, json.dumps({"about": about, **settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
