"""Cost model of a step of configs/pod.py on 16 to 1,024 chips: counted, not measured.

    python benchmarks/scaling/cost_model.py [--out docs/results/cost-model.json]

Any CPU; only traces the step. FLOPs, memory traffic and collectives are counted in the program that JAX traces for the
devices, and divided by peak rates (`make_jax/planning/roofline.py` has the formulas and their limits,
`make_jax/planning/hardware.py` the datasheet figures). Two series:

    same batch   65,536 pairs per step on more and more chips
    same rows    256 pairs per chip: the batch and its negatives grow with the chips

Assumptions: chips reach their peaks; collectives run one after another; `least` overlaps compute, memory and network
completely, `most` not at all; beyond an island (a host of GPUs, a pod of 256 v5e) chips use the data center network; no
step waits for data. A real step is slower than `least`; ratios of rows are more reliable than the values.
"""

import argparse
import dataclasses
import json
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.planning.dry_run import DryRunReport, trace_step
from make_jax.planning.hardware import find_machine
from make_jax.planning.roofline import step_time_bounds
from make_jax.runs.provenance import metadata
from make_jax.training.step import STEP_FUNCTIONS

CHIPS = (16, 32, 64, 128, 256, 512, 1024)
MACHINES = ("v5e", "v5p", "h100")
ROWS = 256  # a chip, where the batch grows
MIB = 2**20
Form = Literal["gather", "ring"]
FORMS: tuple[Form, ...] = ("ring", "gather")


def at(config: Config, batch: int, form: Form) -> Config:
    """The recipe with another batch and form of the loss."""
    train = dataclasses.replace(config.train, batch_size=batch)
    return dataclasses.replace(
        config, train=train, objectives=dataclasses.replace(config.objectives, implementation=form)
    )


def measure(config: Config, question: str, chips: int, batch: int, form: Form) -> Iterator[dict[str, Any]]:
    """A row for each machine."""
    traced = trace_step(at(config, batch, form), STEP_FUNCTIONS, MACHINES[0], chips)
    for name in MACHINES:
        yield row(traced, question, name, batch, form)


def row(traced: DryRunReport, question: str, name: str, batch: int, form: Form) -> dict[str, Any]:
    """What the counts of a step mean on one machine."""
    machine, step = find_machine(name), traced.step
    assert machine.chip is not None
    bounds = step_time_bounds(step, traced.resident["parameters"], machine, traced.devices, traced.fsdp)
    assert bounds is not None
    return {
        "question": question,
        "machine": name,
        "chips": traced.devices,
        "batch": batch,
        "form": form,
        "tflop_a_chip": round(step.total_flops / 1e12, 2),
        "loss_share_of_flops": round(traced.loss.total_flops / step.total_flops, 4),
        "mib_sent_a_chip": round(sum(each.sent for each in step.collectives) / MIB, 1),
        "loss_mib_sent_a_chip": round(sum(each.sent for each in traced.loss.collectives) / MIB, 1),
        "loss_mib_alive": round(traced.loss.live_bytes / MIB, 1),
        "seconds": {
            what: round(seconds, 4)
            for what, seconds in (
                ("compute", bounds.compute),
                ("memory", bounds.memory),
                ("network", bounds.network),
                ("least", bounds.lower),
                ("most", bounds.upper),
            )
        },
        "pairs_a_second": {"at least": round(batch / bounds.upper), "at most": round(batch / bounds.lower)},
        "share_of_peak": {
            "at least": round(bounds.compute / bounds.upper, 3),
            "at most": round(bounds.compute / bounds.lower, 3),
        },
        "estimated_mib": round(traced.total_bytes / MIB),
        "fits": traced.total_bytes <= machine.chip.memory,
    }


def main() -> None:
    """Traces and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "cost-model.json")
    args = parser.parse_args()
    config: Config = runpy.run_path(str(ROOT / "configs" / "pod.py"))["config"]
    provenance = metadata(Catalog.load(""), seed=config.train.seed)
    cases = [("same batch", chips, config.train.batch_size) for chips in CHIPS]
    cases += [("same rows", chips, ROWS * chips) for chips in CHIPS]
    rows: list[dict[str, Any]] = []
    for question, chips, batch in cases:
        for form in FORMS:
            rows += measure(config, question, chips, batch, form)
        print(f"{question}, {chips} chips: {rows[-1]['seconds']}", flush=True)
        write_atomically(args.out, json.dumps({"about": provenance, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
