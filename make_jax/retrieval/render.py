"""A report for people: Markdown and a table on the terminal, from report.json alone."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_SLICED_BY = "nDCG@10"
_NAMES = {
    "random": "random",
    "bm25": "BM25 over titles",
    "title": "title only",
    "image": "image only",
    "joint": "joint",
}
_ADDED = {"bm25": " + BM25", "rerank": ", re-ranked"}


def system_name(system: str) -> str:
    """How a table calls a system."""
    base, _, added = system.partition("+")
    return _NAMES.get(base, base) + _ADDED.get(added, "")


def markdown(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    about, catalog = report["about"], report["about"]["catalog"]
    whole = report["slices"]["all"]
    parts = [
        f"# {catalog['name']}, {report['split']} split\n",
        f"{report['queries']:,} queries search {report['products']:,} products. {_left_out(report)}"
        f"Mean over queries; in brackets the 95 % interval ({report['intervals']['method']}, "
        f"{report['intervals']['resamples']:,} resamples).\n",
        f"Queries: {catalog['queries_from']}\n",
        "## Systems\n",
        markdown_table(
            ["system", *report["metrics"]],
            [
                [system_name(s), *(f"{whole['systems'][s][m]['mean']:.3f}" for m in report["metrics"])]
                for s in report["systems"]
            ],
        ),
        f"## {_SLICED_BY} by slice\n",
        "Slices overlap.\n",
        markdown_table(
            ["slice", "queries", *map(system_name, report["systems"])],
            [
                [name, f"{part['queries']:,}", *(_interval(part["systems"][s][_SLICED_BY]) for s in report["systems"])]
                for name, part in report["slices"].items()
            ],
        ),
        f"## Paired differences of {_SLICED_BY}\n",
        "The same queries on both sides; **bold** where the interval leaves out 0.\n",
        markdown_table(["slice", "queries", *_pairs(report)], _difference_rows(report)),
        *_weights(report),
        "## Notes\n",
        *(f"* {note}" for note in report["notes"]),
        f"* {_chosen(report)}",
        *([f"* gallery.png: {report['gallery']}"] if report.get("gallery") else []),
        "* Re-score with `ir_measures qrels.txt runs/SYSTEM.run.gz "
        + " ".join(f"'{name}'" for name in report["ir_measures"].values())
        + "`.\n",
        "## Made by\n",
        f"* command: `{about['command']}`",
        f"* commit: {about['commit'] or 'unknown'}; make_jax {about['make_jax']}; seed {about['seed']}",
        f"* device: {about['device']}, {about['machine']}, Python {about['python']}",
        f"* versions: {', '.join(f'{name} {version}' for name, version in about['versions'].items())}",
        f"* catalog: {catalog['title'] or catalog['name']}; licence: {catalog['licence'] or 'not stated'}; "
        f"digest {catalog['digest']}\n",
    ]
    return "\n".join(parts)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Prints the table of systems, the differences that matter, and the notes."""
    whole = report["slices"]["all"]
    title = (
        f"{report['about']['catalog']['name']}, {report['split']}: {report['queries']:,} queries, "
        f"{report['products']:,} products"
    )
    # As narrow as eight metrics can be: a terminal of 80 columns must show every digit.
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=0)
    table.add_column("system", no_wrap=True)
    for metric in report["metrics"]:
        table.add_column(metric.replace("_", " ").replace("@", "\n@"), justify="right", min_width=5)
    best = {m: max(whole["systems"][s][m]["mean"] for s in report["systems"]) for m in report["metrics"]}
    for system in report["systems"]:
        cells = []
        for metric in report["metrics"]:
            mean = whole["systems"][system][metric]["mean"]
            cells.append(f"[bold green]{mean:.3f}[/]" if mean == best[metric] else f"{mean:.3f}")
        table.add_row(system_name(system), *cells)
    console.print(table)
    for difference in whole["differences"]:
        numbers = difference["metrics"][_SLICED_BY]
        console.print(
            f"  {system_name(difference['system'])} - {system_name(difference['minus'])}: {_SLICED_BY} "
            f"{numbers['mean']:+.3f} (95 % {numbers['low']:+.3f} to {numbers['high']:+.3f})",
            highlight=False,
        )
    for note in (_left_out(report).strip(), *report["notes"], _chosen(report)):
        if note:
            console.print(f"  {note}", style="dim", highlight=False, markup=False)
    console.print(
        f"  Queries: {report['about']['catalog']['queries_from']}", style="dim", highlight=False, markup=False
    )


def _left_out(report: dict[str, Any]) -> str:
    n = len(report["queries_without_positive"])
    return f"{n:,} more had nothing relevant to find and are left out. " if n else ""


def _chosen(report: dict[str, Any]) -> str:
    """Which parameters the baselines had."""
    if not report["fused"]:
        return "Nothing was tuned."
    parameters = report["parameters"]
    on = parameters["chosen_on"]
    how = f"chosen by {on['by']} on {on['queries']:,} queries of the {on['split']} split" if on else "defaults"
    return (
        f"BM25 k1 {parameters['bm25']['k1']:g}, b {parameters['bm25']['b']:g}; "
        f"weight of BM25 in the fusion {parameters['fusion']['weight']:g}: {how}."
    )


def _pairs(report: dict[str, Any]) -> list[str]:
    differences = report["slices"]["all"]["differences"]
    return [f"{system_name(d['system'])} - {system_name(d['minus'])}" for d in differences]


def _difference_rows(report: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, part in report["slices"].items():
        cells = []
        for difference in part["differences"]:
            numbers = difference["metrics"][_SLICED_BY]
            text = f"{numbers['mean']:+.3f} [{numbers['low']:+.3f}, {numbers['high']:+.3f}]"
            cells.append(f"**{text}**" if numbers["low"] > 0 or numbers["high"] < 0 else text)
        rows.append([name, f"{part['queries']:,}", *cells])
    return rows


def _weights(report: dict[str, Any]) -> list[str]:
    """The section on modal weights, where the model has any."""
    if not report.get("modal_weights"):
        return []
    rows = [
        [name, f"{of['products']:,}", f"{of['mean_title']:.3f}", *(f"{q:.3f}" for q in of["quantiles_title"].values())]
        for name, of in report["modal_weights"].items()
    ]
    quantiles = [f"{float(q):.0%}" for q in next(iter(report["modal_weights"].values()))["quantiles_title"]]
    return [
        "## The title's share of the product vector (w_title)\n",
        "Products that have both title and image; quantiles over products. The picture is weights.png.\n",
        markdown_table(["products whose title has", "products", "mean", *quantiles], rows),
    ]


def _interval(numbers: dict[str, float]) -> str:
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; | in a cell is escaped."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
