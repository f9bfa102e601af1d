"""The leaderboard as Markdown: models by benchmarks, cost, each benchmark by slice, and what others published."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from make_jax.evaluation.significance import RANDOMIZATION_RESAMPLES, holm, paired_p_values
from scripts.leaderboard.kept_results import METRIC, Row, check_comparable
from scripts.results.benchmark_tables import markdown

LEVEL = 0.05
_UNEXPLAINED = "not explained yet"


def page(rows: Sequence[Row], published: Mapping[str, Any], remarks: Mapping[str, Mapping[str, str]]) -> str:
    """The whole page. `remarks` says, by benchmark and slice, why others lead there, and wherever those queries are."""
    benchmarks: dict[str, list[Row]] = {}
    for row in rows:
        benchmarks.setdefault(row.kept["benchmark"], []).append(row)
    for of in benchmarks.values():
        check_comparable(of)
        of.sort(key=lambda row: (not row.kept["ours"], -row.values.mean()))
    parts = [
        "# Leaderboard\n",
        "Made by `python scripts/leaderboard/leaderboard.py write` from `docs/results/baselines/*.json`; no number is "
        "typed. Each file records commit, seed, device, versions, command and what was "
        "chosen on validation. One seed each.\n",
    ]
    if benchmarks:
        parts += [f"## {METRIC}, all queries\n", "95 % bootstrap interval over queries.\n", _overview(benchmarks)]
        parts += ["## Cost\n", _COST, _costs(benchmarks)]
    for name, of in benchmarks.items():
        parts += [f"## {name}, by slice\n", *_by_slice(of, remarks.get(name, {}))]
    return "\n".join([*parts, *_published(published)])


def _overview(benchmarks: Mapping[str, Sequence[Row]]) -> str:
    labels = _labels(benchmarks)
    heads = [f"{name} ({of[0].kept['queries']:,} of {of[0].kept['products']:,})" for name, of in benchmarks.items()]
    rows = [["model", *heads]]
    for label in labels:
        found = [next((row for row in of if row.kept["label"] == label), None) for of in benchmarks.values()]
        rows.append(
            [label, *(_interval(row.kept["slices"]["all"]["metrics"][METRIC]) if row else "-" for row in found)]
        )
    return (
        markdown(rows)
        + "\nIn brackets: queries of products. -: the model cannot read that benchmark, or did not run.\n"
    )


_COST = (
    "Products and queries encoded a second (loading and compilation included), bytes a product of its vectors or of "
    "the BM25 index, seconds of training. Times are of a machine that did other work too: they show orders of "
    "magnitude.\n"
)


def _costs(benchmarks: Mapping[str, Sequence[Row]]) -> str:
    rows = [["model", "benchmark", "products/s", "queries/s", "bytes", "training s", "device"]]
    for label in _labels(benchmarks):
        for name, of in benchmarks.items():
            for row in of:
                if row.kept["label"] == label:
                    cost, about = row.kept["cost"], row.kept["about"]
                    speeds = [_speed(cost, what) for what in ("product", "query")]
                    trained = row.kept.get("training_seconds") or about.get("run", {}).get("training_seconds")
                    size = f"{cost['bytes']:,}" if cost else "-"
                    rows.append([label, name, *speeds, size, f"{trained:,.0f}" if trained else "-", about["device"]])
    return markdown(rows)


def _by_slice(rows: Sequence[Row], remarks: Mapping[str, str]) -> list[str]:
    """The benchmark's table: slices by models; then where ours does not lead."""
    first = rows[0]
    table = [["slice", "queries", *(row.kept["label"] for row in rows)]]
    p_values = _against_ours(rows)
    behind, reasons = [], {}
    for name, part in first.kept["slices"].items():
        means = [row.kept["slices"][name]["metrics"][METRIC]["mean"] for row in rows]
        cells = []
        for i, row in enumerate(rows):
            cell = _interval(row.kept["slices"][name]["metrics"][METRIC])
            cell = f"**{cell}**" if means[i] == max(means) else cell
            cells.append(cell + ("" if p_values.get((i, name), 0) < LEVEL else " ="))
            if first.kept["ours"] and means[i] > means[0]:
                sure = "significant" if p_values[i, name] < LEVEL else "not significant"
                told = f"{row.kept['label']} {means[i] - means[0]:+.3f} (p {p_values[i, name]:.4f} after Holm, {sure})"
                reason, why = _why(first, row, name, remarks)
                reasons |= {reason: remarks[reason]} if reason else {}
                behind.append(f"* {name}: {told}: {why}")
        table.append([name, f"{part['queries']:,}", *cells])
    said = [_how(first, len(p_values)), markdown(table)]
    if first.kept["ours"] and len(rows) > 1:
        leads = [f"{first.kept['label']} leads every slice.\n"]
        explained = [f"Of {reason}: {text}.\n" for reason, text in reasons.items()]
        said += ["Where it does not lead:\n", *behind, "", *explained] if behind else leads
    macro = [f"{row.kept['label']} {_interval(row.kept['macro']['metrics'][METRIC])}" for row in rows]
    groups = len(first.kept["macro"]["groups"])
    return [*said, f"Macro mean over {groups} groups (kind and language): {'; '.join(macro)}.\n"]


def _why(ours: Row, other: Row, name: str, remarks: Mapping[str, str]) -> tuple[str, str]:
    """The remark that explains a slice in which another model leads, "" for none, and what is told of the slice."""
    inside = ours.members[name]
    known = {told: inside & ours.members[told] for told in remarks if told in ours.members}
    told = name if name in remarks else max(known, key=lambda told: known[told].sum(), default="")
    if not told or not known[told].any():
        return "", _UNEXPLAINED
    rest = inside & ~known[told]
    if not rest.any():
        return told, f"see {told} below"
    difference = (other.values - ours.values)[rest].mean()
    if difference > 0:
        return "", _UNEXPLAINED
    part = f"{known[told].sum():,} of its {inside.sum():,} queries are of {told}, see below"
    return told, f"{part}; on the others {difference:+.3f}"


def _how(first: Row, tests: int) -> str:
    kept = first.kept
    text = (
        f"{kept['split']} queries, pool `{kept['pool']}`. Queries: {kept['about']['catalog']['queries_from']} "
        "Bold: the highest."
    )
    if not tests:
        return text + "\n"
    return text + (
        f" =: not different from {kept['label']} by a paired randomization test ({RANDOMIZATION_RESAMPLES:,} sign "
        f"vectors), Holm-corrected over the {tests} tests of this table at {LEVEL:g}.\n"
    )


def _against_ours(rows: Sequence[Row]) -> dict[tuple[int, str], float]:
    """Corrected p-values of (position of a model, slice) against the first row; empty where that is not ours."""
    if not rows[0].kept["ours"] or len(rows) == 1:
        return {}
    names = list(rows[0].kept["slices"])
    pairs = [(i, name) for i in range(1, len(rows)) for name in names]
    columns = [np.where(rows[0].members[name], rows[i].values - rows[0].values, np.nan) for i, name in pairs]
    return dict(zip(pairs, holm(paired_p_values(np.stack(columns, axis=1))).tolist(), strict=True))


def _published(published: Mapping[str, Any]) -> list[str]:
    rows = [["model", "benchmark", "figure", "value", "source"]]
    for one in published["rows"]:
        rows.append([one["model"], one["benchmark"], one["figure"], one["value"], f"[{len(rows)}]"])
    sources = [f"{i}. {one['source']}" for i, one in enumerate(published["rows"], start=1)]
    return [
        "## Published by others: not measured here\n",
        "Figures as their authors state them, on benchmarks that were not at hand when this page was made. None was "
        "re-measured with `eval.py`, queries and pools may be drawn otherwise, and none compares with the tables "
        "above.\n",
        markdown(rows),
        "Sources:\n",
        *sources,
        "",
    ]


def _labels(benchmarks: Mapping[str, Sequence[Row]]) -> list[str]:
    """Ours first, then by how far behind the first model, on average over the benchmarks that a model ran on."""
    ahead: dict[str, list[float]] = {}
    ours = set()
    for of in benchmarks.values():
        for row in of:
            ahead.setdefault(row.kept["label"], []).append(float(row.values.mean() - of[0].values.mean()))
            if row.kept["ours"]:
                ours.add(row.kept["label"])
    return sorted(ahead, key=lambda label: (label not in ours, -float(np.mean(ahead[label]))))


def _speed(cost: Mapping[str, float], what: str) -> str:
    number, seconds = cost.get({"product": "products", "query": "queries"}[what]), cost.get(f"{what}_seconds")
    return f"{number / seconds:,.0f}" if number and seconds else "-"


def _interval(numbers: Mapping[str, float]) -> str:
    return f"{numbers['mean']:.3f} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def read_json(path: Path, default: Any) -> Any:
    """The JSON of a file, `default` when there is none."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else default
