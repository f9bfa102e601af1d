"""Stops a run on Ctrl-C or SIGTERM between two steps, at the same step in all processes, without losing work.

    before the first step   nothing can be lost: the process exits at once, even during compilation
    after it                `Stop.should_stop` becomes true; the loop polls it after each step, each chunk of an
                            evaluation and each part of the keyword-head fit, then saves; a second Ctrl-C does not wait

The longest delay is two steps in flight or one evaluation chunk (in the first evaluation: its compilation), plus the
save in progress, plus one more save.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

from make_jax.errors import Terminated

_NOTHING_LOST = "stopped by SIGTERM before the first step; there was nothing to save"
_SECONDS_TO_UNWIND = 5.0


class StopRequested(Exception):  # noqa: N818 - not an error
    """Raised by `Stop.raise_if_stopping` to abandon work that can be repeated; the loop catches it."""


class Stop:
    """Whether the run was requested to stop; create it with `stop_on_signals`."""

    has_stepped: bool  # set by the loop after the first step: from then on an immediate exit would lose work

    def __init__(self) -> None:
        self.has_stepped = False
        self._signals: list[signal.Signals] = []  # received by this process
        self._polls = 0
        self._agreed = False

    def should_stop(self) -> bool:
        """Returns whether to stop; once true it stays true.

        All processes must call it at the same points of the program. A signal to any one of them makes it true in all,
        at the first call that the slowest process has not reached yet.
        """
        if jax.process_count() == 1:
            return bool(self._signals)
        self._polls += 1
        self._agreed = self._agreed or multihost_utils.reached_preemption_sync_point(self._polls)
        return self._agreed

    def raise_if_stopping(self) -> None:
        """Raises StopRequested if `should_stop`; for long work that can be repeated after a restart."""
        if self.should_stop():
            raise StopRequested

    def raise_stopped(self, saved: str) -> None:
        """Ends a stopped run that has saved its state: raises KeyboardInterrupt after Ctrl-C, else Terminated."""
        saved = f"{saved}; the same command resumes from there"
        if signal.SIGINT in self._signals:
            raise KeyboardInterrupt(f"interrupted; {saved}")
        raise Terminated(f"stopped by SIGTERM; {saved}")

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        repeated = bool(self._signals)
        self._signals.append(signal.Signals(number))
        if number == signal.SIGINT and (repeated or not self.has_stepped):
            raise KeyboardInterrupt
        if number == signal.SIGINT and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # jax.distributed forwards SIGTERM to the other processes
        if number == signal.SIGTERM and not self.has_stepped:
            raise Terminated(_NOTHING_LOST)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handles Ctrl-C and SIGTERM inside the block and restores the previous handlers after it. Main thread only.

    In a run of several processes `jax.distributed`, which must be initialized before, handles SIGTERM itself.
    """
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else (signal.SIGINT,)
    previous = {number: signal.signal(number, stop.handle) for number in numbers}
    with _exit_if_native_code_blocks(stop):
        try:
            yield stop
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def _exit_if_native_code_blocks(stop: Stop) -> Iterator[None]:
    """Exits after SIGTERM before the first step when the handler's exception cannot be raised in time.

    Python runs signal handlers between bytecode instructions only, and a compilation is one native call that takes
    minutes. The wakeup file descriptor receives the signal number at once.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    unwound = threading.Event()

    def wait_for_signals() -> None:
        while numbers := os.read(read_end, 1):
            if numbers[0] == signal.SIGTERM and not unwound.wait(_SECONDS_TO_UNWIND) and not stop.has_stepped:
                print(_NOTHING_LOST, file=sys.stderr, flush=True)
                os._exit(0)

    thread = threading.Thread(target=wait_for_signals, name="stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        unwound.set()
        signal.set_wakeup_fd(previous)
        os.close(write_end)
        thread.join()
        os.close(read_end)
