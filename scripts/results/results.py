"""Keeps results and writes the tables that show them.

    python scripts/results/results.py collect REPORT NAME    report -> docs/results/NAME.json
    python scripts/results/results.py tables                    docs/results/*.json -> tables in README.md and docs

A table stands between `<!-- results:WHAT -->` and `<!-- /results -->` and is replaced whole; no number in it is typed.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from make_jax.errors import InputError, exit_cleanly
from make_jax.evaluation.significance import mean_intervals
from make_jax.files import write_atomically
from make_jax.report_tables import system_name
from scripts import RESULTS, ROOT
from scripts.results.benchmark_tables import benchmark_tables, markdown

METRIC = "nDCG@10"
FASHION_SLICES = {
    "attr English": "kind:attr lang:en",
    "held-out, English": "heldout:yes lang:en",
    "attr Chinese": "kind:attr lang:zh",
    "held-out, Chinese": "heldout:yes lang:zh",
}
FASHION_RUNS = ("joint", "title", "image")


def collect(report: Path, name: str) -> None:
    """Keeps a report's numbers, to four digits, with the main system's value of every query for later pairing."""
    if not (report / "report.json").is_file():
        raise InputError(f"{report}: no report.json there; give the folder that eval.py printed")
    kept = _rounded(json.loads((report / "report.json").read_text("utf-8")))
    lines = [json.loads(line) for line in (report / "per_query.jsonl").read_text("utf-8").splitlines()]
    kept["per_query"] = {line["qid"]: round(line["values"][kept["main"]][METRIC], 4) for line in lines}
    kept["members"] = {s: [line["qid"] for line in lines if s in line["slices"]] for s in FASHION_SLICES.values()}
    write_atomically(RESULTS / f"{name}.json", json.dumps(kept, ensure_ascii=False, separators=(",", ":")) + "\n")


def tables() -> None:
    """Writes every table anew."""
    made = {"demo": _demo(), "fashion": _fashion(), "claims": _claims(), "exports": _exports()} | benchmark_tables()
    for page in (ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text("utf-8")
        for what, table in made.items():
            pattern = rf"(<!-- results:{what} -->\n).*?(<!-- /results -->)"
            text = re.sub(pattern, lambda m, table=table: m[1] + table + m[2], text, flags=re.DOTALL)
        write_atomically(page, text)


def _exports() -> str:
    """How near exports are to their run, by `benchmarks/search/exports.py`."""
    kept = json.loads((RESULTS / "exports.json").read_text("utf-8"))
    about = kept["about"]
    rows = [
        [
            form,
            f"{of['bytes'] / 1e6:.1f}",
            f"{of['largest difference, queries']:.1e}",
            f"{of['largest difference, products']:.1e}",
            f"{of['other products there']:,} of {of['places among the first ten']:,}",
            f"{of[METRIC]['mean']:.4f}",
            f"{of[METRIC + ' relative to run'] - 1:+.2%}",
        ]
        for form, of in kept["forms"].items()
    ]
    head = [
        "form",
        "MB",
        "queries differ by",
        "products differ by",
        "others in the first ten",
        METRIC,
        "change",
    ]
    return (
        f"All {kept['queries']:,} judged test queries and {kept['products']:,} products of {about['catalog']['name']}, "
        f"the run's {METRIC} {kept[METRIC]['mean']:.4f}, commit {about['commit'][:9]}:\n\n{markdown([head, *rows])}\n"
    )


def _claims() -> str:
    """The table of claims that `benchmarks/study/ablations.py table` wrote."""
    text = (RESULTS / "ablations" / "fashion-sparse-mini.md").read_text("utf-8")
    lines = text[text.index("## Claims") :].splitlines()
    return "\n".join(line for line in lines if line.startswith("|")) + "\n"


def _demo() -> str:
    report = _load("demo")
    slices = {"all queries": "all", "word in a relevant title": "kind:keyword:title"}
    slices |= {"word in no relevant title": "kind:keyword:picture", "two words": "kind:keyword:pair"}
    rows = [["system", *(f"{shown} ({report['slices'][s]['queries']})" for shown, s in slices.items())]]
    for system in report["systems"]:
        cells = [_cell(report["slices"][s]["systems"][system][METRIC]) for s in slices.values()]
        rows.append([system_name(system), *cells])
    for i, pair in enumerate(report["slices"]["all"]["differences"]):
        if pair["minus"] not in ("random", "bm25") or pair["system"] == report["fused"]:
            differences = [report["slices"][s]["differences"][i]["metrics"][METRIC] for s in slices.values()]
            name = f"{system_name(pair['system'])} minus {system_name(pair['minus'])}, paired"
            rows.append([name, *(_signed(d) for d in differences)])
    return f"{METRIC} on the test split: {report['products']} unseen pictures. {_made(report)}\n\n{markdown(rows)}\n"


def _fashion() -> str:
    parts = []
    for catalog in ("fashion-full", "fashion-sparse-full"):
        reports = {
            run: _load(f"{catalog}-{run}") for run in FASHION_RUNS if (RESULTS / f"{catalog}-{run}.json").exists()
        }
        if not reports:
            continue
        first = next(iter(reports.values()))
        rows = [[catalog, *(f"{shown} ({first['slices'][s]['queries']:,})" for shown, s in FASHION_SLICES.items())]]
        rows.append(["BM25 over titles", *_cells(first, "bm25")])
        for run, report in reports.items():
            trained = "joint" if run == "joint" else f"trained on {run} alone"
            rows.append([trained, *_cells(report, report["main"])])
            if run == "joint":
                rows.append(["the same model, title alone", *_cells(report, "title")])
                rows.append(["the same model, image alone", *_cells(report, "image")])
                rows.append(["joint + BM25", *_cells(report, report["fused"])])
        for run, report in reports.items():
            if run != "joint" and "joint" in reports:
                rows.append([f"joint minus {run}-trained, paired", *_paired(reports["joint"], report)])
        parts.append(markdown(rows))
        parts += [f"{run}: {_made(report)}  " for run, report in reports.items()]
        parts.append("")
    return "\n".join(parts) + ("\n" if parts else "")


def _cells(report: dict[str, Any], system: str) -> list[str]:
    return [_cell(report["slices"][s]["systems"][system][METRIC]) for s in FASHION_SLICES.values()]


def _paired(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Mean differences over the same queries, with their intervals."""
    cells = []
    for s in FASHION_SLICES.values():
        ids = a["members"][s]
        difference = np.array([[a["per_query"][q] - b["per_query"][q]] for q in ids])
        interval = mean_intervals(difference, 0)
        cells.append(_signed({"mean": interval.mean[0], "low": interval.low[0], "high": interval.high[0]}))
    return cells


def _load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise InputError(f"{path}: not there; make it with: python scripts/results/results.py collect")
    return json.loads(path.read_text("utf-8"))


def _cell(numbers: dict[str, float]) -> str:
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def _signed(numbers: Mapping[str, float]) -> str:
    return f"{numbers['mean']:+.3f} [{numbers['low']:+.3f}, {numbers['high']:+.3f}]"


def _made(report: dict[str, Any]) -> str:
    about = report["about"]
    minutes = about["run"]["training_seconds"] / 60
    return (
        f"Checkpoint of step {about['run']['steps']}, after {minutes:.1f} minutes of training on {about['device']}, "
        f"seed {about['seed']}, commit {about['commit'][:9]}."
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Reads the command and does it."""
    match sys.argv[1:]:
        case ["collect", report, name]:
            collect(Path(report), name)
        case ["tables"]:
            tables()
        case _:
            raise InputError(f"expected collect REPORT NAME or tables; found {' '.join(sys.argv[1:])!r}")


if __name__ == "__main__":
    exit_cleanly(main)
