"""Time and memory of open_clip's ClipLoss and of ours, the same loss in real processes that alternate.

    python benchmarks/loss/peers.py --torch-python PYTHON --loss-py LOSS_PY [--out docs/results/loss-peers.json]

Two CPU cores, a few minutes. PYTHON is a Python with torch (`pip install torch==2.13.0`), LOSS_PY is
`open_clip/loss.py` from `pip download open_clip_torch --no-deps`; torch and jax are never in one process. Softmax over
the global batch, both directions, no masks, no margin, f32 vectors of 512 dimensions. Processes communicate with Gloo
on both sides and share the cores. All processes are started, then runs alternate; time is from the request until the
last process has answered. Memory is the peak resident memory of each process in its first run above its start;
`planned` is the compiler's plan of temporary buffers (ours) or the tensors saved for the backward pass (torch).
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from benchmarks import RESULTS, ROOT
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError, exit_cleanly
from make_jax.files import write_atomically
from make_jax.runs.provenance import metadata

FOLDER = Path(__file__).resolve().parent
CASES = [(1, 4096), (2, 4096), (2, 8192), (4, 8192)]  # processes, batch
TOLERANCE = 1e-5  # relative, of loss and gradient norm


class Peer:
    """The processes of one implementation."""

    def __init__(self, command: list[str], processes: int, batch: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.processes = [
            subprocess.Popen(
                [*command, *map(str, (rank, processes, port, batch))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for rank in range(processes)
        ]
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def request(self, command: str) -> list[dict[str, float]]:
        """Sends a command to all processes and returns their answers."""
        for process in self.processes:
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
        lines = [process.stdout.readline() for process in self.processes]
        if not all(lines):
            raise InputError("a process of the benchmark ended before it answered; its message is above")
        return [json.loads(line) for line in lines]

    def run(self) -> None:
        """Runs all processes once and records the time."""
        start = time.perf_counter()
        answers = self.request("run")
        self.seconds.append(time.perf_counter() - start)
        self.processor.append(sum(answer["processor"] for answer in answers))

    def close(self) -> None:
        """Stops the processes."""
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.wait(timeout=60)


def measure(commands: dict[str, list[str]], processes: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Returns one row per implementation."""
    peers = {name: Peer(command, processes, batch) for name, command in commands.items()}
    rows: list[dict[str, Any]] = []
    for name, peer in peers.items():
        answers = peer.request("memory")
        row = {"form": name, "processes": processes, "batch": batch}
        row["loss"] = sum(answer["loss"] for answer in answers)
        row["gradient_norm"] = sum(answer["squares"] for answer in answers) ** 0.5
        row["peak_mib"] = round(max(answer["peak"] - answer["before"] for answer in answers) / 2**20, 1)
        row["planned_mib"] = round(max(answer["planned"] for answer in answers) / 2**20, 1)
        for what in ("loss", "gradient_norm"):
            expected = (rows or [row])[0][what]
            if abs(row[what] - expected) > TOLERANCE * abs(expected):
                raise InputError(f"{name}: {what} is {row[what]}, expected {expected}: not the same loss")
        rows.append(row)
    for _ in range(rounds):
        for peer in peers.values():
            peer.run()
    for row, peer in zip(rows, peers.values(), strict=True):
        row["seconds"] = round(statistics.median(peer.seconds), 3)
        row["least_seconds"] = round(min(peer.seconds), 3)
        row["quartiles"] = [round(q, 3) for q in statistics.quantiles(peer.seconds, n=4)]
        row["processor_seconds"] = round(statistics.median(peer.processor), 3)
        peer.close()
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    """Measures all cases and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True, help="a Python that has torch and numpy")
    parser.add_argument("--loss-py", type=Path, required=True, help="open_clip/loss.py of open_clip_torch")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each form")
    parser.add_argument("--out", type=Path, default=RESULTS / "loss-peers.json")
    args = parser.parse_args()
    if not args.loss_py.is_file():
        raise InputError(f"--loss-py {args.loss_py}: no such file; unpack it out of the wheel of open_clip_torch")
    peer = [args.torch_python, str(FOLDER / "peer_open_clip.py"), str(args.loss_py)]
    version = subprocess.run(
        [args.torch_python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True
    )
    if version.returncode:
        raise InputError(f"--torch-python {args.torch_python}: cannot import torch; install torch==2.13.0 there")
    ours = [sys.executable, str(FOLDER / "peer_make_jax.py")]
    commands = {"open_clip": peer, "gather": [*ours, "gather"], "ring": [*ours, "ring"]}
    load = os.getloadavg()[0]
    provenance = metadata(
        Catalog.load(""),
        seed=0,
        command="python benchmarks/loss/peers.py --torch-python PYTHON --loss-py LOSS_PY",
        torch=version.stdout.strip(),
        cores=os.cpu_count(),
        load_at_start=round(load, 2),
    )
    rows: list[dict[str, Any]] = []
    for case in CASES:  # written after each, so that an interrupted run keeps them
        rows += measure(commands, *case, args.rounds)
        result = {"about": provenance, "rounds": args.rounds, "rows": rows}
        write_atomically(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    exit_cleanly(main)
