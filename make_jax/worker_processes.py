"""Worker processes of training batches and builds: they ignore signals and end with their parent, without output."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path

from make_jax.signals import before_exit


def start_resource_tracker() -> None:
    """Starts the process of the standard library that frees semaphores and shared memory after a process has ended.

    Call it before anything that starts worker processes. It would start with the first of them: without the variable,
    which silences its warning of what it frees after a signal, and its start would undo `signals.block_in_thread`,
    which workers inherit. Once started, it stays as it is.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join([*([before] if before else []), "ignore:resource_tracker:UserWarning"])
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _kill_workers() -> None:
    """Kills all workers: one that is just starting would print that its parent has gone."""
    for process in multiprocessing.active_children():
        process.kill()
    for path in Path("/proc/self/task").glob("*/children"):  # also those that Process.start has not returned
        for child in path.read_text().split():
            if b"multiprocessing.spawn" in Path("/proc", child, "cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)


def start_worker(*_: int) -> None:
    """Ignores signals, which the parent handles, and exits when the parent ends for any reason.

    A worker calls it first. Its arguments are those of Grain, the number of the worker and of all; a pool has none.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and some schedulers send them to all processes
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


before_exit(_kill_workers)
