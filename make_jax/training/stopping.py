"""Stops a run on Ctrl-C or SIGTERM between two steps, at the same step in all processes, without losing work.

    before the first step   nothing can be lost: the process ends at once, even during compilation
    after it                `Stop.should_stop` becomes true; the loop polls it after each step, each chunk of an
                            evaluation and each part of the keyword-head fit, then saves; a second Ctrl-C does not wait

The longest delay is two steps in flight or one evaluation chunk (in the first evaluation: its compilation), plus the
save in progress, plus one more save. `signals.py` ends the process, in programs that call its `exit_on_signals`; in
others, such as a notebook, a signal that is not left to the loop does what it did before the run.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from make_jax import signals
from make_jax.errors import Terminated

_NOTHING_LOST = " before the first step; there was nothing to save"
_AGAIN = " again; steps since the last checkpoint are not saved; the same command resumes from there"


class StopRequested(Exception):  # noqa: N818 - not an error
    """Raised by `Stop.raise_if_stopping` to abandon work that can be repeated; the loop catches it."""


class Stop:
    """Whether the run was requested to stop; create it with `stop_on_signals`.

    Args:
        forward: informs `jax.distributed`, which informs the other processes.
    """

    has_stepped: bool  # set by the loop after the first step: from then on an immediate exit would lose work

    def __init__(self, forward: Callable[[], None] = lambda: None) -> None:
        self.has_stepped = False
        self._forward = forward
        self._in_program = False  # which has called `signals.exit_on_signals`
        self._signals: list[signal.Signals] = []  # received by this process after the first step
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

    def end(self, step: int) -> NoReturn:
        """Ends a run that has saved `step` and closed its logs.

        In a program of one process by `signals.end`: worker processes and Python's exit would take seconds. Otherwise
        raises KeyboardInterrupt after Ctrl-C, else Terminated.
        """
        saved = (
            f"; step {step} is saved; the same command resumes from there" if step else "; there was nothing to save"
        )
        number = signal.SIGINT if signal.SIGINT in self._signals else signal.SIGTERM
        if self._in_program and jax.process_count() == 1:
            signals.end(number, saved)
        if number == signal.SIGINT:
            raise KeyboardInterrupt(f"interrupted{saved}")
        raise Terminated(f"stopped by SIGTERM{saved}")

    def handle(self, number: signal.Signals) -> str | None:
        """Records a signal and returns None; else why the process can end at once. A `signals.Handler`."""
        if not self.has_stepped:
            return _NOTHING_LOST
        if number == signal.SIGINT and number in self._signals:
            return _AGAIN
        self._signals.append(number)
        self._forward()
        return None


@contextmanager
def stop_on_signals(forward_sigterm: Callable[[], None] | None = None) -> Iterator[Stop]:
    """Handles Ctrl-C and SIGTERM inside the block. Main thread only.

    In a run of several processes `jax.distributed`, which must be initialized before, handles SIGTERM itself, unless
    `signals.take_back_sigterm` has returned `forward_sigterm`.
    """
    alone = jax.process_count() == 1
    stop = Stop(forward_sigterm or ((lambda: None) if alone else _send_sigterm))
    stop._in_program = signals.set_handler(stop.handle)
    if stop._in_program:
        yield stop  # `stop` stays the handler: from here on the program only ends
        return

    def handle(number: int, _: FrameType | None) -> None:
        received = signal.Signals(number)
        if stop.handle(received) is not None:
            signal.signal(received, previous[received])
            os.kill(os.getpid(), received)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)[: 2 if alone else 1]}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _send_sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
