"""Tables of what `benchmarks/` measured, each made from one JSON file below docs/results."""

import json
from collections.abc import Callable
from typing import Any

from scripts import RESULTS


def benchmark_tables() -> dict[str, str]:
    """Markdown by the name in its marker; a benchmark that has no file yet has no table."""
    makers: dict[str, Callable[[dict[str, Any]], str]] = {
        "objective-costs": _objective_costs,
        "loss-memory": _loss_memory,
        "loss-time": _loss_time,
        "loss-peers": _loss_peers,
        "gradient-cache": _gradient_cache,
        "scaling": _scaling,
        "pod-compile": _pod_compile,
        "cost-model": _cost_model,
        "kill-matrix": _kill_matrix,
        "search-scale": _search_scale,
        "pretrained": _pretrained,
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


def _gradient_cache(made: dict[str, Any]) -> str:
    rows = [["step", "s", "least s", "temporary MiB"]]
    for name, row in made["rows"].items():
        rows.append([name, f"{row['seconds']:.2f}", f"{row['least']:.2f}", f"{row['temporary_mib']:,.0f}"])
    return f"{made['steps']} steps of each, alternating; medians. {_machine(made)}\n\n{markdown(rows)}"


def _scaling(made: dict[str, Any]) -> str:
    rows = [
        ["processes", "devices", "s a step", "least s", "efficiency", "MiB sent a device", "temporary MiB a device"]
    ]
    for r in made["rows"]:
        times = [f"{r['seconds']:.2f}", f"{r['fastest']:.2f}", f"{r['efficiency']:.2f}"]
        rows.append(
            [str(r["processes"]), str(r["devices"]), *times, f"{r['sent_mib']:.1f}", f"{r['temporary_mib']:.0f}"]
        )
    told = f"{made['batch']} rows, {made['cores']} cores, {made['steps']} steps in each of {made['rounds']} starts."
    return f"{told} {_machine(made)}\n\n{markdown(rows)}"


def _pod_compile(made: dict[str, Any]) -> str:
    """Memory of each pod, then its exchanges."""
    rows = [["pod", "fits", "MiB there", "state and batch", "temporary", "program", "total", "compiled in"]]
    sent = [["pod", "operation", "among", "operations", "times", "MiB each time", "MiB sent a device"]]
    for r in made["rows"]:
        pod, mib = f"{r['count']} {r['device']}", r["mib"]
        sizes = [f"{mib[what]:,}" for what in ("there is", "state and batch", "temporary", "program", "total")]
        rows.append([pod, "yes" if r["fits"] else "no", *sizes, f"{r['compile_seconds']:,} s"])
        for each in r["collectives"]:
            counts = [str(each[what]) for what in ("devices", "count", "times")]
            sent.append([pod, each["operation"], *counts, f"{each['size'] / 2**20:,.2f}", f"{each['sent_mib']:,.1f}"])
        sent.append([pod, "in all", "", "", "", "", f"{sum(each['sent_mib'] for each in r['collectives']):,.1f}"])
    told = f"Compiled by libtpu {made['libtpu']}, jax {made['about']['versions']['jax']}; nothing run."
    return f"{told}\n\n{markdown(rows)}\n{markdown(sent)}"


def _cost_model(made: dict[str, Any]) -> str:
    """The ring on every machine; the gather form's differences stand in the file."""
    head = ["batch", "chips", "compute ms", "memory ms", "network ms", "pairs a second", "share of peak"]
    parts = []
    for name in dict.fromkeys(r["machine"] for r in made["rows"]):
        rows = [head]
        for r in made["rows"]:
            if (r["machine"], r["form"]) != (name, "ring"):
                continue
            times = [f"{r['seconds'][what] * 1e3:,.0f}" for what in ("compute", "memory", "network")]
            pairs, share = r["pairs_a_second"], r["share_of_peak"]
            rates = [
                f"{pairs['at least']:,} to {pairs['at most']:,}",
                f"{share['at least']:.2f} to {share['at most']:.2f}",
            ]
            rows.append([f"{r['batch']:,}", f"{r['chips']:,}" + ("" if r["fits"] else " (too large)"), *times, *rates])
        parts.append(f"{name}\n\n{markdown(rows)}")
    return "\n".join(parts)


def _kill_matrix(made: dict[str, Any]) -> str:
    rows = [["what was done", "promise", "what was seen"]]
    rows += [[r["row"], r["result"], r["seen"]] for r in made["rows"]]
    return f"{_machine(made)}\n\n{markdown(rows)}"


def _search_scale(made: dict[str, Any]) -> str:
    rows = [["vectors", "by", "vectors are", "s", "least s", "processor s", "peak GiB of the process"]]
    for r in made["rows"]:
        lie = "on disk, float16" if r["side"] == "make_jax" else "in memory, float32"
        times = [f"{r['seconds']:.1f}", f"{r['least_seconds']:.1f}", f"{r['processor_seconds']:.1f}"]
        rows.append([f"{r['vectors']:,}", r["side"], lie, *times, f"{r['peak_gib']:.2f}"])
    asked = f"{made['queries']:,} queries, the {made['k']} best of each, D = {made['width']}, {made['vectors_are']}"
    how = f"{made['rounds']} rounds, alternating; medians. {made['about']['cores']} cores. {_machine(made)}"
    return f"{asked}; {how}\n\n{markdown(rows)}"


def _pretrained(made: dict[str, Any]) -> str:
    """A table a catalog: each model by slice, then the first model minus each other one."""
    names = {
        "pretrained": "MAKE from MiniLM",
        "scratch": "MAKE from scratch",
        "minilm": "MiniLM as it is, titles alone",
    }
    slices = {
        "paraphrases": ("val", "kind:handwritten lang:en"),
        "paraphrases, Chinese": ("val", "kind:handwritten lang:zh"),
        "attr English": ("test", "kind:attr lang:en"),
        "held-out, English": ("test", "heldout:yes lang:en"),
        "attr Chinese": ("test", "kind:attr lang:zh"),
    }
    parts = []
    for catalog, found in made.items():
        rows = [["nDCG@10", "steps", "minutes", *slices]]
        for model, row in found["models"].items():
            cells = [row[split][name] for split, name in slices.values()]
            trained = [f"{row['steps']:,}", f"{row['training_seconds'] / 60:.0f}"] if "steps" in row else ["", ""]
            shown = [f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in cells]
            rows.append([names[model], *trained, *shown])
        for model, row in found["pretrained minus"].items():
            cells = [row[split][name] for split, name in slices.values()]
            shown = [f"{cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]" for cell in cells]
            rows.append([f"from MiniLM minus {names[model].removeprefix('MAKE ')}, paired", "", "", *shown])
        about = found["about"]
        parts.append(f"{catalog}, commit {about['commit'][:9]}\n\n{markdown(rows)}")
    return "\n".join(parts)


def _machine(made: dict[str, Any]) -> str:
    about = made["about"]
    return f"On {about['device']}, jax {about['versions']['jax']}, commit {about['commit'][:9]}."
