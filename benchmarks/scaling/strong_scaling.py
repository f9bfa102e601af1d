"""One training step of configs/fashion.py over 1 to 8 devices and 1 to 4 processes of this machine.

    python benchmarks/scaling/strong_scaling.py [--batch 256] [--steps 5] [--rounds 3] [--out docs/results/scaling.json]

The global batch is the same everywhere, and so is the work: pretended devices share the machine's cores, and splitting
the work over them makes none of it faster. So

    efficiency = (time of a step on one device of one process) / (time of a step)

is what splitting leaves, net of the real cores: 1 is a split that costs nothing, and what is missing went into
collectives, smaller matrix products, and processes that wait for each other. It can exceed 1, where several devices use
the cores better than one. It says nothing of how fast a pod would be.

Every setting is started anew in each round, settings alternating; times are medians over the steps of all rounds.
Collectives are counted in the compiled program (`make_jax/planning/hlo_collectives.py`); bytes are
those that a device sends.
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
from benchmarks.study.objective_costs import KEYWORDS, VOCABULARY, config_of, random_batch
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
SECONDS = 1200.0  # in which a setting must be done


def recipe(batch: int) -> Config:
    """What is trained: query-item contrast with everything that the recipe adds, at another batch size."""
    config = config_of({"title_contrast": 0.5, "image_contrast": 0.5, "keyword_masking": True})
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=batch))


def worker(batch: int, steps: int, found: DistributedConfig) -> None:
    """One process of one setting; the first prints what it measured as JSON."""
    config = recipe(batch)
    with init_distributed(found, lambda: None) as processes:
        mesh = make_mesh()
        model = Make(config.model, config.inputs, VOCABULARY, KEYWORDS)
        state = init_state(model, config, mesh)
        rows = batch // processes.count
        mine = slice(processes.index * rows, (processes.index + 1) * rows)
        whole = {name: value for name, value in random_batch(config).items() if not name.startswith("swap")}
        placed = shard_batch({name: value[mine] for name, value in whole.items()}, mesh)
        step = make_step(model, config, mesh, state.params).lower(state, placed).compile()  # type: ignore[attr-defined]
        seconds = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            state, metrics = step(state, placed)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - start)
        if processes.is_coordinator:
            collectives = [{**each._asdict(), "sent": each.sent} for each in compiled_collectives(step.as_text())]
            temporary = step.memory_analysis().temp_size_in_bytes
            told = {"seconds": seconds[1:], "collectives": collectives, "temporary": temporary}
            print(json.dumps(told | {"loss": float(metrics["loss"])}))


def measure(processes: int, devices: int, batch: int, steps: int) -> dict[str, Any]:
    """What one start of a setting measured."""
    with tempfile.TemporaryDirectory() as logs:
        program = ("benchmarks/scaling/strong_scaling.py", "--worker", f"--batch={batch}", f"--steps={steps}")
        started = local_processes.start((), processes, devices, Path(logs), program=program)
        codes = local_processes.wait(started, SECONDS)
        said = local_processes.said_by(Path(logs), 0).read_text()
        if any(codes):
            raise InputError(f"{processes} processes of {devices} devices ended with {codes}: {said[-500:]}")
        told: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
        return told


def row(processes: int, devices: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One setting's line of the result."""
    seconds = [each for told in rounds for each in told["seconds"]]
    collectives = rounds[0]["collectives"]
    return {
        "processes": processes,
        "devices": processes * devices,
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "loss": rounds[0]["loss"],
        "temporary_mib": round(rounds[0]["temporary"] / 2**20, 1),
        "sent_mib": round(sum(each["sent"] for each in collectives) / 2**20, 3),
        "collectives": [{k: v for k, v in each.items() if k != "axes"} for each in collectives],
    }


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="rows of the global batch")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each start")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each setting")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for each in dataclasses.fields(DistributedConfig):
        parser.add_argument(f"--distributed.{each.name}", type=type(each.default), default=each.default)
    asked = vars(parser.parse_args())
    if asked["worker"]:
        names = [each.name for each in dataclasses.fields(DistributedConfig)]
        found = DistributedConfig(**{name: asked[f"distributed.{name}"] for name in names})
        return worker(asked["batch"], asked["steps"], found)
    rounds: dict[tuple[int, int], list[dict[str, Any]]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as programs:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs  # compiled in the first round only
        for i in range(asked["rounds"]):
            for processes, devices in SETTINGS:
                print(f"round {i + 1}: {processes} process(es) of {devices} device(s)", file=sys.stderr, flush=True)
                rounds[processes, devices].append(measure(processes, devices, asked["batch"], asked["steps"]))
    rows = [row(*setting, told) for setting, told in rounds.items()]
    for each in rows:
        each["efficiency"] = rows[0]["seconds"] / each["seconds"]
    load = os.getloadavg()[0]
    made = {"about": metadata(Catalog.load(""), seed=0), **{k: asked[k] for k in ("batch", "steps", "rounds")}}
    made |= {"cores": os.cpu_count(), "load_at_the_end": load, "rows": rows}
    write_atomically(asked["out"], json.dumps(made, indent=1) + "\n")
    for each in rows:
        print(
            f"{each['processes']} processes, {each['devices']} devices: {each['seconds']:.3f} s a step (fastest "
            f"{each['fastest']:.3f}), {each['sent_mib']:8.2f} MiB sent a device, efficiency {each['efficiency']:.2f}"
        )


if __name__ == "__main__":
    exit_cleanly(main)
