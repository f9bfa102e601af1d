"""What a step of configs/pod.py would take at best on 16 to 1,024 chips: a model, counted and not measured.

    python benchmarks/cost_model.py [--out docs/results/cost-model.json]

FLOPs, memory traffic and exchanges are counted in the program that JAX traces for that many devices; a machine's peaks
and links turn them into seconds (`make_jax/planning/roofline.py` has the formulas and what they leave out,
`make_jax/planning/hardware.py` and `devices.py` the makers' figures). Two questions:

    same batch   65,536 pairs a step on ever more chips
    same rows    256 pairs a chip, so that the batch and its negatives grow with the chips

Assumptions: chips reach their peaks; exchanges run one after another; `least` hides everything behind the longest of
compute, memory and network, `most` hides nothing; beyond an island (a host of GPUs, a pod of 256 v5e) chips talk over
the data centre's network; nobody waits for data. A real step is slower than `least`; the ratio of two rows is worth
more than either.
"""

import argparse
import dataclasses
import json
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.errors import exit_cleanly
from make_jax.files import write_atomically
from make_jax.planning.dry_run import Report, trace_step
from make_jax.planning.hardware import machine_of
from make_jax.planning.roofline import bounds
from make_jax.runs.provenance import metadata

ROOT = Path(__file__).resolve().parent.parent
CHIPS = (16, 32, 64, 128, 256, 512, 1024)
MACHINES = ("v5e", "v5p", "h100")
ROWS = 256  # a chip, where the batch grows
MIB = 2**20
Form = Literal["gather", "ring"]
FORMS: tuple[Form, ...] = ("ring", "gather")


def at(config: Config, batch: int, form: Form) -> Config:
    """The recipe with another batch and form of the loss."""
    train = dataclasses.replace(config.train, batch_size=batch)
    return dataclasses.replace(config, train=train, objectives=dataclasses.replace(config.objectives, form=form))


def measure(config: Config, question: str, chips: int, batch: int, form: Form) -> Iterator[dict[str, Any]]:
    """A row for each machine."""
    traced = trace_step(at(config, batch, form), MACHINES[0], chips)
    for name in MACHINES:
        yield row(traced, question, name, batch, form)


def row(traced: Report, question: str, name: str, batch: int, form: Form) -> dict[str, Any]:
    """What the counts of a step mean on one machine."""
    machine, step = machine_of(name), traced.step
    assert machine.peak is not None
    found = bounds(step, traced.held["parameters"], machine, traced.devices, traced.fsdp)
    assert found is not None
    total = sum(traced.held.values()) + step.alive
    return {
        "question": question,
        "machine": name,
        "chips": traced.devices,
        "batch": batch,
        "form": form,
        "tflop_a_chip": round(step.all_flops / 1e12, 2),
        "loss_share_of_flops": round(traced.loss.all_flops / step.all_flops, 4),
        "mib_sent_a_chip": round(sum(each.sent for each in step.collectives) / MIB, 1),
        "loss_mib_sent_a_chip": round(sum(each.sent for each in traced.loss.collectives) / MIB, 1),
        "loss_mib_alive": round(traced.loss.alive / MIB, 1),
        "seconds": {
            what: round(seconds, 4)
            for what, seconds in (
                ("compute", found.compute),
                ("memory", found.memory),
                ("network", found.network),
                ("least", found.least),
                ("most", found.most),
            )
        },
        "pairs_a_second": {"at least": round(batch / found.most), "at most": round(batch / found.least)},
        "share_of_peak": {
            "at least": round(found.compute / found.most, 3),
            "at most": round(found.compute / found.least, 3),
        },
        "estimated_mib": round(total / MIB),
        "fits": total <= machine.peak.memory,
    }


def main() -> None:
    """Traces and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "cost-model.json")
    asked = parser.parse_args()
    config: Config = runpy.run_path(str(ROOT / "configs" / "pod.py"))["config"]
    told = metadata(Catalog.load(""), seed=config.train.seed)
    cases = [("same batch", chips, config.train.batch_size) for chips in CHIPS]
    cases += [("same rows", chips, ROWS * chips) for chips in CHIPS]
    rows: list[dict[str, Any]] = []
    for question, chips, batch in cases:
        for form in FORMS:
            rows += measure(config, question, chips, batch, form)
        print(f"{question}, {chips} chips: {rows[-1]['seconds']}", flush=True)
        write_atomically(asked.out, json.dumps({"about": told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
