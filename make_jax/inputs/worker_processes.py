"""Worker processes of the training batches: they ignore signals and end with the training process, without output."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from pathlib import Path

from make_jax.signals import before_exit


def _kill_workers() -> None:
    """Kills all workers: one that is just starting would print that its parent has gone."""
    for process in multiprocessing.active_children():
        process.kill()
    for path in Path("/proc/self/task").glob("*/children"):  # also those that Process.start has not returned
        for child in path.read_text().split():
            if b"multiprocessing.spawn" in Path("/proc", child, "cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)


def start_worker(_index: int, _count: int) -> None:
    """Ignores signals, which the training process handles, and exits when that process ends for any reason."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and some schedulers send them to all processes
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


before_exit(_kill_workers)
