"""The ablation study and the batch size study: trains all rows on one catalog, with the same number of examples.

    python benchmarks/study/ablations.py run --catalog PATH [--study parts|batch] [--rows full no-ke ...] [--jobs 2]
    python benchmarks/study/ablations.py table --catalog PATH [--study parts|batch]

Two CPU cores: 3 hours of training for `parts`, 1.5 hours for `batch`. `run` trains every row of `rows.py` (or
`batch_rows.py`) with each of its seeds and measures it; finished rows are skipped and interrupted ones resumed. Each
writes docs/results/ablations/CATALOG/ROW-SEED.json (or docs/results/batch-sizes/...); `table` generates CATALOG.md from
these files and prints it.
"""

import argparse
import dataclasses
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.study.batch_rows import BATCH_ROWS
from benchmarks.study.batch_table import write_batch_table
from benchmarks.study.rows import ROWS, Row
from benchmarks.study.table import write_table
from make_jax.config import Config, check
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically

RECIPE = ROOT / "configs" / "study.py"


@dataclasses.dataclass(frozen=True)
class Study:
    """Rows, the folder of their results, and the function that generates their table."""

    rows: tuple[Row, ...]
    results: str
    table: Callable[[Path], None]

    def folder(self, catalog: str) -> Path:
        """Returns the folder with the results of a catalog."""
        return RESULTS / self.results / Path(catalog).stem


STUDIES = {
    "parts": Study(ROWS, "ablations", write_table),
    "batch": Study(BATCH_ROWS, "batch-sizes", write_batch_table),
}


def config_of(row: Row, seed: int, catalog: str, runs: Path) -> Config:
    """Returns the settings of one run. Raises InputError for an unknown setting."""
    config: Config = runpy.run_path(str(RECIPE))["config"]
    changes = {"run": str(runs / f"{row.name}-{seed}"), "data.catalog": catalog, "train.seed": seed}
    for path, value in (row.changes | changes).items():
        config = _changed(config, path.split("."), value)
    check(config)
    return config


def _changed(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    if not hasattr(config, name):
        raise InputError(f"rows.py: no setting {name!r} in {type(config).__name__}")
    inner = _changed(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(config, **{name: inner})


def run_all(study: str, catalog: str, names: list[str], jobs: int, runs: Path, keep: bool) -> None:
    """Runs missing rows, `jobs` at a time, each on its share of the cores."""
    folder = STUDIES[study].folder(catalog)
    requested = [(row, seed) for row in STUDIES[study].rows for seed in row.seeds if not names or row.name in names]
    missing = [(row, seed) for row, seed in requested if not (folder / f"{row.name}-{seed}.json").exists()]
    missing.sort(key=lambda pair: (pair[1], len(pair[0].seeds) == 1))  # claims first, seed by seed
    print(f"{len(requested) - len(missing)} of {len(requested)} runs are done")
    for row, seed in missing:
        config_of(row, seed, catalog, runs)  # find invalid rows before training
    shares: SimpleQueue[list[int]] = SimpleQueue()
    cores = sorted(os.sched_getaffinity(0))
    for job in range(jobs):
        shares.put(cores[job::jobs])

    def work(pair: tuple[Row, int]) -> str | None:
        row, seed = pair
        share = shares.get()
        try:
            return _run_process(study, row, seed, catalog, runs, keep, share)
        finally:
            shares.put(share)

    with ThreadPoolExecutor(jobs) as pool:
        failed = [message for message in pool.map(work, missing) if message]
    if failed:
        raise InputError("; ".join(failed))


def _run_process(study: str, row: Row, seed: int, catalog: str, runs: Path, keep: bool, cores: list[int]) -> str | None:
    """Trains and measures one run on the given cores; returns an error message or None."""
    command = [sys.executable, __file__, "one", row.name, str(seed)]
    command += ["--study", study, "--catalog", catalog, "--runs", str(runs)]
    log = runs / f"{row.name}-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if len(cores) == 1:  # more threads than cores would only switch
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        os.sched_setaffinity(process.pid, cores)
        code = process.wait()
    print(f"{row.name}-{seed}: {'done' if code == 0 else f'exit code {code}, see {log}'}", flush=True)
    if code == 0 and not keep:
        shutil.rmtree(runs / f"{row.name}-{seed}")
    return None if code == 0 else f"{row.name}-{seed} ended with exit code {code}, see {log}"


def run_one(study: str, catalog: str, row: Row, seed: int, runs: Path) -> None:
    """Trains or resumes one run, measures it and writes its result."""
    from benchmarks.study.measures import measure
    from make_jax.training.loop import train

    folder = train(config_of(row, seed, catalog, runs))
    result: Mapping[str, Any] = {"row": row.name, "changes": row.changes, "seed": seed} | measure(folder, catalog, seed)
    target = STUDIES[study].folder(catalog) / f"{row.name}-{seed}.json"
    write_atomically(target, json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n")


def main() -> None:
    """Runs the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "one", "table"])
    parser.add_argument("row", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("seed", nargs="?", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--study", choices=list(STUDIES), default="parts")
    parser.add_argument("--catalog", required=True, help="a catalog folder or .zip")
    parser.add_argument("--rows", nargs="*", default=[], help="only these rows")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its share of the cores")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="folder for the runs themselves")
    parser.add_argument("--keep", action="store_true", help="keep each run's folder after it was measured")
    args = parser.parse_args()
    study = STUDIES[args.study]
    rows = {row.name: row for row in study.rows}
    unknown = [name for name in [*args.rows, *([args.row] if args.row else [])] if name not in rows]
    if unknown:
        raise InputError(f"no row {unknown[0]!r}; rows are {', '.join(rows)}")
    if args.command == "run":
        run_all(args.study, args.catalog, args.rows, args.jobs, args.runs, args.keep)
    elif args.command == "one":
        run_one(args.study, args.catalog, rows[args.row], args.seed, args.runs)
    if args.command != "one":
        study.table(study.folder(args.catalog))


if __name__ == "__main__":
    exit_cleanly(main)
