"""Renders report.json as Markdown and as a table on the terminal."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from make_jax.console import LiteralConsole
from make_jax.evaluation.metrics import METRICS, PRIMARY_METRIC
from make_jax.report_tables import format_difference, format_interval, markdown_table, system_name

_TASKS = {
    "known-item": "one relevant product",
    "graded": "relevant products of several grades",
    "category": "several relevant products of one grade",
}


def markdown(report: dict[str, Any]) -> str:
    """Returns the complete report as Markdown."""
    about, catalog = report["about"], report["about"]["catalog"]
    overall = report["slices"]["all"]
    parts = [
        f"# {_title(report)}\n",
        f"{report['queries']:,} queries search {report['products']:,} products. {_left_out(report)}"
        f"Means over queries with 95 % intervals in brackets ({report['intervals']['method']}, "
        f"{report['intervals']['resamples']:,} resamples).\n",
        f"Queries: {catalog['queries_from']}\n",
        "## Systems\n",
        markdown_table(
            ["system", *report["metrics"]],
            [
                [system_name(s), *(f"{overall['systems'][s][m]['mean']:.3f}" for m in report["metrics"])]
                for s in report["systems"]
            ],
        ),
        *_tasks(report),
        *_macro(report),
        f"## {PRIMARY_METRIC} by slice\n",
        "A query can be in several slices.\n",
        markdown_table(
            ["slice", "queries", *map(system_name, report["systems"])],
            [
                [
                    name,
                    f"{part['queries']:,}",
                    *(format_interval(part["systems"][s][PRIMARY_METRIC]) for s in report["systems"]),
                ]
                for name, part in report["slices"].items()
            ],
        ),
        f"## Paired differences of {PRIMARY_METRIC}\n",
        "**Bold**: the 95 % interval excludes 0. `eval.py compare` tests two reports for significance.\n",
        markdown_table(["slice", "queries", *_pairs(report)], _difference_rows(report)),
        *_modal_weights(report),
        "## Notes\n",
        *(f"* {note}" for note in report["notes"]),
        f"* {_chosen(report)}",
        f"* {_cost(report)}",
        *([f"* gallery.png: {report['gallery']}"] if report.get("gallery") else []),
        "* Re-score with `ir_measures qrels.txt runs/SYSTEM.run.gz "
        + " ".join(f"'{name}'" for name in report["ir_measures"].values())
        + "`.\n",
        "## Provenance\n",
        f"* command: `{about['command']}`",
        f"* commit: {about['commit'] or 'unknown'}; make_jax {about['make_jax']}; seed {about['seed']}",
        f"* device: {about['device']}, {about['machine']}, Python {about['python']}",
        f"* versions: {', '.join(f'{name} {version}' for name, version in about['versions'].items())}",
        f"* catalog: {catalog['title'] or catalog['name']}; licence: {catalog['licence'] or 'not stated'}; "
        f"digest {catalog['digest']}\n",
    ]
    return "\n".join(parts)


def print_report(report: dict[str, Any], console: LiteralConsole) -> None:
    """Prints the table of systems, paired differences and notes."""
    overall = report["slices"]["all"]
    title = f"{_title(report)}: {report['queries']:,} queries, {report['products']:,} products"
    # Narrow columns: eight metrics fit into a terminal of 80 columns without cut digits.
    metrics = [m for m in report["metrics"] if m in METRICS and METRICS[m].terminal]
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=0)
    table.add_column("system", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.replace("_", " ").replace("@", "\n@"), justify="right", min_width=5)
    best = {m: max(overall["systems"][s][m]["mean"] for s in report["systems"]) for m in metrics}
    for system in report["systems"]:
        cells = []
        for metric in metrics:
            mean = overall["systems"][system][metric]["mean"]
            cells.append(Text(f"{mean:.3f}", "bold green" if mean == best[metric] else ""))
        table.add_row(system_name(system), *cells)
    console.print(table)
    for difference in overall["differences"]:
        numbers = difference["metrics"][PRIMARY_METRIC]
        console.print(
            f"  {system_name(difference['system'])} - {system_name(difference['minus'])}: {PRIMARY_METRIC} "
            f"{numbers['mean']:+.3f} (95 % {numbers['low']:+.3f} to {numbers['high']:+.3f})"
        )
    for note in (_left_out(report).strip(), *report["notes"], _chosen(report)):
        if note:
            console.print(f"  {note}", style="dim")
    console.print(f"  Queries: {report['about']['catalog']['queries_from']}", style="dim")


def _title(report: dict[str, Any]) -> str:
    """Returns catalog, model, split and pool."""
    model = report["about"].get("model")
    of = f" by {model['name']}" if model else ""
    pools = {"split": "split", "all": "queries, all products", "judged": "queries, judged products only"}
    return f"{report['about']['catalog']['name']}{of}, {report['split']} {pools[report['pool']]}"


def _tasks(report: dict[str, Any]) -> list[str]:
    """Returns the section with the usual metrics of each task."""
    rows = []
    for task in _TASKS:
        part = report["slices"].get(f"task:{task}")
        metrics = [m for m in report["metrics"] if m in METRICS and METRICS[m].task == task]
        for metric in metrics if part else ():
            cells = [format_interval(part["systems"][s][metric]) for s in report["systems"]]
            rows.append([task, f"{part['queries']:,}", metric, *cells])
    return [
        "## By task\n",
        "The judgements of a query define its task: "
        + ", ".join(f"{task} ({what})" for task, what in _TASKS.items())
        + ".\n",
        markdown_table(["task", "queries", "metric", *map(system_name, report["systems"])], rows),
    ]


def _macro(report: dict[str, Any]) -> list[str]:
    """Returns the section with micro and macro means, for more than one group."""
    macro, overall = report["macro"], report["slices"]["all"]
    if len(macro["groups"]) == 1:
        return []
    groups = ", ".join(f"{name or '(none)'} {count:,}" for name, count in macro["groups"].items())
    means = [("micro (over queries)", overall["systems"]), ("macro (over groups)", macro["systems"])]
    rows = [[name, *(format_interval(of[s][PRIMARY_METRIC]) for s in report["systems"])] for name, of in means]
    return [
        f"## {PRIMARY_METRIC}, micro and macro\n",
        f"Groups are kind and language of the query: {groups}.\n",
        markdown_table(["mean", *map(system_name, report["systems"])], rows),
    ]


def _cost(report: dict[str, Any]) -> str:
    """Returns encoding times and index size of the main system."""
    cost = report["cost"]
    if "products" not in cost:
        return f"Cost: {cost['bytes']:,} bytes of index per product."
    return (
        f"Cost of {system_name(report['main'])}: "
        f"{cost['product_seconds']:.1f} s to encode {cost['products']:,} products, "
        f"{cost['query_seconds']:.1f} s to encode {cost['queries']:,} queries, including loading and compilation; "
        f"{cost['bytes']:,} bytes per product vector."
    )


def _left_out(report: dict[str, Any]) -> str:
    n = len(report["queries_without_positive"])
    return f"{n:,} queries without a relevant product are excluded. " if n else ""


def _chosen(report: dict[str, Any]) -> str:
    """Returns the tuned parameters and the queries that tuned them."""
    parameters, values = report["parameters"], []
    if "bm25" in parameters:
        values.append(f"BM25 k1 {parameters['bm25']['k1']:g}, b {parameters['bm25']['b']:g}")
    if "fusion" in parameters:
        values.append(f"BM25 fusion weight {parameters['fusion']['weight']:g}")
    if "late_fusion" in parameters:
        values.append(f"title weight of the late fusion {parameters['late_fusion']['weight']:g}")
    if not values:
        return "Nothing was tuned."
    on = parameters["chosen_on"]
    how = f"tuned by {on['by']} on {on['queries']:,} queries of the {on['split']} split" if on else "defaults"
    return f"{'; '.join(values)}: {how}."


def _pairs(report: dict[str, Any]) -> list[str]:
    differences = report["slices"]["all"]["differences"]
    return [f"{system_name(d['system'])} - {system_name(d['minus'])}" for d in differences]


def _difference_rows(report: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, part in report["slices"].items():
        cells = []
        for difference in part["differences"]:
            numbers = difference["metrics"][PRIMARY_METRIC]
            text = format_difference(numbers)
            cells.append(f"**{text}**" if numbers["low"] > 0 or numbers["high"] < 0 else text)
        rows.append([name, f"{part['queries']:,}", *cells])
    return rows


def _modal_weights(report: dict[str, Any]) -> list[str]:
    """Returns the section on modal weights, if the model has any."""
    if not report.get("modal_weights"):
        return []
    rows = [
        [name, f"{of['products']:,}", f"{of['mean_title']:.3f}", *(f"{q:.3f}" for q in of["quantiles_title"].values())]
        for name, of in report["modal_weights"].items()
    ]
    quantiles = [f"{float(q):.0%}" for q in next(iter(report["modal_weights"].values()))["quantiles_title"]]
    return [
        "## Modal weights: w_title\n",
        "The share of the title in the product vector, for products with title and image. Quantiles over products; "
        "histograms in weights.png.\n",
        markdown_table(["title", "products", "mean", *quantiles], rows),
    ]
