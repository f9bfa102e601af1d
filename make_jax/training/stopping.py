"""Ctrl-C and SIGTERM end a run between two steps, in all of its processes at the same one, and lose nothing.

    before the first step   nothing can be lost: it ends at once, in the middle of a compilation too
    afterwards              `Stop.asked` is true where the loop looks next: after a step, a chunk of an evaluation or a
                            part of a fit; the loop then saves, and a second Ctrl-C does not wait for that

Between a signal and the end stand therefore at most the two steps that are under way or one chunk (of the first
evaluation: its compilation), the save that is being written, and one more.
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


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """What was asked to give way gives way: `Stop.give_way` raises it, the loop catches it."""


class Stop:
    """Whether a run has been asked to stop: use it through `stop_on_signals`."""

    stepped: bool  # whether a step has been taken, so that ending at once would lose it; the loop says so

    def __init__(self) -> None:
        self.stepped = False
        self._signals: list[signal.Signals] = []  # of this process
        self._looks = 0
        self._agreed = False

    def asked(self) -> bool:
        """Whether to stop; once true it stays so.

        Processes must call it at the same points of the program: a signal to one of them makes it true in all, at the
        call that the slowest has not reached yet.
        """
        if jax.process_count() == 1:
            return bool(self._signals)
        self._looks += 1
        self._agreed = self._agreed or multihost_utils.reached_preemption_sync_point(self._looks)
        return self._agreed

    def give_way(self) -> None:
        """Raises Interrupted when asked to stop; for what takes long and can be done again, in the sense of `asked`."""
        if self.asked():
            raise Interrupted

    def leave(self, kept: str) -> None:
        """Ends a run that was asked to stop and has saved: KeyboardInterrupt after Ctrl-C, else Terminated."""
        kept = f"{kept}; the same command goes on from there"
        if signal.SIGINT in self._signals:
            raise KeyboardInterrupt(f"interrupted; {kept}")
        raise Terminated(f"stopped by SIGTERM; {kept}")

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        again = bool(self._signals)
        self._signals.append(signal.Signals(number))
        if number == signal.SIGINT and (again or not self.stepped):
            raise KeyboardInterrupt
        if number == signal.SIGINT and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which jax.distributed tells the other processes
        if number == signal.SIGTERM and not self.stepped:
            raise Terminated(_NOTHING_LOST)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Minds Ctrl-C and SIGTERM until the end of the block; for the main thread.

    In a run of several processes SIGTERM is left to `jax.distributed`, which must be initialised before.
    """
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else (signal.SIGINT,)
    before = {number: signal.signal(number, stop.handle) for number in numbers}
    with _end_what_cannot_unwind(stop):
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _end_what_cannot_unwind(stop: Stop) -> Iterator[None]:
    """Ends the process after SIGTERM before the first step when no exception comes through.

    Python runs signal handlers between two of its own instructions, and a compilation is one that takes minutes; the
    number of the signal is written to a pipe at once.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    unwound = threading.Event()

    def watch() -> None:
        while numbers := os.read(reading, 1):
            if numbers[0] == signal.SIGTERM and not unwound.wait(_SECONDS_TO_UNWIND) and not stop.stepped:
                print(_NOTHING_LOST, file=sys.stderr, flush=True)
                os._exit(0)

    thread = threading.Thread(target=watch, name="stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        unwound.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)
