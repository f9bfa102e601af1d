"""What public text weights are worth: configs/fashion_pretrained.py beside configs/fashion.py and MiniLM as it is.

    python benchmarks/baselines/pretrained.py --catalogs FOLDER --minilm FOLDER [--torch PYTHON] [--out pretrained.json]

FOLDER of --catalogs has fashion-full.zip and fashion-sparse-full.zip; --minilm is all-MiniLM-L6-v2 as a folder of
sentence-transformers; --torch a Python that has make_jax[models], this one without it. From scratch a model learns for
SCRATCH_STEPS steps, which takes it about as long as the other has; both times are kept. Paraphrases (`handwritten`) are
in the validation split alone. Training goes on from checkpoints, and a report that is there is not made again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.common.processes import run_program
from make_jax.errors import InputError, exit_cleanly
from make_jax.evaluation.compare import ReadReport, compare, read_report
from make_jax.evaluation.models import run
from make_jax.files import write_atomically

CATALOGS = ("fashion-full", "fashion-sparse-full")
MODELS = ("pretrained", "scratch", "minilm")  # the others are what the first is compared with
SCRATCH_STEPS = 1700
METRIC = "nDCG@10"
SLICES: dict[Literal["val", "test"], tuple[str, ...]] = {
    "val": ("kind:handwritten lang:en", "kind:handwritten lang:zh", "kind:attr lang:en", "kind:attr lang:zh"),
    "test": ("all", "kind:attr lang:en", "heldout:yes lang:en", "kind:attr lang:zh", "heldout:yes lang:zh"),
}


def reports(model: str, name: str, catalog: str, asked: argparse.Namespace) -> dict[str, Path]:
    """The reports of a model on both splits of a catalog, by split; trains and evaluates what is missing."""
    trained = asked.runs / f"{name}-{model}"
    found = {split: asked.runs / f"{name}-{model}-{split}" for split in SLICES}
    missing = {split: report for split, report in found.items() if not (report / "report.json").is_file()}
    python, what = sys.executable, str(trained)
    if model == "minilm":
        python, what = asked.torch, asked.minilm
    elif missing and model == "pretrained":
        weights = ["--model.query.init-from", asked.minilm, "--model.title.init-from", asked.minilm]
        _train("configs/fashion_pretrained.py", trained, catalog, weights)
    elif missing:
        steps = ["--train.steps", str(SCRATCH_STEPS), "--train.eval-every", "0"]
        _train("configs/fashion.py", trained, catalog, steps)
    for split, report in missing.items():
        run_program([python, "eval.py", what, "--data.catalog", catalog, "--split", split, "--out", str(report)])
    return found


def row(read: ReadReport, split: Literal["val", "test"]) -> dict[str, Any]:
    """The main system's figures of a report, with intervals, by slice."""
    slices = read.report["slices"]
    return {name: slices[name]["systems"][read.system][METRIC] for name in SLICES[split]}


def differences(a: ReadReport, b: ReadReport, split: Literal["val", "test"]) -> dict[str, Any]:
    """A minus B by slice, paired, each with its 95 % interval."""
    compared = compare(a, b)["slices"]
    return {
        name: {"queries": compared[name]["queries"]}
        | {key: compared[name]["metrics"][METRIC][key] for key in ("difference", "low", "high", "p")}
        for name in SLICES[split]
    }


def measure(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """All there is to say of one catalog."""
    catalog = str(asked.catalogs / f"{name}.zip")
    made: dict[str, Any] = {"models": {}, "pretrained minus": {}}
    read = {}
    for model in MODELS:
        found = reports(model, name, catalog, asked)
        read[model] = {split: read_report(path) for split, path in found.items()}
        made["models"][model] = {split: row(read[model][split], split) for split in SLICES}
        if model != "minilm":
            told = run.run_info(asked.runs / f"{name}-{model}").run
            made["models"][model] |= {"steps": told["steps"], "training_seconds": told["training_seconds"]}
    for other in MODELS[1:]:
        made["pretrained minus"][other] = {
            split: differences(read["pretrained"][split], read[other][split], split) for split in SLICES
        }
    about = read["pretrained"]["test"].report["about"]
    return made | {"about": {key: about[key] for key in ("commit", "versions", "machine", "catalog")}}


def _train(recipe: str, out: Path, catalog: str, options: list[str]) -> None:
    run_program(
        [sys.executable, "train.py", "--config", recipe, "--data.catalog", catalog, "--run", str(out), *options]
    )


def main() -> None:
    """Runs what is missing and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", type=Path, required=True, help="the folder of the two catalogs")
    parser.add_argument("--minilm", required=True, help="a folder of sentence-transformers, all-MiniLM-L6-v2")
    parser.add_argument("--torch", default=sys.executable, help="a Python with make_jax[models]")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "pretrained", help="for models and reports")
    parser.add_argument("--out", type=Path, default=RESULTS / "pretrained.json")
    asked = parser.parse_args()
    asked.catalogs, asked.runs, asked.minilm = asked.catalogs.resolve(), asked.runs.resolve(), _folder(asked.minilm)
    made = {name: measure(name, asked) for name in CATALOGS}
    write_atomically(asked.out, json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def _folder(path: str) -> str:
    if not Path(path).is_dir():
        raise InputError(f"--minilm: {path} is no folder")
    return str(Path(path).resolve())


if __name__ == "__main__":
    exit_cleanly(main)
