"""Time of the contrastive loss on one device: plain implementation against the tiles of the ring implementation.

    python benchmarks/loss/timing.py [--rounds 7] [--out docs/results/loss-time.json]

Two CPU cores, about one minute per round. Value and gradient, f32 vectors of 512 dimensions with ids, weights and
margin, with 2,048 keywords and without. Programs alternate; the file has median, minimum and quartiles over rounds. CPU
time sums all threads and is less affected by other load on the machine than wall time.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS
from benchmarks.loss.inputs import WIDTH, arrays, value_and_gradient
from make_jax.catalog.reader import Catalog
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

BATCHES = (8192, 16384)
FORMS = {"plain": ("gather", 256), "ring, tile 256": ("ring", 256), "ring, tile 512": ("ring", 512)}


def spread(seconds: list[float]) -> dict[str, Any]:
    """Returns median, minimum and quartiles."""
    quartiles = [round(q, 3) for q in statistics.quantiles(seconds, n=4)]
    return {"median": round(statistics.median(seconds), 3), "least": round(min(seconds), 3), "quartiles": quartiles}


def measure(batch: int, keywords: int, rounds: int) -> list[dict[str, Any]]:
    """Returns one row per implementation."""
    inputs = arrays(batch, keywords)
    programs = {name: value_and_gradient(*form).lower(inputs).compile() for name, form in FORMS.items()}
    clock: dict[str, list[float]] = {name: [] for name in programs}
    processor: dict[str, list[float]] = {name: [] for name in programs}
    for round_index in range(rounds + 1):
        for name, program in programs.items():
            start, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(inputs))
            if round_index:  # the first is a warm-up
                clock[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - used)
    rows = []
    for name in programs:
        pairs = zip(clock[name], clock["plain"], strict=True)
        ratios = {"clock": statistics.median(seconds / plain for seconds, plain in pairs)}
        ratios["processor"] = statistics.median(processor[name]) / statistics.median(processor["plain"])
        rows.append(
            {
                "form": name,
                "batch": batch,
                "keywords": keywords,
                "seconds": spread(clock[name]),
                "processor_seconds": spread(processor[name]),
                "times_plain": {what: round(ratio, 3) for what, ratio in ratios.items()},
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measures all cases and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each program")
    parser.add_argument("--out", type=Path, default=RESULTS / "loss-time.json")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    provenance = metadata(Catalog.load(""), seed=0, cores=os.cpu_count(), load_at_start=round(load, 2))
    rows: list[dict[str, Any]] = []
    for batch, keywords in itertools.product(BATCHES, (0, 2048)):
        rows += measure(batch, keywords, args.rounds)  # written after each, so that an interrupted run keeps it
        result = {"about": provenance, "rounds": args.rounds, "width": WIDTH, "rows": rows}
        write_atomically(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
