"""Real runs of train.py for `kill_matrix.py`: start, observe, interrupt and compare them."""

import ctypes
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

from benchmarks import ROOT
from make_jax.errors import InputError
from make_jax.files import PARTIAL
from make_jax.runs import manifest
from make_jax.runs.run_folder import load_trained_model
from make_jax.training.metric_writers.jsonl import METRICS, read_metrics

RECIPE = Path(__file__).with_name("kill_recipe.py")
TIMEOUT = 900.0  # seconds after which a run counts as hung


class PromiseBroken(Exception):  # noqa: N818 - a result, not an error
    """A promise that was not kept."""


def expect(kept: bool, what: str) -> None:
    """Raises PromiseBroken with the message `what` unless `kept`."""
    if not kept:
        raise PromiseBroken(what)


def run_environment(work: Path, cache: str = "jax") -> dict[str, str]:
    """Environment variables of runs, which cache compiled programs in `work`/`cache`; the device count is not set."""
    flags = [
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",  # eight devices on a few busy cores wait
        "--xla_backend_optimization_level=0",  # compilation dominates
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
    """One start of train.py in a child process; `folder` is the run's folder."""

    def __init__(self, folder: Path, work: Path, options: tuple[str, ...] = (), devices: int = 8, cache: str = "jax"):
        self.folder = folder
        self.log = work / "logs" / f"{folder.name}-{time.time_ns()}.txt"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = run_environment(work, cache)
        environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(RECIPE), "--run", str(folder), *options]
        command += ["--data.cache", str(work / "catalog")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def output(self) -> str:
        """Stdout and stderr so far."""
        return self.log.read_text(errors="replace")

    @property
    def resumed_from(self) -> int | None:
        """The step from which the run resumed, by its log."""
        match = re.search(r"resuming from step (\d+)", self.output)
        return int(match[1]) if match else None

    @property
    def handles_sigterm(self) -> bool:
        """Whether the process has installed a handler for SIGTERM."""
        return handles_sigterm(self.process.pid)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until `condition` holds; raises PromiseBroken if the process ends before or takes too long."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.end()
                raise PromiseBroken(f"no sign of {what}; exit code {self.process.returncode}: {self.output[-300:]!r}")
            time.sleep(0.004)

    @property
    def has_stepped(self) -> bool:
        """Whether this start has logged a step. It drops later steps of earlier starts before its first log line."""
        return "device(s); " in self.output and last_logged_step(self.folder) > (self.resumed_from or 0)

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Waits for the exit and returns the exit code; kills a run that hangs."""
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise PromiseBroken("hung") from None

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        self.signal(signal.SIGKILL)
        self.process.wait()


def handles_sigterm(pid: int) -> bool:
    """Whether a process has installed a handler for SIGTERM."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def mount_tmpfs(folder: Path, size: int) -> None:
    """Mounts a disk of `size` bytes in memory; raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unmount(folder: Path) -> None:
    """Unmounts what `mount_tmpfs` mounted."""
    ctypes.CDLL(None).umount(str(folder).encode())


def last_logged_step(folder: Path) -> int:
    """Returns the last step in the run's metrics, 0 without any."""
    try:
        return max((record["step"] for record in read_metrics(folder / METRICS)), default=0)
    except (OSError, InputError):
        return 0


def saving(folder: Path) -> set[str]:
    """Returns the names of the checkpoints being written."""
    return {path.name for path in (folder / "checkpoints").glob(f"*/{PARTIAL}*")}


def checkpoints(folder: Path) -> dict[Path, str]:
    """Returns every folder with a complete checkpoint's name, old to new, and its damage; "" for an intact one."""
    damage = {}
    for path in sorted((folder / "checkpoints").glob("*/[0-9]*"), key=lambda path: path.name):
        try:
            manifest.verify(path)
            damage[path] = ""
        except InputError as error:
            damage[path] = str(error)
    return damage


def newest(folder: Path) -> int:
    """Returns the step of the newest intact checkpoint, 0 without any."""
    return max((int(path.name.split(".")[0]) for path, wrong in checkpoints(folder).items() if not wrong), default=0)


def largest(path: Path) -> Path:
    """Returns the largest file of a checkpoint, which holds arrays."""
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def logged_values(folder: Path) -> dict[tuple[int, str], Any]:
    """Returns (step, name) -> value of all values that must equal those of an undisturbed run."""
    names = ("loss", "gradient_norm", "data_fingerprint", "val_ndcg@10")
    return {(line["step"], n): line[n] for line in read_metrics(folder / METRICS) for n in names if n in line}


def expect_same(folder: Path, reference: Path, complete: bool = True) -> None:
    """Raises PromiseBroken unless batches, losses, gradients and validation equal the reference's bit for bit.

    `complete`: the run has ended, and its last parameters are compared too.
    """
    ours, theirs = logged_values(folder), logged_values(reference)
    other = [key for key, value in ours.items() if theirs.get(key) != value]
    expect(not other, f"{len(other)} of {len(ours)} values differ, first {other[:1]}")
    if complete:
        expect(ours.keys() == theirs.keys(), f"{len(ours)} values logged instead of {len(theirs)}")
        a, b = (load_trained_model(run, "last").params for run in (folder, reference))
        same = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
        expect(all(jax.tree.leaves(same)), "the last parameters differ")
