"""Strong scaling: a training step of configs/fashion.py over 1 to 8 devices and 1 to 4 processes of one machine.

    python benchmarks/scaling/strong_scaling.py [--batch 256] [--steps 5] [--rounds 3] [--out docs/results/scaling.json]

Two CPU cores, about 2 minutes per round plus compilation. The global batch is constant, and simulated devices share the
cores, so no setting can be much faster than one device:

    efficiency = (step time on one device of one process) / (step time)

is 1 for ideal scaling; the rest is lost in collectives, smaller matrix products and synchronization. It can exceed 1 if
several devices use the cores better than one. It does not predict the speed of a pod.

Settings alternate and are restarted in each round; times are medians over the steps of all rounds. Collectives are
counted in the compiled program (`make_jax/planning/hlo_collectives.py`); bytes are those sent by a device.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS
from benchmarks.common import processes as local_processes
from benchmarks.common.steps import KEYWORDS, VOCAB_SIZE, random_batch
from benchmarks.study.objective_costs import config_of
from make_jax.catalog.reader import Catalog
from make_jax.config import Config, DistributedConfig
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.model.make import Make
from make_jax.planning.hlo_collectives import compiled_collectives
from make_jax.runs.mesh import make_mesh, shard_batch
from make_jax.runs.processes import init_distributed
from make_jax.runs.provenance import metadata
from make_jax.training.step import init_state, make_step

SETTINGS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2))  # processes, devices of each
SECONDS = 1200.0  # timeout of a setting


def recipe(batch: int) -> Config:
    """Returns configs/fashion.py with its contrastive objectives at another batch size."""
    config = config_of({"title_contrast": 0.5, "image_contrast": 0.5, "keyword_masking": True})
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=batch))


def worker(batch: int, steps: int, distributed: DistributedConfig) -> None:
    """Runs one process of a setting; the coordinator prints its measurements as JSON."""
    config = recipe(batch)
    with init_distributed(distributed, lambda: None) as processes:
        mesh = make_mesh()
        model = Make(config.model, config.inputs, VOCAB_SIZE, KEYWORDS)
        state = init_state(model, config, mesh)
        rows = batch // processes.count
        local_rows = slice(processes.index * rows, (processes.index + 1) * rows)
        global_batch = {name: value for name, value in random_batch(config).items() if not name.startswith("swap")}
        placed = shard_batch({name: value[local_rows] for name, value in global_batch.items()}, mesh)
        step = make_step(model, config, mesh, state.params).lower(state, placed).compile()  # type: ignore[attr-defined]
        seconds = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            state, metrics = step(state, placed)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        if processes.is_coordinator:
            collectives = [{**entry._asdict(), "sent": entry.sent} for entry in compiled_collectives(step.as_text())]
            temporary = step.memory_analysis().temp_size_in_bytes
            measured = {"seconds": seconds[1:], "collectives": collectives, "temporary": temporary}
            print(json.dumps(measured | {"loss": float(metrics["loss"])}))


def measure(processes: int, devices: int, batch: int, steps: int) -> dict[str, Any]:
    """Starts a setting and returns its measurements."""
    with tempfile.TemporaryDirectory() as logs:
        program = ("benchmarks/scaling/strong_scaling.py", "--worker", f"--batch={batch}", f"--steps={steps}")
        started = local_processes.start((), processes, devices, Path(logs), program=program)
        codes = local_processes.wait(started, SECONDS)
        output = local_processes.log_file(Path(logs), 0).read_text()
        if any(codes):
            raise InputError(f"{processes} processes of {devices} devices ended with {codes}: {output[-500:]}")
        measured: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return measured


def row(processes: int, devices: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the row of one setting."""
    seconds = [entry for measured in rounds for entry in measured["seconds"]]
    collectives = rounds[0]["collectives"]
    return {
        "processes": processes,
        "devices": processes * devices,
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "loss": rounds[0]["loss"],
        "temporary_mib": round(rounds[0]["temporary"] / 2**20, 1),
        "sent_mib": round(sum(entry["sent"] for entry in collectives) / 2**20, 3),
        "collectives": [{k: v for k, v in entry.items() if k != "axes"} for entry in collectives],
    }


def main() -> None:
    """Measures all settings and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="rows of the global batch")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each start")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each setting")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for entry in dataclasses.fields(DistributedConfig):
        parser.add_argument(f"--distributed.{entry.name}", type=type(entry.default), default=entry.default)
    args = vars(parser.parse_args())
    if args["worker"]:
        names = [entry.name for entry in dataclasses.fields(DistributedConfig)]
        distributed = DistributedConfig(**{name: args[f"distributed.{name}"] for name in names})
        return worker(args["batch"], args["steps"], distributed)
    rounds: dict[tuple[int, int], list[dict[str, Any]]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as programs:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs  # compiled in the first round only
        for i in range(args["rounds"]):
            for processes, devices in SETTINGS:
                print(f"round {i + 1}: {processes} process(es) of {devices} device(s)", file=sys.stderr, flush=True)
                rounds[processes, devices].append(measure(processes, devices, args["batch"], args["steps"]))
    rows = [row(*setting, measured) for setting, measured in rounds.items()]
    for entry in rows:
        entry["efficiency"] = rows[0]["seconds"] / entry["seconds"]
    load = os.getloadavg()[0]
    result = {"about": metadata(Catalog.load(""), seed=0), **{k: args[k] for k in ("batch", "steps", "rounds")}}
    result |= {"cores": os.cpu_count(), "load_at_the_end": load, "rows": rows}
    write_atomically(args["out"], json.dumps(result, indent=1) + "\n")
    for entry in rows:
        print(
            f"{entry['processes']} processes, {entry['devices']} devices: {entry['seconds']:.3f} s a step (fastest "
            f"{entry['fastest']:.3f}), {entry['sent_mib']:8.2f} MiB sent a device, efficiency {entry['efficiency']:.2f}"
        )


if __name__ == "__main__":
    exit_cleanly(main)
