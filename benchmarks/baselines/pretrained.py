"""Compares MAKE with pretrained text encoders, MAKE from scratch and MiniLM zero-shot.

    python benchmarks/baselines/pretrained.py --catalogs FOLDER --minilm FOLDER [--torch PYTHON] [--out pretrained.json]

Two CPU cores, about 2.5 hours. --catalogs has fashion-full.zip and fashion-sparse-full.zip; --minilm is
all-MiniLM-L6-v2 as a sentence-transformers folder; --torch is a Python with [models], by default this one. The
model from scratch (configs/fashion.py) trains for SCRATCH_STEPS steps, which takes about as long as
configs/fashion_pretrained.py; the file has both times. Paraphrases (`handwritten`) are only in the validation split.
Training resumes from checkpoints, and existing reports are kept.
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
MODELS = ("pretrained", "scratch", "minilm")  # the first is compared with the others
SCRATCH_STEPS = 1700
METRIC = "nDCG@10"
SLICES: dict[Literal["val", "test"], tuple[str, ...]] = {
    "val": ("kind:handwritten lang:en", "kind:handwritten lang:zh", "kind:attr lang:en", "kind:attr lang:zh"),
    "test": ("all", "kind:attr lang:en", "heldout:yes lang:en", "kind:attr lang:zh", "heldout:yes lang:zh"),
}


def reports(model: str, name: str, catalog: str, args: argparse.Namespace) -> dict[str, Path]:
    """Returns the reports of a model by split; trains and evaluates if they are missing."""
    trained = args.runs / f"{name}-{model}"
    found = {split: args.runs / f"{name}-{model}-{split}" for split in SLICES}
    missing = {split: report for split, report in found.items() if not (report / "report.json").is_file()}
    python, what = sys.executable, str(trained)
    if model == "minilm":
        python, what = args.torch, args.minilm
    elif missing and model == "pretrained":
        weights = ["--model.query.init-from", args.minilm, "--model.title.init-from", args.minilm]
        _train("configs/fashion_pretrained.py", trained, catalog, weights)
    elif missing:
        steps = ["--train.steps", str(SCRATCH_STEPS), "--train.eval-every", "0"]
        _train("configs/fashion.py", trained, catalog, steps)
    for split, report in missing.items():
        run_program([python, "eval.py", what, "--data.catalog", catalog, "--split", split, "--out", str(report)])
    return found


def row(read: ReadReport, split: Literal["val", "test"]) -> dict[str, Any]:
    """Returns the metric of the main system with intervals, by slice."""
    slices = read.report["slices"]
    return {name: slices[name]["systems"][read.system][METRIC] for name in SLICES[split]}


def differences(a: ReadReport, b: ReadReport, split: Literal["val", "test"]) -> dict[str, Any]:
    """Returns the paired difference A - B with 95 % intervals, by slice."""
    compared = compare(a, b)["slices"]
    return {
        name: {"queries": compared[name]["queries"]}
        | {key: compared[name]["metrics"][METRIC][key] for key in ("difference", "low", "high", "p")}
        for name in SLICES[split]
    }


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the results of one catalog."""
    catalog = str(args.catalogs / f"{name}.zip")
    result: dict[str, Any] = {"models": {}, "pretrained minus": {}}
    read = {}
    for model in MODELS:
        found = reports(model, name, catalog, args)
        read[model] = {split: read_report(path) for split, path in found.items()}
        result["models"][model] = {split: row(read[model][split], split) for split in SLICES}
        if model != "minilm":
            info = run.run_info(args.runs / f"{name}-{model}").run
            result["models"][model] |= {"steps": info["steps"], "training_seconds": info["training_seconds"]}
    for other in MODELS[1:]:
        result["pretrained minus"][other] = {
            split: differences(read["pretrained"][split], read[other][split], split) for split in SLICES
        }
    about = read["pretrained"]["test"].report["about"]
    return result | {"about": {key: about[key] for key in ("commit", "versions", "machine", "catalog")}}


def _train(recipe: str, out: Path, catalog: str, options: list[str]) -> None:
    run_program(
        [sys.executable, "train.py", "--config", recipe, "--data.catalog", catalog, "--run", str(out), *options]
    )


def main() -> None:
    """Runs missing parts and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", type=Path, required=True, help="the folder of the two catalogs")
    parser.add_argument("--minilm", required=True, help="a folder of sentence-transformers, all-MiniLM-L6-v2")
    parser.add_argument("--torch", default=sys.executable, help="a Python with the extra [models]")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "pretrained", help="for models and reports")
    parser.add_argument("--out", type=Path, default=RESULTS / "pretrained.json")
    args = parser.parse_args()
    args.catalogs, args.runs, args.minilm = args.catalogs.resolve(), args.runs.resolve(), _folder(args.minilm)
    result = {name: measure(name, args) for name in CATALOGS}
    write_atomically(args.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _folder(path: str) -> str:
    if not Path(path).is_dir():
        raise InputError(f"--minilm: {path} is not a folder")
    return str(Path(path).resolve())


if __name__ == "__main__":
    exit_cleanly(main)
