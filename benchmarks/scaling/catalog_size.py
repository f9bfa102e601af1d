"""Time and memory of check, build, start of training and validation as a catalog grows.

    python benchmarks/scaling/catalog_size.py [--products 100000 1000000 10000000] [--workers-products 1000000]
                                              [--work FOLDER] [--out docs/results/catalog-size.json]

Catalogs of random titles over 20,000 words, 2 % of the products with a picture of 64 x 48, four clicks a training
product, 1 % of the products in each of val and test, 1,000 judged queries. 10 million products take 4 GB before they
are built. Each step is a process of its own. A restart repeats only the steps whose result is missing in FOLDER, and an
interrupted build goes on, so delete FOLDER/cache-N to measure it anew. Builds in one and in two processes alternate, on
a catalog of `--workers-products`.

Steps: `check`; `build` in two processes; `first_start` of configs/demo.py on the built catalog, which mines keywords,
trains the tokenizer and tokenizes and tags all texts; `next_start` of another run with the same settings, which finds
them. A training ends after three steps and a validation: the products of the split val are embedded and searched.

Memory: of processes and children together, the largest of samples of RssAnon, memory that is not of mapped files.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from benchmarks.scaling.measured_training import MARK, anonymous_bytes
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import folder_atomically, write_atomically
from make_jax.runs.provenance import metadata
from scripts.results.benchmark_tables import CATALOG_SIZE_BYTES, CATALOG_SIZE_SECONDS

WORDS = 20_000
COLORS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey")
TITLE_WORDS = 7
CLICKS = 4  # of a training product
JUDGED = 1_000
STEPS = 3  # of training, after which a run ends
ROUNDS = 3  # of builds in one and in two processes
STARTS = ("first_start", "next_start")
_AT_ONCE = 50_000  # products drawn together
_SECONDS_PER_SAMPLE = 0.2


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--workers-products", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path("catalog-size"))
    parser.add_argument("--out", type=Path, default=RESULTS / "catalog-size.json")
    parser.add_argument("--stored", action="store_true", help="write the results that FOLDER has, and measure nothing")
    args = parser.parse_args()
    work = args.work.resolve()
    if not args.stored:
        for count in args.products:
            _measure(count, work)
        _measure_workers(args.workers_products, work)
    rows = [row for count in args.products if len(row := _row(count, work)) > 1]
    result = {
        "about": metadata(Catalog.load(""), seed=0, cores=os.cpu_count()),
        "rows": rows,
        "bytes_a_product": {name: _bytes_a_product(rows, name) for name in STARTS},
        "workers": _workers(args.workers_products, work),
    }
    write_atomically(args.out, json.dumps(result, indent=1) + "\n")
    draw(result, args.out.parent.parent / f"{args.out.stem}.png")
    print(json.dumps(result, indent=1))


def _measure(count: int, work: Path) -> None:
    """All steps for one catalog, those without a result."""
    folder, cache = _catalog(count, work), work / f"cache-{count}"
    _step(work / f"check-{count}.json", _program("check", str(folder)))
    _step(work / f"build-{count}.json", _build(folder, cache, 2))
    for name in STARTS:
        run = work / f"run-{count}"
        _step(work / f"{name}-{count}.json", _train(run, folder, cache))
        shutil.rmtree(run, ignore_errors=True)


def _measure_workers(count: int, work: Path) -> None:
    """Builds of one catalog in one and in two processes, alternating."""
    folder = _catalog(count, work)
    for number in range(ROUNDS):
        for workers in (1, 2):
            cache = work / f"cache-{count}-{workers}-workers"
            _step(work / f"workers-{count}-{workers}-{number}.json", _build(folder, cache, workers))
            shutil.rmtree(cache, ignore_errors=True)


def _row(count: int, work: Path) -> dict[str, Any]:
    """The results of one catalog."""
    paths = {name: work / f"{name}-{count}.json" for name in ("check", "build", *STARTS)}
    return {"products": count} | {name: _stored(path) for name, path in paths.items() if path.exists()}


def _workers(count: int, work: Path) -> dict[str, Any]:
    """Seconds of builds in one and in two processes, and their ratio."""
    steps = {n: [_stored(path) for path in sorted(work.glob(f"workers-{count}-{n}-*.json"))] for n in (1, 2)}
    if not all(steps.values()):
        return {}
    seconds = {workers: [step["seconds"] for step in some] for workers, some in steps.items()}
    cpu_seconds = {workers: [step["cpu_seconds"] for step in some] for workers, some in steps.items()}
    loads = [step["load"] for some in steps.values() for step in some]
    ratio = statistics.median(seconds[1]) / statistics.median(seconds[2])
    return {
        "products": count,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "ratio_of_medians": round(ratio, 2),
        "largest_load": max(loads),
    }


def _stored(path: Path) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return measured


def _bytes_a_product(rows: list[dict[str, Any]], start: str) -> dict[str, float]:
    """Growth of a training process's memory from the smallest to the largest catalog, in bytes a product."""
    trained = [row for row in rows if start in row]
    if len(trained) < 2:
        return {}
    small, large = trained[0], trained[-1]
    names = ("first_step_anonymous_bytes", "validation_anonymous_bytes")
    products = large["products"] - small["products"]
    return {name: round((large[start][name] - small[start][name]) / products, 1) for name in names}


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "make_jax.catalog", *arguments]


def _build(folder: Path, cache: Path, workers: int) -> list[str]:
    return _program("build", str(folder), "--cache", str(cache), "--workers", str(workers))


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
    program = str(ROOT / "benchmarks/scaling/measured_training.py")
    return [sys.executable, program, str(time.time()), "--config", "demo", *options]


def _step(result: Path, command: list[str]) -> None:
    """Runs a command, unless its result exists."""
    if result.exists():
        return
    start = time.time()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    peak = [0]
    sampler = threading.Thread(target=_sample, args=(process.pid, peak))
    sampler.start()
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.time() - start
    sampler.join()
    if status:
        raise InputError(f"{' '.join(command[:4])} ended with status {status}; its output: {output[-500:]}")
    measured = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),  # of the process and its children
        "peak_anonymous_bytes": peak[0],
        "load": round(os.getloadavg()[0], 1),  # of the machine, this process included, at the end
    }
    for line in output.splitlines():
        if line.startswith(MARK):
            found = json.loads(line.removeprefix(MARK))
            measured |= {name: round(value, 1) for name, value in found.items()}
    write_atomically(result, json.dumps(measured))
    print(result.stem, measured, flush=True)


def _sample(process: int, peak: list[int]) -> None:
    """Raises `peak` to the memory of a process and its children until it ends."""
    try:
        parent = psutil.Process(process)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            family = [process, *(child.pid for child in parent.children(recursive=True))]
            peak[0] = max(peak[0], sum(map(anonymous_bytes, family)))
            time.sleep(_SECONDS_PER_SAMPLE)
    except psutil.NoSuchProcess:
        return


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws time and memory of the steps by the number of products."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["rows"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, step, what in CATALOG_SIZE_SECONDS:
        measured = {row["products"]: row[step][what] for row in rows if step in row}
        left.plot(*zip(*measured.items(), strict=True), "o-", label=name)
    for name, step, what in CATALOG_SIZE_BYTES:
        measured = {row["products"]: row[step][what] / 2**20 for row in rows if step in row}
        right.plot(*zip(*measured.items(), strict=True), "o-", label=name)
    for axes, label in ((left, "seconds"), (right, "MiB that are not of mapped files")):
        axes.set(xscale="log", yscale="log", xlabel="products", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    plt.close(figure)
    write_atomically(path, image.getvalue())


def _catalog(count: int, work: Path) -> Path:
    """The folder of a catalog, which is written if it is missing."""
    folder = work / f"products-{count}"
    if not folder.exists():
        with folder_atomically(folder) as partial:
            _write_catalog(partial, count)
    return folder


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
                    f'"colour": "{COLORS[i % len(COLORS)]}", "price": {i % 97}{image}}}\n'
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
