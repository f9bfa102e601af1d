"""The table of the batch size study: test metrics of each batch size with the learning rate tuned on validation."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.batch_rows import BATCH_ROWS, EXAMPLES
from benchmarks.study.measures import METRIC, SLICES
from benchmarks.study.table import interval
from make_jax.files import write_atomically


def write_batch_table(folder: Path) -> None:
    """Writes FOLDER.md next to the folder of results and prints it; rows without a result are left out."""
    runs: dict[int, list[dict[str, Any]]] = {}
    for row in BATCH_ROWS:
        for seed in row.seeds:
            file = folder / f"{row.name}-{seed}.json"
            if file.exists():
                runs.setdefault(row.changes["train.batch_size"], []).append(json.loads(file.read_text("utf-8")))
    if not runs:
        print("no table: no run has a result")
        return
    lines = [["batch", "steps", "learning rate", "of", *SLICES, "minutes"], ["---:"] * (len(SLICES) + 5)]
    for batch, found in runs.items():
        best = max(found, key=lambda run: float(np.mean(run["val"]["values"])))
        rates = ", ".join(f"{run['changes']['optim.learning_rate']:g}" for run in found)
        cells = [str(best["about"]["run"]["steps"]), f"{best['changes']['optim.learning_rate']:g}", rates]
        for name in SLICES.values():
            values = np.array(best["test"]["values"])[best["test"]["members"][name]][None]
            cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*interval(values)))
        lines.append([f"{batch:,}", *cells, f"{best['about']['run']['training_seconds'] / 60:.1f}"])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = (
        f"# Batch sizes on {folder.name}\n\n{METRIC} on test after {EXAMPLES:,} examples of the recipe "
        "configs/study.py, one seed. Of the learning rates in the fourth column the one was taken that is best on all "
        f"queries of validation.\n\n{table}\n"
    )
    write_atomically(folder.with_suffix(".md"), text)
    print(text)
