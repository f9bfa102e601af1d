"""Memory of the contrastive loss by implementation, batch size, tile and number of keywords, on eight devices.

    python benchmarks/loss/memory.py [--out docs/results/loss-memory.json]

Any CPU; only compiles. Reports the compiler's plan of temporary buffers per device for value and gradient, without
inputs and outputs, on eight simulated CPU devices; f32 vectors of 512 dimensions with ids, weights and margin.
"open_clip" is its ClipLoss written in JAX, without ids and keywords; peers.py measures open_clip itself.
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
    """Compiles all cases and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "loss-memory.json")
    args = parser.parse_args()
    mesh = make_mesh(fsdp=2)
    rows = []
    for implementation, batch, tile, keywords in CASES:
        program = value_and_gradient(implementation, tile or TILE, mesh).lower(specs(batch, keywords, mesh)).compile()
        mib = round(program.memory_analysis().temp_size_in_bytes / 2**20, 2)
        rows.append({"form": implementation, "batch": batch, "tile": tile, "keywords": keywords, "temporary_mib": mib})
        print(
            f"{implementation:9} batch {batch:6} tile {tile:4} keywords {keywords:4}  {mib:10.2f} MiB",
            flush=True,
        )
    result = {"about": metadata(Catalog.load(""), seed=0), "devices": mesh.size, "width": WIDTH, "rows": rows}
    write_atomically(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
