"""Memory of the contrastive loss by form, batch, tile and count of keywords, on eight devices.

    python benchmarks/loss/memory.py [--out docs/results/loss-memory.json]

What the compiler plans for value and gradient on each device beside inputs and outputs (temporary buffers). Programs
are compiled for shapes, with no data, for eight pretended CPU devices; with ids, weights and margin, vectors of 512
numbers in f32. "open_clip" is the form of its ClipLoss written in JAX, which knows neither ids nor keywords; against
the software itself see peers.py.
"""

import os
import sys

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import argparse
import json
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS
from benchmarks.loss.inputs import WIDTH, specs, value_and_gradient
from make_jax.catalog.reader import Catalog
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.mesh import make_mesh
from make_jax.runs.provenance import metadata

BATCHES = tuple(2**n for n in range(14, 19))
KEYWORDS, BATCH, TILE = 2048, 65536, 256
CASES = [
    *(("ring", batch, TILE, keywords) for keywords in (KEYWORDS, 0) for batch in BATCHES),
    *(("ring", BATCH, tile, KEYWORDS) for tile in (64, 128, 512, 1024)),
    *(("ring", BATCH, TILE, keywords) for keywords in (256, 8192)),
    *(("gather", batch, 0, keywords) for keywords in (KEYWORDS, 0) for batch in BATCHES),
    *(("open_clip", batch, 0, 0) for batch in BATCHES),
]


def main() -> None:
    """Compiles and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "loss-memory.json")
    asked = parser.parse_args()
    mesh = make_mesh(fsdp=2)
    rows = []
    for form, batch, tile, keywords in CASES:
        program = value_and_gradient(form, tile or TILE, mesh).lower(specs(batch, keywords, mesh)).compile()
        mib = round(program.memory_analysis().temp_size_in_bytes / 2**20, 2)
        rows.append({"form": form, "batch": batch, "tile": tile, "keywords": keywords, "temporary_mib": mib})
        print(f"{form:9} batch {batch:6} tile {tile:4} keywords {keywords:4}  {mib:10.2f} MiB a device", flush=True)
    made = {"about": metadata(Catalog.load(""), seed=0), "devices": mesh.size, "width": WIDTH, "rows": rows}
    write_atomically(asked.out, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
