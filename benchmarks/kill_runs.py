"""Real runs of train.py that benchmarks/kill_matrix.py starts, watches, harms and compares."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from make_jax.errors import InputError
from make_jax.files import PARTIAL
from make_jax.runs import manifest
from make_jax.runs.run_folder import read_checkpoint
from make_jax.training.metric_logger import METRICS, read_metrics

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "benchmarks" / "kill_recipe.py"
LONGEST = 900.0  # seconds that a run may take before it counts as hung


class Failed(Exception):  # noqa: N818 - says what was found instead of what was promised
    """A promise that was not kept."""


def expect(kept: bool, what: str) -> None:
    """Raises Failed that says `what` unless the promise was kept."""
    if not kept:
        raise Failed(what)


def surroundings(work: Path, cache: str = "jax") -> dict[str, str]:
    """The environment of runs, which keep their compiled programs in `work`/`cache`; says nothing of devices."""
    flags = [
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",  # eight devices on a few busy cores wait long
        "--xla_backend_optimization_level=0",  # much is compiled here and little computed
        "--xla_llvm_disable_expensive_passes=true",
    ]
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags),
        "JAX_COMPILATION_CACHE_DIR": str(work / cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


class Run:
    """One start of train.py in a process of its own; `folder` is the run's."""

    def __init__(self, folder: Path, work: Path, options: tuple[str, ...] = (), devices: int = 8, cache: str = "jax"):
        self.folder = folder
        self.log = work / "logs" / f"{folder.name}-{time.time_ns()}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = surroundings(work, cache)
        environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
        words = [sys.executable, str(ROOT / "train.py"), "--config", str(RECIPE), "--run", str(folder), *options]
        words += ["--data.cache", str(work / "catalog")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        """Stdout and stderr so far."""
        return self.log.read_text(errors="replace")

    @property
    def started_at(self) -> int | None:
        """The step that it said it goes on from."""
        found = re.search(r"goes on from step (\d+)", self.said)
        return int(found[1]) if found else None

    @property
    def minds_sigterm(self) -> bool:
        """Whether the process has a handler for SIGTERM: not before Python itself has started."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

    def until(self, there: Callable[[], bool], what: str) -> None:
        """Waits for something to be seen; Failed when the process ends before, or takes too long."""
        end = time.monotonic() + LONGEST
        while not there():
            if self.process.poll() is not None or time.monotonic() > end:
                self.end()
                raise Failed(f"no sign of {what}; exit code {self.process.returncode}: {self.said[-300:]!r}")
            time.sleep(0.004)

    @property
    def stepped(self) -> bool:
        """Whether this start has told a step; what earlier ones told of later steps is taken back before it greets."""
        return "device(s); " in self.said and last_told(self.folder) > (self.started_at or 0)

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Waits for the end, and gives back the exit code; kills what hangs."""
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("hung") from None

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        self.process.wait()


def last_told(folder: Path) -> int:
    """The last step of the run's metrics, 0 for none."""
    try:
        return max((record["step"] for record in read_metrics(folder / METRICS)), default=0)
    except (OSError, InputError):
        return 0


def saving(folder: Path) -> set[str]:
    """The names of what is being written."""
    return {path.name for path in (folder / "checkpoints").glob(f"*/{PARTIAL}*")}


def checkpoints(folder: Path) -> dict[Path, str]:
    """All folders with the name of a complete checkpoint, old to new, and what is wrong with each: "" is intact."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("*/[0-9]*"), key=lambda path: path.name):
        try:
            manifest.verify(path)
            found[path] = ""
        except InputError as error:
            found[path] = str(error)
    return found


def newest(folder: Path) -> int:
    """The step of the newest intact checkpoint, 0 for none."""
    return max((int(path.name.split(".")[0]) for path, wrong in checkpoints(folder).items() if not wrong), default=0)


def largest(path: Path) -> Path:
    """The file of a checkpoint with most arrays in it."""
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def told(folder: Path) -> dict[tuple[int, str], Any]:
    """(step, name) -> value of all that must not differ between a run and one that was harmed."""
    names = ("loss", "gradient_norm", "seen", "val_ndcg@10")
    return {(line["step"], n): line[n] for line in read_metrics(folder / METRICS) for n in names if n in line}


def expect_same(folder: Path, reference: Path, whole: bool = True) -> None:
    """Batches, losses, gradients and validation of a run are those of the undisturbed one, bit for bit.

    `whole`: it has been told to the end, and its last parameters are the same too.
    """
    ours, theirs = told(folder), told(reference)
    other = [key for key, value in ours.items() if theirs.get(key) != value]
    expect(not other, f"{len(other)} of {len(ours)} values differ, first {other[:1]}")
    if whole:
        expect(ours.keys() == theirs.keys(), f"{len(ours)} values told instead of {len(theirs)}")
        (a, _, _), (b, _, _) = read_checkpoint(folder, "last"), read_checkpoint(reference, "last")
        same = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
        expect(all(jax.tree.leaves(same)), "the last parameters differ")
