"""Two reports compared query by query: effects with intervals, a paired test for each metric and slice, corrected."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from make_jax.errors import InputError
from make_jax.evaluation.report import FORMAT
from make_jax.evaluation.significance import (
    BOOTSTRAP_RESAMPLES,
    RANDOMIZATION_RESAMPLES,
    holm,
    mean_intervals,
    paired_p_values,
)
from make_jax.files import folder_atomically, write_atomically
from make_jax.report_tables import markdown_table, system_name

LEVEL = 0.05
_HEAD = ["", "n", "A", "B", "A - B", "p", "Holm p"]
_SHOWN = "nDCG@10"  # on the terminal by slice; comparison.md has every metric


class ReadReport(NamedTuple):
    """One system of a report folder, query by query."""

    name: str  # of the model
    system: str
    folder: Path
    report: dict[str, Any]
    queries: tuple[str, ...]  # Q ids
    slices: dict[str, list[int]]  # positions of queries
    values: Float64[np.ndarray, "Q m"]  # in the order of report["metrics"]


def read_report(folder: str | Path, system: str = "") -> ReadReport:
    """A report and one of its systems, the main one for "". InputError when it is no report or has no such system."""
    path = Path(folder)
    try:
        report = json.loads((path / "report.json").read_text("utf-8"))
        lines = [json.loads(line) for line in (path / "per_query.jsonl").read_text("utf-8").splitlines()]
        if report["format"] != FORMAT:
            raise InputError(f"{path}: report of format {report['format']}, expected {FORMAT}; run eval.py again")
        return _read(path, report, lines, system)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no report there, expected a folder that eval.py wrote") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = f"{path}: damaged ({type(error).__name__} {error}), expected a report that eval.py wrote"
        raise InputError(text) from None


def _read(path: Path, report: Any, lines: list[Any], system: str) -> ReadReport:
    """A report of the format that is expected."""
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
    """A minus B for each slice and metric: means, 95 % interval of the difference, p-value, p-value after Holm.

    The correction is over all metrics and slices of the comparison together. Raises InputError for reports that do
    not compare: of another catalog, split or pool, or over other queries.
    """
    _check_comparable(a, b)
    place = {query: position for position, query in enumerate(b.queries)}
    other = b.values[[place[query] for query in a.queries]]
    metrics, names = a.report["metrics"], list(a.slices)
    differences = a.values - other
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
                "b": float(other[rows, j].mean()),
                "difference": float(interval.mean[j]),
                "low": float(interval.low[j]),
                "high": float(interval.high[j]),
                "p": float(p_values[i * len(metrics) + j]),
                "p_holm": float(corrected[i * len(metrics) + j]),
            }
    return {
        "a": _side(a),
        "b": _side(b),
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
    """The whole comparison as Markdown: a table a metric."""
    parts = [f"# {_title(compared)}\n", _how(compared) + "\n"]
    for metric in compared["metrics"]:
        rows = [_row(name, part, metric) for name, part in compared["slices"].items()]
        parts += [f"## {metric}\n", markdown_table(_HEAD, rows)]
    return "\n".join(parts)


def print_comparison(compared: dict[str, Any], console: Console) -> None:
    """Prints every metric over all queries, then one metric by slice."""
    whole = compared["slices"]["all"]
    by_metric = [_row(metric, whole, metric) for metric in compared["metrics"]]
    by_slice = [_row(name, part, _SHOWN) for name, part in compared["slices"].items() if name != "all"]
    for title, rows in ((_title(compared), by_metric), (f"{_SHOWN} by slice", by_slice)):
        table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=0)
        for head in _HEAD:
            if head != "p":  # a terminal of 80 columns has no room for it
                table.add_column(head, justify="right" if head else "left", no_wrap=True)
        for row in rows:
            cells = [cell.replace("**", "") for head, cell in zip(_HEAD, row, strict=True) if head != "p"]
            table.add_row(*cells, style="bold" if "**" in row[4] else "")
        console.print(table, highlight=False)
    console.print(_how(compared).replace("**bold**", "bold"), style="dim", highlight=False, markup=False)


def write_comparison(compared: dict[str, Any], folder: Path) -> None:
    """Writes comparison.json and comparison.md, whole or not at all."""
    with folder_atomically(folder) as new:
        text = json.dumps(compared, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
        write_atomically(new / "comparison.json", text)
        write_atomically(new / "comparison.md", comparison_markdown(compared))


def _row(name: str, part: dict[str, Any], metric: str) -> list[str]:
    numbers = part["metrics"][metric]
    difference = f"{numbers['difference']:+.3f} [{numbers['low']:+.3f}, {numbers['high']:+.3f}]"
    if numbers["p_holm"] < LEVEL:
        difference = f"**{difference}**"
    means = [f"{numbers['a']:.3f}", f"{numbers['b']:.3f}"]
    return [name, f"{part['queries']:,}", *means, difference, f"{numbers['p']:.5f}", f"{numbers['p_holm']:.4f}"]


def _title(compared: dict[str, Any]) -> str:
    sides = [f"{compared[side]['model']} ({system_name(compared[side]['system'])})" for side in ("a", "b")]
    return f"A = {sides[0]}, B = {sides[1]}: {compared['catalog']['name']}, {compared['split']} queries"


def _how(compared: dict[str, Any]) -> str:
    test, correction, intervals = compared["test"], compared["correction"], compared["intervals"]
    return (
        f"A - B with its 95 % interval ({intervals['method']}, not corrected); **bold** where p after Holm's "
        f"correction over {correction['tests']} tests is below {correction['level']:g}. Test: {test['method']}, "
        f"{test['resamples']:,} sign vectors, seed {test['seed']}. Slices overlap."
    )


def _side(read: ReadReport) -> dict[str, Any]:
    about = read.report["about"]
    return {"model": read.name, "system": read.system, "commit": about["commit"], "command": about["command"]}


def _check_comparable(a: ReadReport, b: ReadReport) -> None:
    """InputError where a difference of the two would mean nothing."""
    catalogs = [read.report["about"]["catalog"] for read in (a, b)]
    if catalogs[0]["digest"] != catalogs[1]["digest"]:
        names = [f"{catalog['name']} ({catalog['digest'][:12]})" for catalog in catalogs]
        raise InputError(f"{b.folder}: catalog {names[1]}, expected that of {a.folder}, {names[0]}")
    for key in ("split", "pool", "metrics", "relevant_grade"):
        if a.report[key] != b.report[key]:
            raise InputError(f"{b.folder}: {key} {b.report[key]!r}, expected that of {a.folder}, {a.report[key]!r}")
    if set(a.queries) != set(b.queries):
        alone = sorted(set(a.queries) ^ set(b.queries))
        raise InputError(
            f"{b.folder}: other queries than {a.folder}: {len(alone)} are in one alone, such as {alone[0]!r}"
        )
