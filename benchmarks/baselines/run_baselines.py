"""Trains the baselines of the leaderboard, tunes them on validation and evaluates each once on test.

    python benchmarks/baselines/run_baselines.py --catalogs FOLDER --minilm FOLDER [--torch PYTHON]
                                                 [--only make bm25 ...]

Two CPU cores, several hours per catalog. --catalogs has fashion-full, fashion-sparse-full and clothing5k as .zip or
folder; --minilm is a sentence-transformers folder; --torch is a Python with [models], datasets and accelerate,
by default this one. rows.py defines the baselines. Finished parts are skipped: training resumes from checkpoints,
existing reports are kept, and so is docs/results/baselines/CATALOG-ROW.json with an equal recipe (delete it after a
change of configs/fashion.py). The names of models and reports contain a digest of all their settings. clothing5k is
zero-shot: models with an image encoder, trained on fashion-sparse-full, with hidden titles. Then run `python
scripts/leaderboard/leaderboard.py write`.
"""

import argparse
import dataclasses
import hashlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.baselines.rows import FASHION, FINALISTS, ROWS, TRAINED_ON, ZERO_SHOT, Baseline, Candidate
from benchmarks.common.processes import run_program
from make_jax.errors import InputError, exit_cleanly
from make_jax.evaluation.models import run

sys.path.insert(0, str(ROOT / "scripts"))
from scripts.leaderboard.kept_results import METRIC, keep  # of a folder that is no package

RECIPE = "configs/fashion.py"
MINILM = "benchmarks/baselines/minilm.py"


@dataclasses.dataclass(frozen=True)
class Work:
    """Paths and programs."""

    catalogs: Path
    runs: Path  # trained models, reports
    minilm: str
    torch: str  # a Python with the extra [models]
    changes: dict[str, Any]  # of every recipe, for short trials

    def catalog(self, name: str) -> str:
        """Returns the path of a catalog. Raises InputError if it is missing."""
        for path in (self.catalogs / f"{name}.zip", self.catalogs / name):
            if path.exists():
                return str(path)
        raise InputError(f"{self.catalogs}: no {name}.zip (option --catalogs)")

    def trained(self, row: Baseline, candidate: Candidate, catalog: str) -> Path:
        """Returns the folder of a trained model."""
        return self.runs / catalog / f"{row.name}-{candidate.name}-{self.digest(row, candidate)}"

    def digest(self, row: Baseline, candidate: Candidate) -> str:
        """Returns a digest of all settings that a trained model depends on."""
        files = [(ROOT / name).read_text("utf-8") for name in (RECIPE, MINILM)]
        settings = json.dumps([row.kind, row.trial, candidate.changes, self.changes, files], sort_keys=True)
        return hashlib.sha256(settings.encode("utf-8")).hexdigest()[:8]

    def examples(self) -> tuple[int, int]:
        """Returns steps and batch size of the recipe."""
        train = runpy.run_path(str(ROOT / RECIPE))["config"].train
        return self.changes.get("train.steps", train.steps), self.changes.get("train.batch_size", train.batch_size)


def train(work: Work, row: Baseline, candidate: Candidate, catalog: str) -> None:
    """Trains one candidate on a catalog, or resumes it."""
    out = work.trained(row, candidate, catalog)
    steps, batch = work.examples()
    steps = min(row.trial or steps, steps)
    if row.kind == "minilm-tuned":
        command = [work.torch, MINILM, work.minilm, work.catalog(catalog), str(out)]
        run_program([*command, *_options({"steps": steps, "batch_size": batch} | candidate.changes)])
    elif row.kind in ("run", "late-fusion"):
        command = [sys.executable, "train.py", "--config", RECIPE, "--run", str(out)]
        changes = work.changes | candidate.changes | {"train.steps": steps}
        run_program([*command, "--data.catalog", work.catalog(catalog), *_options(changes)])


def evaluate(work: Work, row: Baseline, candidate: Candidate, trained_on: str, catalog: str, split: str) -> Path:
    """Returns the report of a candidate; an existing one is kept."""
    model = work.trained(row, candidate, trained_on)
    report = work.runs / "reports" / f"{catalog}-{model.name}-{split}"
    if not (report / "report.json").is_file():
        python = work.torch if row.kind in ("minilm", "minilm-tuned") else sys.executable
        environment = {"MAKE_JAX_RUN": str(model)} if row.kind == "late-fusion" else {}
        named = {
            "bm25": "bm25",
            "minilm": work.minilm,
            "late-fusion": "benchmarks/baselines/late_fusion.py",
        }.get(row.kind, str(model))
        options = ["--data.catalog", work.catalog(catalog), "--split", split, "--out", str(report)]
        run_program([python, "eval.py", named, *options], environment)
    return report


def select_candidate(work: Work, row: Baseline, catalog: str) -> tuple[Baseline, Candidate, dict[str, float]]:
    """Returns row and candidate with the best validation metric, trained in full, and the metrics of all candidates."""
    if len(row.candidates) == 1:
        train(work, row, row.candidates[0], catalog)
        return row, row.candidates[0], {}
    metrics = {}
    for candidate in row.candidates:
        train(work, row, candidate, catalog)
        report = json.loads(
            (evaluate(work, row, candidate, catalog, catalog, "val") / "report.json").read_text("utf-8")
        )
        metrics[candidate.name] = report["slices"]["all"]["systems"][report["main"]][METRIC]["mean"]
    ranked = sorted(row.candidates, key=lambda candidate: metrics[candidate.name], reverse=True)
    if not row.trial:
        return row, ranked[0], metrics
    finalists = tuple(dataclasses.replace(found, name=f"{found.name}-in-full") for found in ranked[:FINALISTS])
    row, best, in_full = select_candidate(work, dataclasses.replace(row, trial=0, candidates=finalists), catalog)
    return row, best, metrics | in_full


def run_row(work: Work, row: Baseline, catalog: str, results: Path) -> None:
    """Trains, tunes, evaluates and stores one row on one catalog, unless it is finished."""
    trained_on = TRAINED_ON if catalog == ZERO_SHOT else catalog
    recipe = {
        "trial": row.trial,
        "candidates": {candidate.name: candidate.changes for candidate in row.candidates},
        "changes": work.changes,
        "trained_on": trained_on if row.kind not in ("bm25", "minilm") else None,
    }
    recipe |= {"finalists": FINALISTS} if row.trial else {}
    recipe |= {"tuned_on": row.tuned_on} if row.tuned_on else {}
    systems = row.systems if catalog != ZERO_SHOT else ("",)  # hidden titles leave nothing for BM25
    files = {system: results / f"{catalog}-{row.name}{system.replace('+', '-')}.json" for system in systems}
    if all(_done(path, recipe) for path in files.values()):
        print(f"{catalog}, {row.label}: finished", flush=True)
        return
    print(f"{catalog}, {row.label}", flush=True)
    tuned_on = row.tuned_on or trained_on
    row, best, metrics = select_candidate(work, row, tuned_on)
    if tuned_on != trained_on:
        train(work, row, best, trained_on)
    report = evaluate(work, row, best, trained_on, catalog, "test")
    main = json.loads((report / "report.json").read_text("utf-8"))["main"]
    more: dict[str, Any] = {"recipe": recipe, "chosen": best.name, f"validation {METRIC}": metrics}
    trained = work.trained(row, best, trained_on)
    if row.kind == "minilm-tuned":
        more["training_seconds"] = json.loads((trained / "training.json").read_text("utf-8"))["seconds"]
    elif row.kind == "late-fusion":
        more["training_seconds"] = run.run_info(trained).run["training_seconds"]
    for system, path in files.items():
        label = row.label + (" + BM25" if system else "")
        keep(report, path, label, system=main + system, ours=row.ours and not system, **more)


def _done(path: Path, recipe: dict[str, Any]) -> bool:
    return path.is_file() and json.loads(path.read_text("utf-8")).get("recipe") == json.loads(json.dumps(recipe))


def _options(settings: dict[str, Any]) -> list[str]:
    """Returns settings as command line options: a.b_c becomes --a.b-c, a Boolean --a.b or --a.no-b."""
    words = []
    for name, value in settings.items():
        prefix, _, last = name.replace("_", "-").rpartition(".")
        dotted = f"{prefix}." if prefix else ""
        if isinstance(value, bool):
            words.append(f"--{dotted}{'' if value else 'no-'}{last}")
        else:
            words += [f"--{dotted}{last}", str(value)]
    return words


def main() -> None:
    """Runs the missing parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogs", type=Path, required=True, help="the folder of the three catalogs")
    parser.add_argument("--minilm", default="", help="a folder of sentence-transformers, all-MiniLM-L6-v2")
    parser.add_argument(
        "--torch", default=sys.executable, help="a Python with the extra [models], datasets, accelerate"
    )
    parser.add_argument("--only", nargs="*", default=[], help="only these rows")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "baselines", help="for models and reports")
    parser.add_argument("--results", type=Path, default=RESULTS / "baselines", help="folder that receives the results")
    parser.add_argument("--on", nargs="*", default=[*FASHION, ZERO_SHOT], help="only these catalogs")
    parser.add_argument(
        "--changes", type=json.loads, default={}, help="settings of every recipe, JSON; for short trials"
    )
    args = parser.parse_args()
    names = [row.name for row in ROWS]
    if unknown := [name for name in args.only if name not in names]:
        raise InputError(f"no row {unknown[0]!r}; rows are {', '.join(names)}")
    rows = [row for row in ROWS if not args.only or row.name in args.only]
    if any(row.kind.startswith("minilm") for row in rows) and not args.minilm:
        raise InputError("--minilm is missing, expected the folder of all-MiniLM-L6-v2; or name other rows with --only")
    minilm = str(Path(args.minilm).resolve()) if args.minilm else ""
    work = Work(args.catalogs.resolve(), args.runs.resolve(), minilm, args.torch, args.changes)
    for catalog in args.on:
        for row in rows:
            if catalog != ZERO_SHOT or row.sees_pictures:
                run_row(work, row, catalog, args.results.resolve())


if __name__ == "__main__":
    exit_cleanly(main)
