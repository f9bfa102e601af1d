"""Ctrl-C and SIGTERM in a command line program: end the process at once, or leave them to a loop that saves first.

Python runs a signal handler in the main thread between any two bytecode instructions, and not at all during a long
native call such as a compilation. An exception that a handler raises inside an import, a destructor or a callback of
the garbage collector becomes a traceback or is swallowed. So the handler here does nothing. CPython writes the number
of each signal to a pipe at once, and a thread that reads the pipe ends the process with `os._exit`.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_TO_CLEAN = 2.0  # a pipe that nobody reads must not keep the process alive

Handler = Callable[[signal.Signals], str | None]
"""Returns None if the program stops by itself, else the end of the line with which the process ends at once."""

_handler: Handler | None = None  # None: `exit_on_signals` was not called
_exit_codes = {signal.SIGINT: 128 + signal.SIGINT}
_before_exit: list[Callable[[], None]] = []
_report: Callable[[str], None] | None = None
_ending = threading.Lock()  # acquired once, by a signal or by the end of the program, whichever comes first


def exit_on_signals(sigterm_code: int = 128 + signal.SIGTERM, suffix: str = "") -> None:
    """From now on Ctrl-C and SIGTERM end this process at once with one line; exit codes 130 and `sigterm_code`.

    For programs, as early as possible and in the main thread; libraries leave signals to the program. A signal that is
    ignored, as Ctrl-C is in the background jobs of a shell, stays ignored. `suffix` ends the line.
    """
    global _handler
    started, _handler = _handler is not None, partial(_end_with, suffix)
    _exit_codes[signal.SIGTERM] = sigterm_code
    if not started:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(read_end,), name="signals", daemon=True).start()
        os.register_at_fork(after_in_child=_restore)  # the child has the pipe, but not the thread
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            _catch(number)


def _end_with(suffix: str, _number: signal.Signals) -> str:
    return suffix


def set_handler(handler: Handler) -> bool:
    """Makes `handler` decide, in a thread, what a signal does; False, and no effect, without `exit_on_signals`."""
    global _handler
    if _handler is None:
        return False
    _handler = handler
    return True


def before_exit(function: Callable[[], None]) -> None:
    """Adds a function that a thread calls when a signal ends the process, such as one that removes partial files."""
    _before_exit.append(function)


def set_report(report: Callable[[str], None]) -> None:
    """Makes a signal that ends this process call `report` with the printed line, to inform other processes."""
    global _report
    _report = report


def take_back_sigterm() -> Callable[[], None] | None:
    """Handles SIGTERM again after a C++ library has replaced the handler; no effect without `exit_on_signals`.

    Returns a function that hands a SIGTERM to that library.
    """
    if _handler is None:
        return None
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    theirs = libc.signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_IGN))
    _catch(signal.SIGTERM)

    def forward() -> None:
        libc.signal(signal.SIGTERM, theirs)
        os.kill(os.getpid(), signal.SIGTERM)

    return forward


def ignore_signals() -> None:
    """From now on both signals have no effect: the program has ended, and the interpreter exits.

    Does not return after a signal that ends the process: its exit code and line belong together.
    """
    if _handler is not None:
        _ending.acquire()
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)


def end(number: signal.Signals, suffix: str) -> NoReturn:
    """Ends the process with one line, as a signal does. Other threads go on meanwhile; what they print is discarded."""
    _ending.acquire()
    try:
        line = ("interrupted" if number == signal.SIGINT else "stopped by SIGTERM") + suffix
        cursor = "\x1b[?25h\n" if os.isatty(2) else ""  # a live line hides it and has no end
        os.write(2, f"{cursor}{line}\n".encode())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        if _report is not None:
            _report(line)  # first, since nothing can be written after the functions of `before_exit`
        clean = threading.Thread(target=_clean, args=(nowhere,), daemon=True)
        clean.start()
        clean.join(_SECONDS_TO_CLEAN)
    finally:
        os._exit(_exit_codes[number])


def block_in_thread() -> None:
    """Blocks both signals in the calling thread and in processes it starts; other threads still receive them.

    A terminal sends Ctrl-C to worker processes too, some schedulers SIGTERM; they must not die before their parent has
    saved, nor print anything.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _catch(number: signal.Signals) -> None:
    signal.signal(number, lambda _number, _frame: None)
    signal.siginterrupt(number, False)  # system calls of libraries go on


def _restore() -> None:
    signal.set_wakeup_fd(-1)
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _watch(read_end: int) -> None:
    while received := os.read(read_end, 1):
        if received[0] in _NUMBERS:
            assert _handler is not None
            number = signal.Signals(received[0])
            suffix = _handler(number)
            if suffix is not None:
                end(number, suffix)


def _clean(nowhere: int) -> None:
    """Writes what stdout still buffers, and calls the functions of `before_exit`."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.dup2(nowhere, 1)
    for function in _before_exit:
        with contextlib.suppress(Exception):
            function()
