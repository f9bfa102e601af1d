"""Builds and embeds the packaged catalog on a local Ray cluster of two nodes, and kills workers, a node and the driver.

    python benchmarks/robustness/ray_cluster.py --run runs/demo [--work FOLDER] [--out docs/results/ray-cluster.json]

Needs the extra [ray] and a run of `make demo`. Every row is a command in a separate process; chunks and shards are
smaller than the defaults, so that a small catalog has many. `equal` compares all bytes with those of a command without
Ray; `kept` are the files that were complete when something was killed and were not written again.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.extras import import_optional
from make_jax.files import PARTIAL, folder_digest, write_atomically
from make_jax.runs.provenance import metadata

SMALL = """
import sys
from make_jax.catalog import line_chunks, shards
line_chunks.CHUNK_BYTES, shards.SHARD_BYTES = 32 << 10, 256 << 10
"""
BUILD = f"""{SMALL}
from make_jax.catalog.__main__ import main
from make_jax.errors import exit_cleanly
exit_cleanly(lambda: main(["build", *sys.argv[1:]]))
"""
EMBED = f"""{SMALL}
from make_jax.cli.evaluate import main
from make_jax.errors import exit_cleanly
from make_jax.retrieval.embed_to_disk import embed_to_disk
embed_to_disk.__kwdefaults__["per_shard"] = 64
exit_cleanly(lambda: main(sys.argv[1:]))
"""
WORKERS = {"build": "ray::_run", "embed": "ray::MapWorker"}  # titles of processes; those of idle ones are others


def main() -> None:
    """Runs all rows and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--work", type=Path, help="(default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS / "ray-cluster.json")
    args = parser.parse_args()
    ray = import_optional("ray", "ray", "this benchmark")
    if not (args.run / "checkpoints").is_dir():
        raise InputError(f"--run {args.run}: no run there; train one with `make demo`")
    with tempfile.TemporaryDirectory() as temporary:
        rows = _rows((args.work or Path(temporary)).resolve(), args.run.resolve())
    about = metadata(Catalog.load(""), seed=0, ray=ray.__version__, cores=os.cpu_count())
    write_atomically(args.out, json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if not all(row["equal"] and row["exit_code"] == 0 and row["kept"] == row["complete"] for row in rows):
        raise InputError(f"{args.out}: a row differs from the command without Ray")


def _rows(work: Path, run: Path) -> list[dict[str, Any]]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1)]
    rows: list[dict[str, Any]] = []
    try:
        for what in ("build", "embed"):
            command = partial(_command, what, run)
            expected = work / f"{what}-local"
            rows.append(_timed(what, "without Ray", command(expected, ""), expected, expected))
            for event in ("none", "worker killed", "node lost", "driver killed"):
                folder = work / f"{what}-{event.replace(' ', '-')}"
                kill: Callable[[subprocess.Popen[str]], None] | None = {
                    "none": None,
                    "worker killed": lambda _, what=what: _kill_worker(what),
                    "node lost": lambda _: cluster.remove_node(nodes.pop(), allow_graceful=False),
                    "driver killed": lambda process: process.kill(),
                }[event]
                rows.append(_timed(what, event, command(folder, cluster.address), folder, expected, kill))
                print(json.dumps(rows[-1]), flush=True)
                if not nodes:
                    nodes.append(cluster.add_node(num_cpus=1))
    finally:
        cluster.shutdown()
    return rows


def _command(what: str, run: Path, folder: Path, address: str) -> list[str]:
    cluster = ["--ray", address] if address else []
    if what == "build":
        return [sys.executable, "-c", BUILD, "--cache", str(folder), *(cluster or ["--workers", "1"])]
    return [sys.executable, "-c", EMBED, str(run), "--embeddings", str(folder), "--only-embed", *cluster]


def _timed(
    what: str,
    event: str,
    command: list[str],
    folder: Path,
    expected: Path,
    kill: Callable[[subprocess.Popen[str]], None] | None = None,
) -> dict[str, Any]:
    """Runs a command, kills something when three files are complete and a worker is busy, and compares the folders."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    before: dict[str, tuple[int, int]] = {}
    if kill is not None:
        while process.poll() is None and (len(before := _complete(folder)) < 3 or not _busy(what)):
            time.sleep(0.002)
        if process.poll() is not None:
            raise InputError(f"{what}: ended before anything was killed: {process.communicate()[1]}")
        kill(process)
    errors = process.communicate()[1]
    killed = process.returncode == -signal.SIGKILL
    if killed:  # the same command goes on
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        errors = process.communicate()[1]
    seconds = time.monotonic() - start
    after = _complete(folder)
    if process.returncode:
        print(errors, file=sys.stderr)
    return {
        "command": what,
        "event": event,
        "exit_code": process.returncode,
        "seconds": round(seconds, 1),
        "files": len(after),
        "complete": len(before),
        "kept": sum(after.get(name) == identity for name, identity in before.items()),
        "equal": _digests(folder) == _digests(expected),
    }


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each visible folder in `folder`."""
    return {path.name: folder_digest(path) for path in folder.iterdir() if path.is_dir()} if folder.exists() else {}


def _complete(folder: Path) -> dict[str, tuple[int, int]]:
    """The complete chunks and shards below a folder by name, each with inode and time of writing."""
    found = {}
    for path, name in _walk(folder):
        if name.endswith((".arrow", ".parquet")) or ".array_record-" in name:
            try:
                status = path.stat()
            except FileNotFoundError:  # its folder was renamed: complete
                continue
            found[f"{path.parent.name}/{name}"] = status.st_ino, status.st_mtime_ns
    return found


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    for parent, _, names in os.walk(folder):
        yield from ((Path(parent) / name, name) for name in names if not name.startswith(PARTIAL))


def _busy(what: str) -> list[psutil.Process]:
    """The processes of Ray that run a task now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if title.startswith(WORKERS[what]) and process.uids().real == os.getuid():
            found.append(process)
    return found


def _kill_worker(what: str) -> None:
    _busy(what)[0].kill()


if __name__ == "__main__":
    exit_cleanly(main)
