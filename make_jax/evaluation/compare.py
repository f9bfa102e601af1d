"""Compares two reports query by query: differences with intervals, and corrected paired tests by metric and slice."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from rich.box import SIMPLE_HEAD
from rich.table import Table

from make_jax.console import LiteralConsole
from make_jax.errors import InputError
from make_jax.evaluation.metrics import PRIMARY_METRIC
from make_jax.evaluation.report import FORMAT
from make_jax.evaluation.significance import (
    BOOTSTRAP_RESAMPLES,
    RANDOMIZATION_RESAMPLES,
    holm,
    mean_intervals,
    paired_p_values,
)
from make_jax.files import folder_atomically, write_atomically
from make_jax.report_tables import format_difference, markdown_table, system_name

LEVEL = 0.05
_HEADER = ["", "n", "A", "B", "A - B", "p", "Holm p"]


class ReadReport(NamedTuple):
    """One system of a report folder, with its values per query."""

    name: str  # of the model
    system: str
    folder: Path
    report: dict[str, Any]
    queries: tuple[str, ...]  # Q ids
    slices: dict[str, list[int]]  # positions of queries
    values: Float64[np.ndarray, "Q m"]  # in the order of report["metrics"]


def read_report(folder: str | Path, system: str = "") -> ReadReport:
    """Returns a report with one of its systems, the main one for "". Raises InputError if there is none."""
    path = Path(folder)
    try:
        report = json.loads((path / "report.json").read_text("utf-8-sig"))
        lines = [json.loads(line) for line in (path / "per_query.jsonl").read_text("utf-8-sig").splitlines()]
        if report["format"] != FORMAT:
            raise InputError(f"{path}: report of format {report['format']}, expected {FORMAT}; run eval.py again")
        return _read(path, report, lines, system)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no report, expected a folder that eval.py wrote") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = f"{path}: damaged ({type(error).__name__} {error}), expected a report that eval.py wrote"
        raise InputError(text) from None


def _read(path: Path, report: Any, lines: list[Any], system: str) -> ReadReport:
    """Returns the report, whose format was checked."""
    system = system or report["main"]
    if system not in report["systems"]:
        raise InputError(f"{path}: no system {system!r}, expected one of {', '.join(report['systems'])}")
    slices: dict[str, list[int]] = {name: [] for name in report["slices"]}
    for position, line in enumerate(lines):
        for name in line["slices"]:
            slices[name].append(position)
    values = np.array([[line["values"][system][m] for m in report["metrics"]] for line in lines], np.float64)
    name = report["about"].get("model", {}).get("name", path.name)
    return ReadReport(name, system, path, report, tuple(line["qid"] for line in lines), slices, values)


def compare(a: ReadReport, b: ReadReport, *, seed: int = 0) -> dict[str, Any]:
    """Returns A - B for each slice and metric: means, 95 % interval of the difference, p-value, Holm-corrected p-value.

    The correction is over all metrics and slices together. Raises InputError for reports over different catalogs,
    splits, pools or queries.
    """
    _check_comparable(a, b)
    positions = {query: position for position, query in enumerate(b.queries)}
    b_values = b.values[[positions[query] for query in a.queries]]
    metrics, names = a.report["metrics"], list(a.slices)
    differences = a.values - b_values
    columns = np.full((len(differences), len(names) * len(metrics)), np.nan)
    parts = []
    for i, name in enumerate(names):
        rows = a.slices[name]
        columns[rows, i * len(metrics) : (i + 1) * len(metrics)] = differences[rows]
        parts.append(mean_intervals(differences[rows], seed))
    p_values = paired_p_values(columns, seed)
    corrected = holm(p_values)
    slices: dict[str, Any] = {}
    for i, (name, interval) in enumerate(zip(names, parts, strict=True)):
        rows = a.slices[name]
        slices[name] = {"queries": len(rows), "metrics": {}}
        for j, metric in enumerate(metrics):
            slices[name]["metrics"][metric] = {
                "a": float(a.values[rows, j].mean()),
                "b": float(b_values[rows, j].mean()),
                "difference": float(interval.mean[j]),
                "low": float(interval.low[j]),
                "high": float(interval.high[j]),
                "p": float(p_values[i * len(metrics) + j]),
                "p_holm": float(corrected[i * len(metrics) + j]),
            }
    return {
        "a": _provenance(a),
        "b": _provenance(b),
        "catalog": a.report["about"]["catalog"],
        "split": a.report["split"],
        "pool": a.report["pool"],
        "metrics": metrics,
        "test": {"method": "paired randomization, two-sided", "resamples": RANDOMIZATION_RESAMPLES, "seed": seed},
        "correction": {"method": "Holm", "tests": len(p_values), "level": LEVEL},
        "intervals": {"level": 0.95, "method": "percentile bootstrap over queries", "resamples": BOOTSTRAP_RESAMPLES},
        "slices": slices,
    }


def comparison_markdown(compared: dict[str, Any]) -> str:
    """Returns the comparison as Markdown: one table per metric."""
    parts = [f"# {_title(compared)}\n", _method(compared) + "\n"]
    for metric in compared["metrics"]:
        rows = [_row(name, part, metric) for name, part in compared["slices"].items()]
        parts += [f"## {metric}\n", markdown_table(_HEADER, rows)]
    return "\n".join(parts)


def print_comparison(compared: dict[str, Any], console: LiteralConsole) -> None:
    """Prints all metrics over all queries, then nDCG@10 by slice."""
    overall = compared["slices"]["all"]
    by_metric = [_row(metric, overall, metric) for metric in compared["metrics"]]
    by_slice = [_row(name, part, PRIMARY_METRIC) for name, part in compared["slices"].items() if name != "all"]
    for title, rows in ((_title(compared), by_metric), (f"{PRIMARY_METRIC} by slice", by_slice)):
        table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=0)
        for head in _HEADER:
            if head != "p":  # a terminal of 80 columns has no room for it
                table.add_column(head, justify="right" if head else "left", no_wrap=True)
        for row in rows:
            cells = [cell.replace("**", "") for head, cell in zip(_HEADER, row, strict=True) if head != "p"]
            table.add_row(*cells, style="bold" if "**" in row[4] else "")
        console.print(table)
    console.print(_method(compared).replace("**bold**", "bold"), style="dim")


def write_comparison(compared: dict[str, Any], folder: Path) -> None:
    """Writes comparison.json and comparison.md atomically."""
    with folder_atomically(folder) as new:
        text = json.dumps(compared, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
        write_atomically(new / "comparison.json", text)
        write_atomically(new / "comparison.md", comparison_markdown(compared))


def _row(name: str, part: dict[str, Any], metric: str) -> list[str]:
    numbers = part["metrics"][metric]
    difference = format_difference(numbers | {"mean": numbers["difference"]})
    if numbers["p_holm"] < LEVEL:
        difference = f"**{difference}**"
    means = [f"{numbers['a']:.3f}", f"{numbers['b']:.3f}"]
    return [name, f"{part['queries']:,}", *means, difference, f"{numbers['p']:.5f}", f"{numbers['p_holm']:.4f}"]


def _title(compared: dict[str, Any]) -> str:
    sides = [f"{compared[side]['model']} ({system_name(compared[side]['system'])})" for side in ("a", "b")]
    return f"A = {sides[0]}, B = {sides[1]}: {compared['catalog']['name']}, {compared['split']} queries"


def _method(compared: dict[str, Any]) -> str:
    test, correction, intervals = compared["test"], compared["correction"], compared["intervals"]
    return (
        f"A - B with its 95 % interval ({intervals['method']}, not corrected). **bold**: p after Holm's correction "
        f"over {correction['tests']} tests is below {correction['level']:g}. Test: {test['method']}, "
        f"{test['resamples']:,} sign vectors, seed {test['seed']}. A query can be in several slices."
    )


def _provenance(read: ReadReport) -> dict[str, Any]:
    about = read.report["about"]
    return {"model": read.name, "system": read.system, "commit": about["commit"], "command": about["command"]}


def _check_comparable(a: ReadReport, b: ReadReport) -> None:
    """Raises InputError for reports whose difference is meaningless."""
    catalogs = [read.report["about"]["catalog"] for read in (a, b)]
    if catalogs[0]["digest"] != catalogs[1]["digest"]:
        names = [f"{catalog['name']} ({catalog['digest'][:12]})" for catalog in catalogs]
        raise InputError(f"{b.folder}: catalog {names[1]}, expected that of {a.folder}, {names[0]}")
    for key in ("split", "pool", "metrics", "relevant_grade"):
        if a.report[key] != b.report[key]:
            raise InputError(f"{b.folder}: {key} {b.report[key]!r}, expected that of {a.folder}, {a.report[key]!r}")
    if set(a.queries) != set(b.queries):
        unmatched = sorted(set(a.queries) ^ set(b.queries))
        raise InputError(
            f"{b.folder}: queries differ from {a.folder}: {len(unmatched)} are in one only, such as {unmatched[0]!r}"
        )
