"""Tables of what `benchmarks/` measured, each made from one JSON file below docs/results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"


def benchmark_tables() -> dict[str, str]:
    """Markdown by the name in its marker; a benchmark that has no file yet has no table."""
    makers: dict[str, Callable[[dict[str, Any]], str]] = {
        "objective-costs": _objective_costs,
        "loss-memory": _loss_memory,
        "loss-time": _loss_time,
        "loss-peers": _loss_peers,
        "search-scale": _search_scale,
    }
    files = {name: RESULTS / f"{name}.json" for name in makers}
    return {name: makers[name](json.loads(file.read_text("utf-8"))) for name, file in files.items() if file.is_file()}


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head and whose first column is text."""
    lines = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _objective_costs(made: dict[str, Any]) -> str:
    rows = [["objectives", "s a step", "quartiles", "x QIC alone", "temporary MiB", "state MiB"]]
    base = made["rows"]["QIC alone"]["seconds"]
    for name, row in made["rows"].items():
        low, _, high = row["quartiles"]
        times = [f"{row['seconds']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['seconds'] / base:.2f}"]
        rows.append([name, *times, f"{row['temporary_mib']:.0f}", f"{row['state_mib']:.0f}"])
    return f"{made['steps']} steps of each, alternating; medians. {_machine(made)}\n\n{markdown(rows)}"


def _loss_memory(made: dict[str, Any]) -> str:
    """By batch for each form; the ring by tile and by keywords at one batch."""
    found = {(r["form"], r["batch"], r["tile"], r["keywords"]): r["temporary_mib"] for r in made["rows"]}
    batches = sorted({batch for _, batch, _, _ in found})
    kinds = list(dict.fromkeys((form, tile, words) for form, _, tile, words in found))
    whole = [k for k in kinds if all((k[0], batch, *k[1:]) in found for batch in batches)]
    rows = [["form", "tile", "keywords", *(f"{batch:,}" for batch in batches)]]
    for form, tile, words in sorted(kinds, key=lambda kind: kind not in whole):
        cells = [found.get((form, batch, tile, words)) for batch in batches]
        rows.append([form, str(tile or "-"), f"{words:,}", *("" if c is None else f"{c:,.1f}" for c in cells)])
    return f"MiB of temporary buffers a device, {made['devices']} devices, D = {made['width']}.\n\n{markdown(rows)}"


def _loss_time(made: dict[str, Any]) -> str:
    rows = [["rows", "keywords", "form", "s", "least s", "x plain", "x plain, processor time"]]
    for r in made["rows"]:
        times = [f"{r['seconds'][what]:.2f}" for what in ("median", "least")]
        ratios = [f"{r['times_plain'][what]:.2f}" for what in ("clock", "processor")]
        rows.append([f"{r['batch']:,}", f"{r['keywords']:,}", r["form"], *times, *ratios])
    told = f"Value and gradient on one device, {made['rounds']} rounds, alternating; medians. {_machine(made)}"
    return f"{told}\n\n{markdown(rows)}"


def _loss_peers(made: dict[str, Any]) -> str:
    rows = [["processes", "batch", "form", "s", "least s", "peak MiB a process above its start"]]
    for r in made["rows"]:
        times = [f"{r['seconds']:.2f}", f"{r['least_seconds']:.2f}"]
        rows.append([str(r["processes"]), f"{r['batch']:,}", r["form"], *times, f"{r['peak_mib']:.0f}"])
    return f"{made['rounds']} rounds, alternating; medians. {_machine(made)}\n\n{markdown(rows)}"


def _search_scale(made: dict[str, Any]) -> str:
    rows = [["vectors", "by", "vectors are", "s", "least s", "processor s", "peak GiB of the process"]]
    for r in made["rows"]:
        lie = "on disk, float16" if r["side"] == "make_jax" else "in memory, float32"
        times = [f"{r['seconds']:.1f}", f"{r['least_seconds']:.1f}", f"{r['processor_seconds']:.1f}"]
        rows.append([f"{r['vectors']:,}", r["side"], lie, *times, f"{r['peak_gib']:.2f}"])
    asked = f"{made['queries']:,} queries, the {made['k']} best of each, D = {made['width']}, {made['vectors_are']}"
    how = f"{made['rounds']} rounds, alternating; medians. {made['about']['cores']} cores. {_machine(made)}"
    return f"{asked}; {how}\n\n{markdown(rows)}"


def _machine(made: dict[str, Any]) -> str:
    about = made["about"]
    return f"On {about['device']}, jax {about['versions']['jax']}, commit {about['commit'][:9]}."
