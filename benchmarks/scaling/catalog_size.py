"""Time and peak memory of check, build, start of training and validation as a catalog grows.

    python benchmarks/scaling/catalog_size.py [--products 100000 1000000] [--steps STEP ...] [--work FOLDER]
                                              [--out docs/results/catalog-size.json]

Catalogs of random titles over 20,000 words, 2 % of the products with a picture of 64 x 48, four clicks a training
product, 1 % of the products in each of val and test, 1,000 judged queries. Each step is a process of its own; its
peak memory is that of the kernel (`ru_maxrss`), of the process and apart of its largest child. A restart repeats only
the steps whose result is missing in FOLDER.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import folder_atomically, write_atomically
from make_jax.runs.provenance import metadata

STEP_NAMES = ("check", "build_1", "build_2", "first_start", "next_start")
WORDS = 20_000
COLOURS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey")
TITLE_WORDS = 7
CLICKS = 4  # of a training product
JUDGED = 1_000
STEPS = 3  # of training, after which a run ends
_AT_ONCE = 50_000  # products drawn together

# Prints the time from the start of the process to the end of the first step, and the memory that is not of files.
TRAIN = """
import json, os, sys, time
from pathlib import Path
start = float(sys.argv[1])
from make_jax.training import loop
from make_jax.training.step_metrics import StepMetrics
first = StepMetrics.add
def add(self, *arguments):
    first(self, *arguments)
    if not hasattr(add, "done"):
        add.done = True
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        anonymous = int(status["RssAnon"].split()[0]) * 1024
        print("FIRST " + json.dumps({"seconds": time.time() - start, "anonymous_bytes": anonymous}))
StepMetrics.add = add
sys.argv[1:] = sys.argv[2:]
from make_jax.cli.train import main
main(sys.argv[1:])
"""


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path("catalog-size"))
    parser.add_argument("--steps", nargs="+", choices=STEP_NAMES, default=STEP_NAMES, metavar="STEP")
    parser.add_argument("--out", type=Path, default=RESULTS / "catalog-size.json")
    args = parser.parse_args()
    rows = [_measure(count, args.work.resolve(), args.steps) for count in args.products]
    result = {"about": metadata(Catalog.load(""), seed=0, cores=os.cpu_count()), "rows": rows}
    write_atomically(args.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def _measure(count: int, work: Path, steps: Sequence[str]) -> dict[str, Any]:
    """The requested steps for one catalog, and those whose results exist."""
    folder = work / f"products-{count}"
    if not folder.exists():
        with folder_atomically(folder) as partial:
            _write_catalog(partial, count)
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    row: dict[str, Any] = {"products": count, "jsonl_bytes": size}
    cache, program = work / f"cache-{count}", [sys.executable, "-m", "make_jax.catalog"]
    for name, command in (
        ("check", [*program, "check", str(folder)]),
        ("build_1", [*program, "build", str(folder), "--cache", str(work / f"single-{count}"), "--workers", "1"]),
        ("build_2", [*program, "build", str(folder), "--cache", str(cache), "--workers", "2"]),
        ("first_start", _train(work / f"run-{count}", folder, cache)),
        ("next_start", _train(work / f"run-{count}", folder, cache)),
    ):
        if name not in steps and not (work / f"{name}-{count}.json").exists():
            continue
        row[name] = _step(work / f"{name}-{count}.json", command)
        print(count, name, row[name], flush=True)
        shutil.rmtree(work / f"single-{count}", ignore_errors=True)
        shutil.rmtree(work / f"run-{count}", ignore_errors=True)
    return row


def _train(run: Path, folder: Path, cache: Path) -> list[str]:
    settings = {
        "run": run,
        "data.catalog": folder,
        "data.cache": cache,
        "train.steps": STEPS,
        "train.batch-size": 64,
        "train.eval-every": 0,
        "inputs.max-keywords": 256,
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-c", TRAIN, str(time.time()), "--config", "demo", *options]


def _step(result: Path, command: list[str]) -> dict[str, Any]:
    """Runs a command, unless its result exists."""
    if result.exists():
        measured: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return measured
    start = time.time()
    if "-c" in command:
        command[command.index(TRAIN) + 1] = str(start)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise InputError(f"{' '.join(command[:4])} ended with status {status}; its output: {output[-500:]}")
    measured = {
        "seconds": round(time.time() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),  # of the process and its children
        "peak_mib": round(usage.ru_maxrss / 1024),
        "load": round(os.getloadavg()[0], 1),  # of the machine, this process included, at the end
    }
    for line in output.splitlines():
        if line.startswith("FIRST "):
            first = json.loads(line.removeprefix("FIRST "))
            measured["first_step_seconds"] = round(first["seconds"], 1)
            measured["anonymous_mib"] = round(first["anonymous_bytes"] / 2**20)
    write_atomically(result, json.dumps(measured))
    return measured


def _write_catalog(folder: Path, count: int) -> None:
    """Writes the catalog; the same for the same count."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(3, 10)).tolist()) for _ in range(WORDS)]
    shares = (1 / (1 + np.arange(WORDS))).cumsum()
    (folder / "images").mkdir()
    pictures = [_picture(number) for number in range(100)]
    judged: list[tuple[int, str]] = []
    with (folder / "products.jsonl").open("w") as products, (folder / "clicks.jsonl").open("w") as clicks:
        for first in range(0, count, _AT_ONCE):
            size = min(_AT_ONCE, count - first)
            titles = np.searchsorted(shares, rng.random((size, TITLE_WORDS)) * shares[-1]).tolist()
            clicked = rng.random((size, CLICKS, TITLE_WORDS)).argsort(axis=2)[:, :, :2].tolist()
            for i, numbers, queries in zip(range(first, first + size), titles, clicked, strict=True):
                title = [words[number] for number in numbers]
                split = "val" if i % 100 == 98 else "test" if i % 100 == 99 else "train"
                image = ""
                if i % 50 == 0:
                    image = f', "image": "images/p{i}.jpg"'
                    (folder / f"images/p{i}.jpg").write_bytes(pictures[i // 50 % len(pictures)])
                products.write(
                    f'{{"id": "p{i}", "title": "{" ".join(title)}", "split": "{split}", '
                    f'"colour": "{COLOURS[i % len(COLOURS)]}", "price": {i % 97}{image}}}\n'
                )
                if split == "train":
                    clicks.writelines(
                        f'{{"query": "{title[one]} {title[other]}", "product": "p{i}"}}\n' for one, other in queries
                    )
                elif split == "val" and len(judged) < JUDGED:
                    judged.append((i, " ".join(title[:3])))
    with (folder / "queries.jsonl").open("w") as file:
        for i, text in judged:
            file.write(json.dumps({"qid": f"q{i}", "text": text, "split": "val", "rel": {f"p{i}": 3}}) + "\n")
    info = {"name": f"products-{count}", "attributes": ["colour", "price"]}
    (folder / "catalog.json").write_text(json.dumps(info))


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (64, 48, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


if __name__ == "__main__":
    exit_cleanly(main)
