"""A report for people: Markdown and a table on the terminal, from report.json alone."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from make_jax.report_tables import markdown_table, system_name

_SLICED_BY = "nDCG@10"
_BY_TASK = {  # what a benchmark of each kind reports: docs/evaluation.md
    "task:known-item": ("MRR@10", "hit_rate@1", "hit_rate@10"),
    "task:graded": ("nDCG@10",),
    "task:category": ("precision@10", "MAP"),
}
_NOT_ON_TERMINAL = ("precision@10", "hit_rate@5")  # there is room for eight


def markdown(report: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    about, catalog = report["about"], report["about"]["catalog"]
    whole = report["slices"]["all"]
    parts = [
        f"# {_title(report)}\n",
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
        *_tasks(report),
        *_macro(report),
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
        "The same queries on both sides; **bold** where the interval leaves out 0. Two reports compare by "
        "`eval.py compare`, with tests.\n",
        markdown_table(["slice", "queries", *_pairs(report)], _difference_rows(report)),
        *_weights(report),
        "## Notes\n",
        *(f"* {note}" for note in report["notes"]),
        f"* {_chosen(report)}",
        f"* {_cost(report)}",
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
    title = f"{_title(report)}: {report['queries']:,} queries, {report['products']:,} products"
    # As narrow as eight metrics can be: a terminal of 80 columns must show every digit.
    metrics = [m for m in report["metrics"] if m not in _NOT_ON_TERMINAL]
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=0)
    table.add_column("system", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.replace("_", " ").replace("@", "\n@"), justify="right", min_width=5)
    best = {m: max(whole["systems"][s][m]["mean"] for s in report["systems"]) for m in metrics}
    for system in report["systems"]:
        cells = []
        for metric in metrics:
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


def _title(report: dict[str, Any]) -> str:
    """What was evaluated, in a few words."""
    model = report["about"].get("model")
    of = f" by {model['name']}" if model else ""
    pools = {"split": "split", "all": "queries, all products", "judged": "queries, judged products alone"}
    return f"{report['about']['catalog']['name']}{of}, {report['split']} {pools[report['pool']]}"


def _tasks(report: dict[str, Any]) -> list[str]:
    """The figures that benchmarks of each kind report."""
    rows = []
    for name, metrics in _BY_TASK.items():
        part = report["slices"].get(name)
        for metric in metrics if part else ():
            cells = [_interval(part["systems"][s][metric]) for s in report["systems"]]
            rows.append([name.removeprefix("task:"), f"{part['queries']:,}", metric, *cells])
    return [
        "## By what a query asks for\n",
        "known-item: one product answers; graded: answers are of several grades; category: several are of one grade.\n",
        markdown_table(["task", "queries", "metric", *map(system_name, report["systems"])], rows),
    ]


def _macro(report: dict[str, Any]) -> list[str]:
    """Means over queries beside means over groups of queries."""
    macro, whole = report["macro"], report["slices"]["all"]
    if len(macro["groups"]) == 1:
        return []
    groups = ", ".join(f"{name or '(none)'} {count:,}" for name, count in macro["groups"].items())
    means = [("micro: each query alike", whole["systems"]), ("macro: each group alike", macro["systems"])]
    rows = [[name, *(_interval(of[s][_SLICED_BY]) for s in report["systems"])] for name, of in means]
    return [
        f"## {_SLICED_BY}, micro and macro\n",
        f"Groups are a kind of query in a language: {groups}.\n",
        markdown_table(["mean", *map(system_name, report["systems"])], rows),
    ]


def _cost(report: dict[str, Any]) -> str:
    """What the main system took."""
    cost = report["cost"]
    if "products" not in cost:
        return f"Cost: {cost['bytes']:,} bytes of index a product."
    return (
        f"Cost of {system_name(report['main'])}: {cost['product_seconds']:.1f} s for {cost['products']:,} products, "
        f"{cost['query_seconds']:.1f} s for {cost['queries']:,} queries, loading and compilation included; "
        f"{cost['bytes']:,} bytes a product as its vectors are kept."
    )


def _left_out(report: dict[str, Any]) -> str:
    n = len(report["queries_without_positive"])
    return f"{n:,} more had nothing relevant to find and are left out. " if n else ""


def _chosen(report: dict[str, Any]) -> str:
    """Which parameters the baselines had."""
    parameters, said = report["parameters"], []
    if "bm25" in parameters:
        said.append(f"BM25 k1 {parameters['bm25']['k1']:g}, b {parameters['bm25']['b']:g}")
    if "fusion" in parameters:
        said.append(f"weight of BM25 in the fusion {parameters['fusion']['weight']:g}")
    if "late_fusion" in parameters:
        said.append(f"weight of titles in the late fusion {parameters['late_fusion']['weight']:g}")
    if not said:
        return "Nothing was tuned."
    on = parameters["chosen_on"]
    how = f"chosen by {on['by']} on {on['queries']:,} queries of the {on['split']} split" if on else "defaults"
    return f"{'; '.join(said)}: {how}."


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
