"""Ends a process with exit code 75 and one line when another process of its run is lost. Filters tracebacks of saves.

JAX's coordination service detects a lost process and aborts the others from a C++ thread: no Python exception, exit
code -6 and a C++ stack trace that does not say how to resume. Measured with JAX 0.10.2, two CPU processes and a
heartbeat timeout of 10 s, without this module:

    process 0 killed            process 1 aborts after 0.2 s
    process 1 killed            process 0 raises "Gloo all-reduce failed" and aborts after 7 s
    either raises an exception  both abort after 11 s; the other process never learns why
    either is frozen (SIGSTOP)  the other aborts after 7 s

So JAX detects, and this module reports: `exit_on_abort` replaces the exit code and adds the line, and a process that
ends by its own error leaves the reason in a file in the run's folder, which the others repeat.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from make_jax.files import write_atomically

EXIT_PEER_LOST = os.EX_TEMPFAIL  # 75, "try again": the exit code when another process is lost
HEARTBEAT_TIMEOUT = 30  # seconds without heartbeats after which JAX counts a process as lost; JAX's default is 100
GRACE = 5.0  # seconds for which a failed process 0 stays up, since its end aborts all others: they often fail alike


class PeerFailures:
    """Reports and detects the failure of processes of one run.

    Args:
        index, count: this process and the number of processes.
        folder: where failing processes leave their reason, shared by all processes; None for nowhere.
        advice: returns how to resume, such as "at step 7; restart the job ..."; appended to every message.
    """

    def __init__(self, index: int, count: int, folder: Path | None, advice: Callable[[], str]) -> None:
        self._index, self._count, self._folder, self._advice = index, count, folder, advice
        self._exiting = threading.Lock()  # acquired once, by the thread that ends the process

    def clear(self) -> None:
        """Deletes the reports of earlier starts. Process 0 calls it before the others may fail."""
        if self._folder is not None:
            for path in self._folder.glob("failure-*.txt"):
                path.unlink(missing_ok=True)

    def report(self, reason: str) -> None:
        """Reports to the other processes that this one ends, and why."""
        self._exiting.acquire()
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a full disk may be the reason
                text = f"process {self._index} of {self._count} ended: {reason}"
                write_atomically(self._folder / f"failure-{self._index}.txt", text)
        if self._index == 0:
            time.sleep(GRACE)

    def message(self) -> str:
        """Which process is lost, why, and how to resume."""
        other = f"process {1 - self._index}" if self._count == 2 else "a process"  # JAX's message above names it
        return f"{self._reported() or f'{other} of {self._count} stopped answering'} {self._advice()}"

    def wait(self) -> None:
        """Ends this process if another one turns out to be lost; returns after the heartbeat timeout otherwise.

        For a failed collective: it raises at once, while the reason takes time to be written or to be detected by JAX.
        """
        end = time.monotonic() + HEARTBEAT_TIMEOUT + GRACE
        while time.monotonic() < end:
            if self._reported():
                self._exiting.acquire()
                print_last(self.message())
                os._exit(EXIT_PEER_LOST)
            time.sleep(0.2)

    def on_abort(self) -> tuple[str, int]:
        """The line and exit code of an abort by JAX, for `exit_on_abort`."""
        self._exiting.acquire()
        return self.message(), EXIT_PEER_LOST

    def _reported(self) -> str:
        """The reason that another process has left; "" without any."""
        paths = sorted(self._folder.glob("failure-*.txt")) if self._folder is not None else []
        others = [path for path in paths if path.name != f"failure-{self._index}.txt"]
        return others[0].read_text("utf-8") if others else ""


@contextlib.contextmanager
def exit_on_abort(line_and_code: Callable[[], tuple[str, int] | None]) -> Iterator[None]:
    """Inside the block, a C++ abort() prints the line of `line_and_code` and exits with its code; None aborts as usual.

    The handler must be C: Python runs its own signal handlers in the main thread, after abort() has ended the process.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handle(_number: int) -> None:
        libc.signal(signal.SIGABRT, None)
        result = line_and_code()
        if result is not None:
            print_last(result[0])
            os._exit(result[1])

    previous = libc.signal(signal.SIGABRT, ctypes.cast(handle, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, previous)


def print_last(line: str) -> None:
    """Prints an error line below the output of libraries and restores the terminal's cursor."""
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # process 0's live line hides it
    os.write(2, f"{cursor}\nerror: {line}\n".encode())


def silence_save_tracebacks() -> None:
    """Suppresses library tracebacks of a failed background save, which the next call raises as one InputError."""
    logging.getLogger("absl").addFilter(_not_from_orbax)
    logging.getLogger("asyncio").addFilter(_not_from_tensorstore)
    # TensorStore reports a write that ends after the failed one here or there, by its version and Python's.
    sys.excepthook = _without_late_writes(sys.excepthook, lambda _kind, error, _trace: error)
    sys.unraisablehook = _without_late_writes(sys.unraisablehook, lambda raised: raised.exc_value)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return f"orbax{os.sep}checkpoint" not in record.pathname


def _not_from_tensorstore(record: logging.LogRecord) -> bool:
    return "OCDBT" not in record.getMessage()


def _without_late_writes(hook: Any, error_of: Callable[..., BaseException | None]) -> Any:
    """`hook`, called with all errors but that of a write which ends after the event loop is closed."""

    def filtered(*raised: Any) -> None:
        error = error_of(*raised)
        if not (type(error) is RuntimeError and str(error) == "Event loop is closed"):
            hook(*raised)

    filtered.is_filter = True  # type: ignore[attr-defined]
    return hook if hasattr(hook, "is_filter") else filtered
