"""Kills `search.py index` and `search.py update` at many instants and compares what readers see.

    python benchmarks/robustness/search_index.py --run runs/demo [--kills 20] [--out FILE.json]

Needs a run of `make demo`. Indexes products of the packaged catalog, then each time a copy of that index gets a new
version, or an update of a tenth of the products, in a process that SIGKILL ends at another instant after its first
write. `left` is the state that readers see then, `before` or `after` the command: every product, vector, weight and
picture to the byte, and the results of searches. `continued` is whether the same command then ends with the state
`after`.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog, packaged_path
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata
from make_jax.serving.engines import EngineQuery
from make_jax.serving.index.check import check_index
from make_jax.serving.index.reader import OpenIndex, open_index
from make_jax.serving.opened import open_engine

_POLL_SECONDS = 0.005
_PRODUCTS = 600
_LAST_ID = "deleted-by-the-update"
_TEXTS = ("red apple", "car", "苹果", "")


def main() -> None:
    """Runs all rows and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--out", type=Path, default=RESULTS / "search-index-kills.json")
    args = parser.parse_args()
    if not (args.run / "checkpoints").is_dir():
        raise InputError(f"--run {args.run}: no run there; train one with `make demo`")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        base = work / "base"
        catalog, changed = _catalogs(work)
        if _search("index", args.run, catalog, base).wait():
            raise InputError("search.py index failed")
        commands = {
            "index": ["index", args.run, changed, work / "copy"],
            "update": ["update", work / "copy", changed, "--delete", _LAST_ID],
        }
        rows = [row for name in commands for row in _rows(name, commands[name], base, work / "copy", args.kills)]
    about = metadata(Catalog.load(""), seed=0, cores=os.cpu_count())
    write_atomically(args.out, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if not all(row["left"] in ("before", "after") and row["continued"] for row in rows):
        raise InputError(f"{args.out}: a row is neither the state before nor that after the command")


def _rows(name: str, command: list[Any], base: Path, copy: Path, kills: int) -> list[dict[str, Any]]:
    """Runs a command undisturbed, and killed at evenly spaced instants after its first write."""
    shutil.copytree(base, copy)
    before, process = _state(copy), _search(*command)
    started = _first_write(copy, process)
    if process.wait():
        raise InputError(f"search.py {name} failed")
    seconds, after = time.monotonic() - started, _state(copy)
    assert before != after
    rows: list[dict[str, Any]] = []
    while len(rows) < kills:
        shutil.rmtree(copy)
        shutil.copytree(base, copy)
        process = _search(*command)
        started = _first_write(copy, process)
        instant = seconds * (len(rows) + 0.5) / kills
        try:
            process.wait(max(0.0, started + instant - time.monotonic()))
            seconds = time.monotonic() - started  # the machine is less busy than before
            continue
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        left = _state(copy)
        files = [path.name for folder in copy.rglob("building-*") for path in folder.rglob("*") if path.is_file()]
        if _search(*command).wait():
            raise InputError(f"search.py {name} failed after it had been killed")
        row = {
            "command": name,
            "seconds after the first write": round(instant, 2),
            "of": round(seconds, 2),
            "incomplete_files": len(files),
            "left": {before: "before", after: "after"}.get(left, left),
            "continued": _state(copy) == after,
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    shutil.rmtree(copy)
    return rows


def _search(*words: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(ROOT / "search.py"), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)


def _first_write(index: Path, process: "subprocess.Popen[bytes]") -> float:
    """Waits until a command has begun to write, and returns the time."""
    while process.poll() is None and not any(index.rglob("building-*")):
        time.sleep(_POLL_SECONDS)
    return time.monotonic()


def _state(path: Path) -> str:
    """A digest of all that readers see, or what is damaged."""
    try:
        index, problems = open_index(path), check_index(path).problems
    except InputError as error:
        return str(error)
    if problems:
        return problems[0]
    sha = hashlib.sha256(f"{index.version} {len(index.updates)} {index.manifest.count}".encode())
    for row, product in enumerate(index.products):
        sha.update(repr(product).encode() + (index.thumbnail(row) or b""))
    for array in (index.vectors, index.weights, index.deleted):
        sha.update(array.tobytes())
    sha.update(repr(_results(index)).encode())
    return sha.hexdigest()


def _results(index: OpenIndex) -> list[list[tuple[str, float]]]:
    """Ids and scores of searches by texts and by vectors of products."""
    engine = open_engine(index, "flat")
    vectors = [index.vectors[row] for row in range(0, index.rows, 100) if not index.deleted[row]]
    queries = [EngineQuery(vector, text, 0.5, limit=50) for vector in vectors[:20] for text in _TEXTS]
    found = engine.search(queries)
    engine.close()
    return [
        [
            (index.products[row].id, score)
            for row, score in zip(result.rows.tolist(), result.scores.tolist(), strict=True)
        ]
        for result in found
    ]


def _catalogs(folder: Path) -> tuple[Path, Path]:
    """The first products of the packaged catalog; and the same with other titles, without the last one."""
    with zipfile.ZipFile(packaged_path()) as archive:
        archive.extractall(folder / "packaged")
    (path,) = (folder / "packaged").rglob("products.jsonl")
    products = [json.loads(line) for line in path.read_text("utf-8").splitlines()][:_PRODUCTS]
    products[-1]["id"] = _LAST_ID
    for name in ("queries.jsonl", "clicks.jsonl"):
        (path.parent / name).write_text("")
    _write(path, products)
    changed = shutil.copytree(path.parent, folder / "changed")
    for product in products[::10]:
        product["title"] = f"{product.get('title') or ''} again".strip()
    _write(changed / path.name, products[:-1])
    return path.parent, changed


def _write(path: Path, products: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(product) + "\n" for product in products), "utf-8")


if __name__ == "__main__":
    exit_cleanly(main)
