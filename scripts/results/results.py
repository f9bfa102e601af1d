"""Stores evaluation results and writes the generated tables of README.md and docs/.

    python scripts/results/results.py collect REPORT NAME    report -> docs/results/NAME.json
    python scripts/results/results.py tables                    docs/results/*.json -> tables in README.md and docs

A table is the text between `<!-- results:NAME -->` and `<!-- /results -->`; all of it is replaced.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from make_jax.errors import InputError, exit_cleanly
from make_jax.evaluation.significance import mean_intervals
from make_jax.files import write_atomically
from make_jax.report_tables import format_difference, format_interval, markdown_table, system_name
from scripts import RESULTS, ROOT
from scripts.results.benchmark_tables import benchmark_tables

METRIC = "nDCG@10"
FASHION_SLICES = {
    "attr English": "kind:attr lang:en",
    "held-out, English": "heldout:yes lang:en",
    "attr Chinese": "kind:attr lang:zh",
    "held-out, Chinese": "heldout:yes lang:zh",
}
FASHION_RUNS = ("joint", "title", "image")


def collect(report: Path, name: str) -> None:
    """Stores the numbers of a report, to four digits, with the main system's value of every query for paired tests."""
    if not (report / "report.json").is_file():
        raise InputError(f"{report}: no report.json, expected the folder that eval.py printed")
    kept = _rounded(json.loads((report / "report.json").read_text("utf-8")))
    lines = [json.loads(line) for line in (report / "per_query.jsonl").read_text("utf-8").splitlines()]
    kept["per_query"] = {line["qid"]: round(line["values"][kept["main"]][METRIC], 4) for line in lines}
    kept["members"] = {s: [line["qid"] for line in lines if s in line["slices"]] for s in FASHION_SLICES.values()}
    write_atomically(RESULTS / f"{name}.json", json.dumps(kept, ensure_ascii=False, separators=(",", ":")) + "\n")


def tables() -> None:
    """Regenerates all tables."""
    tables = {"demo": _demo(), "fashion": _fashion(), "claims": _claims(), "exports": _exports()} | benchmark_tables()
    for page in (ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text("utf-8")
        for name, table in tables.items():
            pattern = rf"(<!-- results:{name} -->\n).*?(<!-- /results -->)"
            text = re.sub(pattern, lambda m, table=table: m[1] + table + m[2], text, flags=re.DOTALL)
        write_atomically(page, text)


def _exports() -> str:
    """Differences between a run and its exports, by `benchmarks/search/exports.py`."""
    kept = json.loads((RESULTS / "exports.json").read_text("utf-8"))
    about = kept["about"]
    rows = [
        [
            form,
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['largest difference, queries']:.1e}",
            f"{row['largest difference, products']:.1e}",
            f"{row['other products there']:,} of {row['places among the first ten']:,}",
            f"{row[METRIC]['mean']:.4f}",
            f"{row[METRIC + ' relative to run'] - 1:+.2%}",
        ]
        for form, row in kept["forms"].items()
    ]
    header = [
        "form",
        "MB",
        "max query difference",
        "max product difference",
        "changed in the top ten",
        METRIC,
        "change",
    ]
    return (
        f"All {kept['queries']:,} judged test queries and {kept['products']:,} products of {about['catalog']['name']}, "
        f"the run's {METRIC} {kept[METRIC]['mean']:.4f}, commit {about['commit'][:9]}:\n\n"
        f"{markdown_table(header, rows)}\n"
    )


def _claims() -> str:
    """The table of claims by `benchmarks/study/ablations.py table`."""
    text = (RESULTS / "ablations" / "fashion-sparse-mini.md").read_text("utf-8")
    lines = text[text.index("## Claims") :].splitlines()
    return "\n".join(line for line in lines if line.startswith("|")) + "\n"


def _demo() -> str:
    report = _load("demo")
    slices = {"all queries": "all", "word in a relevant title": "kind:keyword:title"}
    slices |= {"word in no relevant title": "kind:keyword:picture", "two words": "kind:keyword:pair"}
    header = ["system", *(f"{shown} ({report['slices'][s]['queries']})" for shown, s in slices.items())]
    rows = []
    for system in report["systems"]:
        cells = [format_interval(report["slices"][s]["systems"][system][METRIC]) for s in slices.values()]
        rows.append([system_name(system), *cells])
    for i, pair in enumerate(report["slices"]["all"]["differences"]):
        if pair["minus"] not in ("random", "bm25") or pair["system"] == report["fused"]:
            differences = [report["slices"][s]["differences"][i]["metrics"][METRIC] for s in slices.values()]
            name = f"{system_name(pair['system'])} minus {system_name(pair['minus'])}, paired"
            rows.append([name, *(format_difference(d) for d in differences)])
    setting = f"{METRIC} on the test split: {report['products']} unseen pictures. {_checkpoint(report)}"
    return f"{setting}\n\n{markdown_table(header, rows)}\n"


def _fashion() -> str:
    parts = []
    for catalog in ("fashion-full", "fashion-sparse-full"):
        reports = {
            run: _load(f"{catalog}-{run}") for run in FASHION_RUNS if (RESULTS / f"{catalog}-{run}.json").exists()
        }
        if not reports:
            continue
        first = next(iter(reports.values()))
        header = [catalog, *(f"{shown} ({first['slices'][s]['queries']:,})" for shown, s in FASHION_SLICES.items())]
        rows = [["BM25 over titles", *_cells(first, "bm25")]]
        for run, report in reports.items():
            trained = "joint" if run == "joint" else f"trained on {run} only"
            rows.append([trained, *_cells(report, report["main"])])
            if run == "joint":
                rows.append(["title only, same model", *_cells(report, "title")])
                rows.append(["image only, same model", *_cells(report, "image")])
                rows.append(["joint + BM25", *_cells(report, report["fused"])])
        for run, report in reports.items():
            if run != "joint" and "joint" in reports:
                rows.append([f"joint minus {run}-trained, paired", *_paired(reports["joint"], report)])
        parts.append(markdown_table(header, rows))
        parts += [f"{run}: {_checkpoint(report)}  " for run, report in reports.items()]
        parts.append("")
    return "\n".join(parts) + ("\n" if parts else "")


def _cells(report: dict[str, Any], system: str) -> list[str]:
    return [format_interval(report["slices"][s]["systems"][system][METRIC]) for s in FASHION_SLICES.values()]


def _paired(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Paired mean differences with intervals, by slice."""
    cells = []
    for s in FASHION_SLICES.values():
        ids = a["members"][s]
        difference = np.array([[a["per_query"][q] - b["per_query"][q]] for q in ids])
        interval = mean_intervals(difference, 0)
        cells.append(format_difference({"mean": interval.mean[0], "low": interval.low[0], "high": interval.high[0]}))
    return cells


def _load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise InputError(f"{path}: missing; create it with: python scripts/results/results.py collect")
    return json.loads(path.read_text("utf-8"))


def _checkpoint(report: dict[str, Any]) -> str:
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
    """Runs the command of the command line."""
    match sys.argv[1:]:
        case ["collect", report, name]:
            collect(Path(report), name)
        case ["tables"]:
            tables()
        case _:
            raise InputError(f"expected collect REPORT NAME or tables; found {' '.join(sys.argv[1:])!r}")


if __name__ == "__main__":
    exit_cleanly(main)
