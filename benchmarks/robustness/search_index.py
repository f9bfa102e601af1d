"""Kills `search.py index` and `search.py update` at many instants and compares what readers see.

    python benchmarks/robustness/search_index.py --run runs/demo [--kills 20] [--out FILE.json]

Needs a run of `make demo`. Indexes the packaged catalog, then each time a copy of that index gets a new version, or an
update of a tenth of the products, in a process that SIGKILL ends at another instant. `left` is the state that readers
see then, `before` or `after` the command, to the byte of every product, vector and picture; `continued` is whether the
same command then ends with the state `after`.
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
from make_jax.serving.index.check import check_index
from make_jax.serving.index.reader import open_index


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
        base, changed = work / "base", _changed_catalog(work / "changed")
        _search("index", args.run, "", base).wait()
        commands = {
            "index": ["index", args.run, changed, work / "copy"],
            "update": ["update", work / "copy", changed, "--delete", _last_id()],
        }
        rows = [row for name in commands for row in _rows(name, commands[name], base, work / "copy", args.kills)]
    about = metadata(Catalog.load(""), seed=0, cores=os.cpu_count())
    write_atomically(args.out, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if not all(row["left"] in ("before", "after") and row["continued"] for row in rows):
        raise InputError(f"{args.out}: a row is neither the state before nor that after the command")


def _rows(name: str, command: list[Any], base: Path, copy: Path, kills: int) -> list[dict[str, Any]]:
    """Runs a command undisturbed, and killed at evenly spaced instants."""
    shutil.copytree(base, copy)
    before, start = _state(copy), time.monotonic()
    if _search(*command).wait():
        raise InputError(f"search.py {name} failed")
    seconds, after = time.monotonic() - start, _state(copy)
    rows: list[dict[str, Any]] = []
    while len(rows) < kills:
        shutil.rmtree(copy)
        shutil.copytree(base, copy)
        start, process = time.monotonic(), _search(*command)
        try:
            process.wait(instant := seconds * (len(rows) + 0.5) / kills)
            seconds = time.monotonic() - start  # the machine is less busy than before
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
            "second": round(instant, 2),
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
    return sha.hexdigest()


def _changed_catalog(folder: Path) -> Path:
    """The packaged catalog with another title for each tenth product, and without the last product."""
    with zipfile.ZipFile(packaged_path()) as archive:
        archive.extractall(folder)
    (path,) = folder.rglob("products.jsonl")
    products = [json.loads(line) for line in path.read_text("utf-8").splitlines()][:-1]
    for product in products[::10]:
        product["title"] = f"{product.get('title') or ''} again".strip()
    path.write_text("".join(json.dumps(product) + "\n" for product in products), "utf-8")
    for name in ("queries.jsonl", "clicks.jsonl"):
        (path.parent / name).write_text("")
    return path.parent


def _last_id() -> str:
    products = Catalog.load("").products
    return products[len(products) - 1].id


if __name__ == "__main__":
    exit_cleanly(main)
