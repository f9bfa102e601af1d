"""The study's table, generated from its JSON files: means, intervals, and paired differences to the full model."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.claims import CLAIMS, verdict
from benchmarks.study.measures import METRIC, SLICES
from benchmarks.study.rows import ROWS, Row
from make_jax.files import write_atomically

FULL = "full"
RESAMPLES = 2000
Runs = dict[int, dict[str, Any]]  # by seed


def write_table(folder: Path) -> None:
    """Writes FOLDER.md next to the folder of results and prints it; rows without a result are left out."""
    results: dict[str, Runs] = {}
    for row in ROWS:
        runs = {seed: folder / f"{row.name}-{seed}.json" for seed in row.seeds}
        found = {seed: json.loads(file.read_text("utf-8")) for seed, file in runs.items() if file.exists()}
        if found:
            results[row.name] = found
    if FULL not in results:
        print("no table: the full model has no result")
        return
    parts = [f"# The study on {folder.name}\n", _about(results)]
    for split in ("test", "val"):
        parts += [f"## {METRIC}, {split}\n", _table(results, split)]
    parts += [f"## Claims, {METRIC} on test\n", _claims(results)]
    text = "\n".join(parts)
    write_atomically(folder.with_suffix(".md"), text)
    print(text)


def _about(results: dict[str, Runs]) -> str:
    """Returns the explanation of the numbers."""
    first = next(iter(results[FULL].values()))["about"]
    return (
        f"{first['run']['steps']} steps of every row, {first['device']}, catalog {first['catalog']['name']}. "
        "The source of the queries is in every JSON file, as `queries_from`.\n\n"
        "A row of several seeds has their mean; its interval (95 %) is over resampled queries and resampled seeds. The "
        "difference is to the full model, paired by query and by seed. A row of one seed is compared with the full "
        "model of the same seed, over resampled queries alone: read differences below the spread of seeds as none.\n"
    )


def _table(results: dict[str, Runs], split: str) -> str:
    full = results[FULL]
    counts = [len(next(iter(full.values()))[split]["members"][name]) for name in SLICES.values()]
    heads = [f"{shown} ({count:,})" for shown, count in zip(SLICES, counts, strict=True)]
    lines = [["model", "seeds", *(cell for head in heads for cell in (head, "minus full")), "minutes"]]
    lines.append(["---"] + ["---:"] * (len(lines[0]) - 1))
    for row in ROWS:
        if row.name in results:
            lines.append(_line(row, results[row.name], full, split))
    spread = [_spread(full, split, name) for name in SLICES.values()]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nStandard deviation of the full model over its seeds: {', '.join(spread)}.\n"


def _claims(results: dict[str, Runs]) -> str:
    """Returns the claims with their paired difference and verdict on each slice."""
    lines = [["claim", "seeds", *SLICES], ["---"] + ["---:"] * (len(SLICES) + 1)]
    for claim in CLAIMS:
        better, worse = results.get(claim.better, {}), results.get(claim.worse, {})
        shared = sorted(set(better) & set(worse))
        if shared:
            cells = []
            for name in SLICES.values():
                mean, low, high = interval(_difference(better, worse, shared, "test", name))
                cells.append(f"{verdict(low, high, claim)}: {_signed(mean, low, high)}")
            lines.append([claim.text, str(len(shared)), *cells])
    note = "Held: the interval is above 0; failed: below 0; undecided: it contains 0."
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _line(row: Row, runs: Runs, full: Runs, split: str) -> list[str]:
    cells = [row.label, str(len(runs))]
    for name in SLICES.values():
        values = _values(runs, split, name)
        cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*interval(values)))
        shared = sorted(set(runs) & set(full))
        if row.name == FULL or not shared:
            cells.append("")
        else:
            cells.append(_signed(*interval(_difference(runs, full, shared, split, name))))
    minutes = [run["about"]["run"]["training_seconds"] / 60 for run in runs.values()]
    return [*cells, f"{np.median(minutes):.1f}"]


def _values(runs: Runs, split: str, name: str) -> np.ndarray:
    """Returns the values [seeds, queries] of one slice."""
    return np.array([np.array(run[split]["values"])[run[split]["members"][name]] for run in runs.values()])


def _difference(a: Runs, b: Runs, seeds: list[int], split: str, name: str) -> np.ndarray:
    """Returns differences [seeds, queries], paired by both."""
    return _values({seed: a[seed] for seed in seeds}, split, name) - _values(
        {seed: b[seed] for seed in seeds}, split, name
    )


def _signed(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Returns mean and 95 % percentile bootstrap interval of values [seeds, queries], resampling both."""
    rng = np.random.default_rng(0)
    seeds, queries = values.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        resampled = values[rng.integers(seeds, size=seeds)].mean(axis=0)
        means[i] = resampled[rng.integers(queries, size=queries)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _spread(full: Runs, split: str, name: str) -> str:
    means = _values(full, split, name).mean(axis=1)
    return f"{means.std(ddof=1):.4f}" if len(means) > 1 else "one seed"
