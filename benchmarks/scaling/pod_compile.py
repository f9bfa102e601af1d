"""Compiles the step of configs/pod.py for its pods with libtpu's compiler; no TPU is needed.

    python benchmarks/scaling/pod_compile.py [--out docs/results/pod-compile.json]

Needs the package libtpu of this JAX (`pip install "jax[tpu]"`), 10 GiB and up to 25 minutes per pod on two CPU cores.
Nothing is executed: memory and collectives are from the compiled program, FLOPs from the traced one; there is no time.
"""

import argparse
import importlib.metadata
import json
import os
import runpy
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.planning.dry_run import dry_run
from make_jax.runs.provenance import metadata
from make_jax.training.step import STEP_FUNCTIONS

PODS = (("v5e", 256), ("v5p", 64))
MIB = 2**20


def recipe() -> Config:
    """configs/pod.py."""
    config: Config = runpy.run_path(str(ROOT / "configs" / "pod.py"))["config"]
    return config


def compile_for(device: str, count: int) -> dict[str, Any]:
    """Returns memory, FLOPs and collectives of the program for one pod."""
    config, start = recipe(), time.perf_counter()
    report = dry_run(config, STEP_FUNCTIONS, device, count)
    compiled = report.compiled
    assert compiled is not None and report.device_memory is not None
    collectives = [{**each._asdict(), "sent_mib": round(each.sent / MIB, 2)} for each in compiled.collectives]
    for each in collectives:
        del each["axes"]  # the compiled program does not name them
    return {
        "device": device,
        "count": count,
        "topology": compiled.target.split()[0],
        "fits": report.fits,
        "refusal": compiled.error,
        "batch": config.train.batch_size,
        "fsdp": report.fsdp,
        "micro_batch": config.train.micro_batch_size,
        "parameters": report.parameters,
        "mib": {
            "there is": round(report.device_memory / MIB),
            "state and batch": round(compiled.arguments / MIB),
            "temporary": round(compiled.temporary / MIB),
            "program": round(compiled.code / MIB),
            "total": round(compiled.total / MIB),
            "temporary, estimated without the compiler": round(report.step.live_bytes / MIB),
        },
        "tflop_a_device": {kind: round(flops / 1e12, 2) for kind, flops in report.step.flops.items()},
        "collectives": collectives,
        "compile_seconds": round(time.perf_counter() - start),
    }


def main() -> None:
    """Compiles for all pods and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "pod-compile.json")
    args = parser.parse_args()
    provenance = metadata(Catalog.load(""), seed=recipe().train.seed)
    rows: list[dict[str, Any]] = []
    # One process per pod: the compiler does not free its memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as each:
        for row in each.map(compile_for, *zip(*PODS, strict=True)):
            rows.append(row)
            print(json.dumps(row), flush=True)
            made = {"about": provenance, "libtpu": importlib.metadata.version("libtpu"), "rows": rows}
            write_atomically(args.out, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
