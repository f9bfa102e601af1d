"""Markdown tables of the results of `benchmarks/`, each from one JSON file in docs/results."""

import json
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

from make_jax.report_tables import format_difference, format_interval, markdown_table
from scripts import RESULTS

# Rows of the tables of catalog-size.json, and lines of its plot: name, step, measure.
CATALOG_SIZE_SECONDS = (
    ("check", "check", "seconds"),
    ("build, two processes", "build", "seconds"),
    ("first start to first step", "first_start", "first_step_seconds"),
    ("next start to first step", "next_start", "first_step_seconds"),
    ("validation", "next_start", "validation_seconds"),
)
CATALOG_SIZE_BYTES = (
    ("check, peak", "check", "peak_anonymous_bytes"),
    ("build, peak of all processes", "build", "peak_anonymous_bytes"),
    ("first start, peak of all processes", "first_start", "peak_anonymous_bytes"),
    ("next start, at the first step", "next_start", "first_step_anonymous_bytes"),
    ("next start, after validation", "next_start", "validation_anonymous_bytes"),
)


def benchmark_tables() -> dict[str, str]:
    """Returns marker name -> table; benchmarks without a result file are left out."""
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
        "search-engines": _search_engines,
        "search-index-kills": _search_index_kills,
        "http-fuzz": _http_fuzz,
        "search-latency": _search_latency,
        "catalog-size": _catalog_size,
        "pretrained": _pretrained,
        "without-clicks": _without_clicks,
        "input-speed": _input_speed,
    }
    files = {name: RESULTS / f"{name}.json" for name in makers}
    return {name: makers[name](json.loads(file.read_text("utf-8"))) for name, file in files.items() if file.is_file()}


def _objective_costs(result: dict[str, Any]) -> str:
    header, rows = ["objectives", "s per step", "quartiles", "x QIC alone", "temporary MiB", "state MiB"], []
    base = result["rows"]["QIC alone"]["seconds"]
    for name, row in result["rows"].items():
        low, _, high = row["quartiles"]
        times = [f"{row['seconds']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['seconds'] / base:.2f}"]
        rows.append([name, *times, f"{row['temporary_mib']:.0f}", f"{row['state_mib']:.0f}"])
    return (
        f"{result['steps']} steps of each, alternating; medians. {_machine(result)}\n\n{markdown_table(header, rows)}"
    )


def _loss_memory(result: dict[str, Any]) -> str:
    """One row per implementation, tile and number of keywords; one column per batch size."""
    mib = {(r["form"], r["batch"], r["tile"], r["keywords"]): r["temporary_mib"] for r in result["rows"]}
    batches = sorted({batch for _, batch, _, _ in mib})
    kinds = list(dict.fromkeys((form, tile, words) for form, _, tile, words in mib))
    complete = [k for k in kinds if all((k[0], batch, *k[1:]) in mib for batch in batches)]
    header, rows = ["implementation", "tile", "keywords", *(f"{batch:,}" for batch in batches)], []
    for form, tile, words in sorted(kinds, key=lambda kind: kind not in complete):
        cells = [mib.get((form, batch, tile, words)) for batch in batches]
        rows.append([form, str(tile or "-"), f"{words:,}", *("" if c is None else f"{c:,.1f}" for c in cells)])
    setting = f"MiB of temporary buffers per device, {result['devices']} devices, D = {result['width']}."
    return f"{setting}\n\n{markdown_table(header, rows)}"


def _loss_time(result: dict[str, Any]) -> str:
    header, rows = ["rows", "keywords", "implementation", "s", "min s", "x plain", "x plain, CPU time"], []
    for r in result["rows"]:
        times = [f"{r['seconds'][what]:.2f}" for what in ("median", "least")]
        ratios = [f"{r['times_plain'][what]:.2f}" for what in ("clock", "processor")]
        rows.append([f"{r['batch']:,}", f"{r['keywords']:,}", r["form"], *times, *ratios])
    setting = f"Value and gradient on one device, {result['rounds']} rounds, alternating; medians. {_machine(result)}"
    return f"{setting}\n\n{markdown_table(header, rows)}"


def _loss_peers(result: dict[str, Any]) -> str:
    header, rows = ["processes", "batch", "implementation", "s", "min s", "peak MiB per process above start"], []
    for r in result["rows"]:
        times = [f"{r['seconds']:.2f}", f"{r['least_seconds']:.2f}"]
        rows.append([str(r["processes"]), f"{r['batch']:,}", r["form"], *times, f"{r['peak_mib']:.0f}"])
    return f"{result['rounds']} rounds, alternating; medians. {_machine(result)}\n\n{markdown_table(header, rows)}"


def _gradient_cache(result: dict[str, Any]) -> str:
    header, rows = ["step", "s", "min s", "temporary MiB"], []
    for name, row in result["rows"].items():
        rows.append([name, f"{row['seconds']:.2f}", f"{row['least']:.2f}", f"{row['temporary_mib']:,.0f}"])
    return (
        f"{result['steps']} steps of each, alternating; medians. {_machine(result)}\n\n{markdown_table(header, rows)}"
    )


def _scaling(result: dict[str, Any]) -> str:
    header, rows = (
        [
            "processes",
            "devices",
            "s per step",
            "min s",
            "efficiency",
            "MiB sent per device",
            "temporary MiB per device",
        ],
        [],
    )
    for r in result["rows"]:
        times = [f"{r['seconds']:.2f}", f"{r['fastest']:.2f}", f"{r['efficiency']:.2f}"]
        rows.append(
            [str(r["processes"]), str(r["devices"]), *times, f"{r['sent_mib']:.1f}", f"{r['temporary_mib']:.0f}"]
        )
    setting = (
        f"{result['batch']} rows, {result['cores']} cores, {result['steps']} steps in each of {result['rounds']} runs."
    )
    return f"{setting} {_machine(result)}\n\n{markdown_table(header, rows)}"


def _pod_compile(result: dict[str, Any]) -> str:
    """Memory per pod, then its collectives."""
    header, rows = ["pod", "fits", "device MiB", "state and batch", "temporary", "program", "total", "compile time"], []
    collectives_header = ["pod", "collective", "devices", "operations", "executions", "MiB each", "MiB sent per device"]
    collectives: list[list[str]] = []
    for r in result["rows"]:
        pod, mib = f"{r['count']} {r['device']}", r["mib"]
        sizes = [f"{mib[what]:,}" for what in ("there is", "state and batch", "temporary", "program", "total")]
        rows.append([pod, "yes" if r["fits"] else "no", *sizes, f"{r['compile_seconds']:,} s"])
        for collective in r["collectives"]:
            counts = [str(collective[what]) for what in ("devices", "count", "times")]
            collectives.append(
                [
                    pod,
                    collective["operation"],
                    *counts,
                    f"{collective['size'] / 2**20:,.2f}",
                    f"{collective['sent_mib']:,.1f}",
                ]
            )
        collectives.append(
            [pod, "total", "", "", "", "", f"{sum(collective['sent_mib'] for collective in r['collectives']):,.1f}"]
        )
    setting = f"Compiled by libtpu {result['libtpu']}, jax {result['about']['versions']['jax']}; not executed."
    return f"{setting}\n\n{markdown_table(header, rows)}\n{markdown_table(collectives_header, collectives)}"


def _cost_model(result: dict[str, Any]) -> str:
    """One table per machine, for the ring implementation; the file also has gather."""
    header = ["batch", "chips", "compute ms", "memory ms", "network ms", "pairs per second", "share of peak"]
    parts = []
    for name in dict.fromkeys(r["machine"] for r in result["rows"]):
        rows = []
        for r in result["rows"]:
            if (r["machine"], r["form"]) != (name, "ring"):
                continue
            times = [f"{r['seconds'][what] * 1e3:,.0f}" for what in ("compute", "memory", "network")]
            pairs, share = r["pairs_a_second"], r["share_of_peak"]
            rates = [
                f"{pairs['at least']:,} to {pairs['at most']:,}",
                f"{share['at least']:.2f} to {share['at most']:.2f}",
            ]
            rows.append(
                [f"{r['batch']:,}", f"{r['chips']:,}" + ("" if r["fits"] else " (does not fit)"), *times, *rates]
            )
        parts.append(f"{name}\n\n{markdown_table(header, rows)}")
    return "\n".join(parts)


def _kill_matrix(result: dict[str, Any]) -> str:
    header, rows = ["fault", "guarantee", "observation"], []
    rows += [[r["row"], r["result"], r["seen"]] for r in result["rows"]]
    return f"{_machine(result)}\n\n{markdown_table(header, rows)}"


def _search_scale(result: dict[str, Any]) -> str:
    header, rows = ["vectors", "search by", "storage", "s", "min s", "CPU s", "peak GiB of the process"], []
    for r in result["rows"]:
        storage = "on disk, float16" if r["side"] == "make_jax" else "in memory, float32"
        times = [f"{r['seconds']:.1f}", f"{r['least_seconds']:.1f}", f"{r['processor_seconds']:.1f}"]
        rows.append([f"{r['vectors']:,}", r["side"], storage, *times, f"{r['peak_gib']:.2f}"])
    setting = (
        f"{result['queries']:,} queries, top {result['k']} of each, D = {result['width']}, {result['vectors_are']}"
    )
    how = f"{result['rounds']} rounds, alternating; medians. {result['about']['cores']} cores. {_machine(result)}"
    return f"{setting}; {how}\n\n{markdown_table(header, rows)}"


def _search_engines(result: dict[str, Any]) -> str:
    """For each size a table of latency and recall by filter, and what the engines take."""
    parts = []
    header = ["filter keeps", "query", "flat p50 ms", "flat p99 ms", "edge p50 ms", "edge p99 ms", "edge recall@10"]
    for size in result["sizes"]:
        count, memory, rates = size["products"], size["edge_memory_bytes"], size["queries_per_second"]
        rows = []
        for row in size["rows"]:
            times = [f"{row[engine][share]:.1f}" for engine in ("flat", "edge") for share in ("p50", "p99")]
            rows.append([row["kept"], row["query"], *times, f"{row['recall']:.3f}"])
        parts.append(
            f"{count:,} clustered vectors of {size['width']} numbers, {result['queries']} queries a row; "
            f"{size['about']['cores']} cores, load {size['about']['load_at_end']:.1f} at the end. {_machine(size)}\n\n"
            f"{markdown_table(header, rows)}\n"
            f"Batches of 32 hybrid queries: flat {rates['flat']:.0f} queries/s, edge {rates['edge']:.0f}. The folder "
            f"of edge takes {size['disk_bytes'] / count:,.0f} bytes a product ({size['vector_bytes'] / count:,.0f} are "
            f"its vector) and was built in {size['build_seconds']:.0f} s; its process has "
            f"{memory['anonymous'] / count:,.0f} bytes a product in memory, {memory['with_mapped_files'] / count:,.0f} "
            "with mapped files.\n"
        )
    return "\n".join(parts)


def _search_index_kills(result: dict[str, Any]) -> str:
    header = ["killed command", "seconds that it writes", "SIGKILLs", "left as before", "left complete", "continued"]
    rows = []
    for name in dict.fromkeys(row["command"] for row in result["rows"]):
        found = [row for row in result["rows"] if row["command"] == name]
        left = [row["left"] for row in found]
        counts = (len(found), left.count("before"), left.count("after"), sum(row["continued"] for row in found))
        rows.append([name, f"{found[-1]['of']:.1f}", *map(str, counts)])
    return f"{_machine(result)}\n\n{markdown_table(header, rows)}"


def _http_fuzz(result: dict[str, Any]) -> str:
    header = ["engine", "requests", "5xx but 503", "503", "usual search, median ms", "longest ms", "longest answer s"]
    header += ["memory before MB", "largest MB", "after MB", "known results", "violations"]
    rows = []
    for engine, run in result["engines"].items():
        kinds = run["kinds"]
        statuses = Counter[str]()
        for kind in kinds.values():
            statuses.update(kind["statuses"])
        usual, memory = kinds["usual search"], run["memory of all processes, MB"]
        longest = max(kind["longest ms"] for name, kind in kinds.items() if not name.startswith("slow")) / 1000
        faults = sum(count for status, count in statuses.items() if status.startswith("5") and status != "503")
        rows.append([
            engine, f"{run['requests']:,}", f"{faults}", f"{statuses['503']}", f"{usual['median ms']:.0f}",
            f"{usual['longest ms']:,.0f}", f"{longest:.1f}", *(f"{mb:,}" for mb in memory.values()),
            f"{run['searches with known results in between']:,}", f"{len(run['violations'])}",
        ])  # fmt: skip
    return f"{_machine(result)}\n\n{markdown_table(header, rows)}"


def _search_latency(result: dict[str, Any]) -> str:
    """One table for one client and one for 32: medians of the rounds, with their ranges."""
    parts = []
    for clients in (1, 32):
        header = ["request", "system", "p50 ms", "p90 ms", "p99 ms", "queries/s", "errors", "server cores"]
        rows = []
        for row in result["rows"]:
            if row["clients"] == clients:
                values = [_spread(row[name]) for name in ("p50", "p90", "p99", "queries_per_second")]
                rows.append([row["request"], row["system"], *values, str(row["errors"]), f"{row['server_cores']:.2f}"])
        parts.append(f"{clients} client{'s' if clients > 1 else ''}:\n\n{markdown_table(header, rows)}")
    about, most = result["about"], max(row["client_cores"] for row in result["rows"])
    memory = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in result["memory_bytes"].items())
    settings = "; ".join(
        f"{one['backend']}, threads {one['threads']}, processes {one['processes']} (clients: {clients})"
        for clients, one in result["peer_settings"].items()
    )
    chosen = f" MiniLM + FAISS runs with the best of {len(result['peer_settings_tried'])} settings: {settings}."
    return (
        f"{result['products']:,} products of {about['catalog']['name']}, {result['rounds']} rounds in alternation: "
        f"medians, lowest to highest. The load generator, on the same {about['cores']} cores, takes at most {most:.2f} "
        f"cores; load of the machine {about['load_at_start']:.1f} at the start, {about['load_at_end']:.1f} at the end."
        f"{chosen} {_machine(result)}\n\n" + "\n".join(parts) + f"\nPrivate memory: {memory}.\n"
    )


def _spread(measured: dict[str, Any]) -> str:
    """The median and the range of the rounds."""
    digits = 0 if measured["median"] >= 100 else 1
    low, high = min(measured["rounds"]), max(measured["rounds"])
    return f"{measured['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _catalog_size(result: dict[str, Any]) -> str:
    """Two tables, time and memory, with one row per step and one column per number of products."""
    rows = result["rows"]
    header = [f"{row['products']:,} products" for row in rows]
    seconds = [
        [name, *(f"{row[step][what]:,.0f}" if step in row else "" for row in rows)]
        for name, step, what in CATALOG_SIZE_SECONDS
    ]
    mib = [
        [name, *(f"{row[step][what] / 2**20:,.0f}" if step in row else "" for row in rows)]
        for name, step, what in CATALOG_SIZE_BYTES
    ]
    loads = [step["load"] for row in rows for step in row.values() if isinstance(step, dict)]
    setting = f"{_machine(result)} Load of the machine at the end of the steps: {min(loads)} to {max(loads)}."
    tables = [markdown_table(["s", *header], seconds), markdown_table(["MiB not of files", *header], mib)]
    return "\n".join([f"{setting}\n", *tables])


def _pretrained(result: dict[str, Any]) -> str:
    """One table per catalog: models by slice, then paired differences of the first model to the others."""
    names = {
        "pretrained": "MAKE from MiniLM",
        "scratch": "MAKE from scratch",
        "minilm": "MiniLM zero-shot, titles only",
    }
    slices = {
        "paraphrases": ("val", "kind:handwritten lang:en"),
        "paraphrases, Chinese": ("val", "kind:handwritten lang:zh"),
        "attr English": ("test", "kind:attr lang:en"),
        "held-out, English": ("test", "heldout:yes lang:en"),
        "attr Chinese": ("test", "kind:attr lang:zh"),
    }
    parts = []
    for catalog, entry in result.items():
        header, rows = ["nDCG@10", "steps", "minutes", *slices], []
        for model, row in entry["models"].items():
            cells = [row[split][name] for split, name in slices.values()]
            trained = [f"{row['steps']:,}", f"{row['training_seconds'] / 60:.0f}"] if "steps" in row else ["", ""]
            shown = [format_interval(cell) for cell in cells]
            rows.append([names[model], *trained, *shown])
        for model, row in entry["pretrained minus"].items():
            cells = [row[split][name] for split, name in slices.values()]
            shown = [format_difference(cell | {"mean": cell["difference"]}) for cell in cells]
            rows.append([f"from MiniLM minus {names[model].removeprefix('MAKE ')}, paired", "", "", *shown])
        about = entry["about"]
        parts.append(f"{catalog}, commit {about['commit'][:9]}\n\n{markdown_table(header, rows)}")
    return "\n".join(parts)


def _machine(result: dict[str, Any]) -> str:
    about = result["about"]
    return f"On {about['device']}, jax {about['versions']['jax']}, commit {about['commit'][:9]}."


def _without_clicks(result: dict[str, Any]) -> str:
    """One row per system; one column per catalog and language: median, and lowest to highest over seeds."""
    names = {"all": "", "lang:en": ", English", "lang:zh": ", Chinese"}
    columns = [
        (catalog, part)
        for catalog, found in result["catalogs"].items()
        for part, count in found["queries"].items()
        if part == "all" or count < found["queries"]["all"]
    ]
    header = ["system", *(f"{c}{names[p]} ({result['catalogs'][c]['queries'][p]:,})" for c, p in columns)]
    rows = []
    for system in next(iter(result["catalogs"].values()))["rows"]:
        found = [result["catalogs"][catalog]["rows"][system][part] for catalog, part in columns]
        rows.append([system, *(_median_and_range(each["values"]) for each in found)])
    for label in ("without clicks", "with clicks"):
        for peer in next(iter(result["catalogs"].values()))["joint minus"][label]:
            differences = [
                format_difference(result["catalogs"][catalog]["joint minus"][label][peer]) if part == "all" else ""
                for catalog, part in columns
            ]
            rows.append([f"joint {label} minus {peer}, paired", *differences])
    seeds = len(result["seeds"])
    which = "one seed" if seeds == 1 else f"medians of {seeds} seeds, lowest to highest"
    setting = f"{result['metric']} on the test split; {which}. {_machine(result)}"
    return f"{setting}\n\n{markdown_table(header, rows)}"


def _input_speed(result: dict[str, Any]) -> str:
    """One row per kind of picture, number of cores and system; rates with quartiles."""
    header, rows = ["pictures", "cores", "system", "images/s", "images per CPU second", "make_jax by CPU time"], []
    ours = {}
    for row in result["results"]:
        setting, rate = (row["pictures"], row["cores"]), row["images_per_processor_second"]
        ours |= {setting: rate} if row["system"] == "make_jax" else {}
        rates = []
        for name in ("images_per_second", "images_per_processor_second"):
            low, _, high = row[f"{name}_quartiles"]
            rates.append(f"{row[name]:.0f} ({low:.0f} to {high:.0f})")
        pictures = f"{row['pictures']}, {row['kb']} kB"
        rows.append([pictures, str(row["cores"]), row["system"], *rates, f"{ours[setting] / rate:.2f} x"])
    about = result["about"]
    peer = f"torch {about['torch']}, torchvision {about['torchvision']}, tensors decoded by {about['tensor_decoder']}"
    work = f"JPEGs of {result['side']} x {result['side']} pixels to {result['size']} x {result['size']}"
    caption = f"{work}, {result['rounds']} rounds, alternating; medians, quartiles in brackets. {peer}."
    return f"{caption} {_machine(result)}\n\n{markdown_table(header, rows)}"


def _median_and_range(values: list[float]) -> str:
    median = f"{statistics.median(values):.3f}"
    return median if len(values) == 1 else f"{median} ({min(values):.3f} to {max(values):.3f})"
