"""Trains `configs/shop.py` on catalogs whose clicks are hidden, and with them, and compares both with what needs no
training: BM25, MiniLM over titles, and the two joined by a weight tuned on validation queries.

    python benchmarks/baselines/without_clicks.py --minilm FOLDER [--catalogs FOLDER] [--torch PYTHON] [--seeds 0 1 2]

Two CPU cores, about eight minutes per catalog, seed and source of queries. --minilm is a sentence-transformers folder
of all-MiniLM-L6-v2; --catalogs has fashion-sparse-mini.zip, else only the packaged catalog is measured; --torch is
a Python with [models], by default this one. "Hidden": a copy of the catalog without clicks.jsonl and without queries of
the training split. Only the weights of BM25 are tuned, on validation queries. Models and reports that exist in
--work are kept.
"""

import argparse
import json
import statistics
import sys
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

import numpy as np

from benchmarks import RESULTS, ROOT
from benchmarks.common.processes import run_program
from make_jax.catalog import jsonl
from make_jax.catalog.reader import Catalog, packaged_path
from make_jax.errors import InputError, exit_cleanly
from make_jax.evaluation.compare import read_report
from make_jax.evaluation.significance import mean_intervals
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

METRIC = "nDCG@10"
SLICES = ("all", "lang:en", "lang:zh")
UNTRAINED = {"BM25 over titles": "bm25", "MiniLM over titles": "title", "MiniLM + BM25": "title+bm25"}
TRAINED = ("title", "image", "joint", "joint+bm25")


def hide_clicks(source: Path, target: Path) -> None:
    """Writes a copy of a zipped catalog without clicks and without judged queries of the training split."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            if entry.filename == jsonl.CLICKS:
                continue
            content = old.read(entry)
            if entry.filename == jsonl.QUERIES:
                lines = [line for line in content.splitlines(True) if json.loads(line)["split"] != "train"]
                content = b"".join(lines)
            new.writestr(entry, content)


def evaluate(python: str, model: str, catalog: Path, out: Path) -> Path:
    """Returns the folder of the report of a model on the test split; an existing one is kept."""
    if not (out / "report.json").is_file():
        run_program([python, "eval.py", model, "--data.catalog", str(catalog), "--split", "test", "--out", str(out)])
    return out


def train(catalog: Path, queries: str, seed: int, minilm: str, out: Path) -> str:
    """Returns the folder of a trained model; a finished one is not trained again."""
    encoders = [option for tower in ("query", "title") for option in (f"--model.{tower}.init-from", minilm)]
    command = [sys.executable, "train.py", "--config", "shop", "--run", str(out), "--data.catalog", str(catalog)]
    run_program([*command, "--data.queries", queries, "--train.seed", str(seed), *encoders])
    return str(out)


def numbers(reports: list[Path], system: str) -> dict[str, dict[str, Any]]:
    """Returns slice -> the metric of each report, one per seed, and their median."""
    read = [read_report(report, system).report["slices"] for report in reports]
    result = {}
    for name in (name for name in SLICES if name in read[0]):
        values = [report[name]["systems"][system][METRIC]["mean"] for report in read]
        result[name] = {"median": statistics.median(values), "values": values}
    return result


def difference(ours: list[Path], peer: Path, system: str) -> dict[str, float]:
    """Returns joint, averaged over seeds, minus a system of the peer's report: mean and interval over queries."""
    read, other = [read_report(report, "joint") for report in ours], read_report(peer, system)
    column = other.report["metrics"].index(METRIC)
    if any(report.queries != other.queries for report in read):
        raise InputError(f"{peer}: judges other queries than {ours[0]}; delete both and run this again")
    values = np.mean([report.values[:, column] for report in read], axis=0) - other.values[:, column]
    found = mean_intervals(values[:, None])
    return {name: float(getattr(found, name)[0]) for name in ("mean", "low", "high")}


def measure(source: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the results on one catalog."""
    work = args.work / source.stem
    work.mkdir(parents=True, exist_ok=True)
    hidden = work / source.name
    if not hidden.exists():
        hide_clicks(source, hidden.with_suffix(".partial"))
        hidden.with_suffix(".partial").rename(hidden)
    untrained = evaluate(args.torch, args.minilm, hidden, work / "minilm")
    rows = {name: numbers([untrained], system) for name, system in UNTRAINED.items()}
    against = {}
    for label, catalog, queries in (("without clicks", hidden, "derived"), ("with clicks", source, "clicks")):
        reports = []
        for seed in args.seeds:
            run = train(catalog, queries, seed, args.minilm, work / f"{queries}-{seed}")
            reports.append(evaluate(sys.executable, run, catalog, work / f"{queries}-{seed}-report"))
        rows |= {f"shop {label}, {system}": numbers(reports, system) for system in TRAINED}
        against[label] = {name: difference(reports, untrained, system) for name, system in UNTRAINED.items()}
    count = {name: len(read_report(untrained).slices[name]) for name in rows["BM25 over titles"]}
    return {"queries": count, "rows": rows, "joint minus": against}


def main() -> None:
    """Measures all catalogs and writes the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", required=True, type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--catalogs", type=Path, help="the folder of fashion-sparse-mini.zip")
    parser.add_argument("--torch", default=sys.executable, help="a Python with the extra [models]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "without-clicks", help="for models and reports")
    parser.add_argument("--out", type=Path, default=RESULTS / "without-clicks.json")
    args = parser.parse_args()
    args.work = args.work.resolve()
    sources = [packaged_path()]
    sources += [args.catalogs.resolve() / "fashion-sparse-mini.zip"] if args.catalogs else []
    about = metadata(Catalog.load(str(sources[0])), seed=args.seeds[0])
    result: dict[str, Any] = {"about": about, "metric": METRIC, "seeds": args.seeds, "catalogs": {}}
    for source in sources:
        result["catalogs"][source.stem] = measure(source, args)
        write_atomically(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
