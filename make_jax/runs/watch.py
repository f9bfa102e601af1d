"""Whether the other processes of a run are still there, and the one line that is said when one is not.

A process that dies leaves the others in a collective that fails, or that never ends. JAX's own answer to it ends the
process from C++, where no exception can be caught and nothing says what to do. So each process counts up a word of its
own, and reads those of the others, in the store of the coordinator (process 0):

    alive N        it goes on; the same N for SILENT seconds: it stopped answering
    failed WHY     it ended by an error, or because of another process; the others give the same reason
    left           it is done

Who sees another one gone prints one line and ends with exit code GONE. XLA watches too, and calls abort(): at once
where process 0 is gone, and the store with it, and after HEARTBEAT / 2 to HEARTBEAT seconds where another one is, which
on a busy machine can be sooner than we look. `last_words` says the same line from there.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

GONE = os.EX_TEMPFAIL  # exit code of a process that ended because another one is gone: 75, "try again"
POLL = 2.0  # seconds between two looks
SILENT = 30.0  # seconds without a sign of life after which a process counts as gone
SILENT_AFTER_FAILURE = 10.0  # the same, once a collective failed: something is wrong
GRACE = 5.0  # seconds in which a process may end by itself after another one failed: often for the same reason


class Watch:
    """The watch of one process over the others, a thread that ends with the process.

    Args:
        client: the coordinator's store: `key_value_set`, `key_value_dir_get`.
        index, count: of this process, and how many there are.
        keys: prefix of the keys, the same in all processes and of no other watch.
        advice: what to do when one is gone, such as "at step 7; restart the job"; asked when it is needed.
    """

    def __init__(self, client: Any, index: int, count: int, keys: str, advice: Callable[[], str]) -> None:
        self._client, self._index, self._count, self._keys, self._advice = client, index, count, keys, advice
        self._seen: dict[int, tuple[str, float]] = {}  # the newest word of each, and when it was new
        self._silent = SILENT
        self._over = threading.Event()
        self._ending = threading.Lock()
        self._looks = 0
        self._look()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def name(self, index: int) -> str:
        """What messages call a process."""
        return f"process {index} of {self._count}"

    def leave(self) -> None:
        """This process needs the others no more, nor they it."""
        self._over.set()
        with self._ending:
            self._say("left")

    def failed(self, why: str) -> None:
        """Tells the others that this process ends, and why; returns when they know it or had the time to."""
        with self._ending:
            self._leave_failed(f"{self.name(self._index)} ended: {why}")

    def blame(self) -> None:
        """After a failed collective: ends the process if another one turns out to be gone, else returns."""
        self._silent = SILENT_AFTER_FAILURE
        time.sleep(SILENT_AFTER_FAILURE + GRACE + 2 * POLL)

    def missing(self) -> str | None:
        """The process that has given no sign of life for longest, if that is longer than it takes to give some."""
        now = time.monotonic()
        quiet = {i: now - when for i, (word, when) in self._seen.items() if i != self._index and word != "left"}
        longest = max(quiet, key=lambda index: quiet[index], default=None)
        return None if longest is None or quiet[longest] < 3 * POLL else self.name(longest)

    def end(self, why: str) -> None:
        """Ends this process because of another one: one line, exit code GONE."""
        with self._ending:
            if self._over.is_set():
                return
            self._leave_failed(why)
            say_last(f"{why} {self._advice()}")
            os._exit(GONE)

    def _run(self) -> None:
        while not self._over.wait(POLL):
            try:
                self._look()
            except jax.errors.JaxRuntimeError:  # the store is gone, and it lives in process 0
                if not self._over.is_set():
                    self.end(f"{self.name(0)} stopped answering")

    def _look(self) -> None:
        """Gives a sign of life and looks for those of the others; ends the process if one is gone."""
        self._looks += 1
        self._say(f"alive {self._looks}")
        words, now = self._words(), time.monotonic()
        for index in range(self._count):
            word = words.get(index, "")
            if self._seen.get(index, (None, 0.0))[0] != word:
                self._seen[index] = word, now
            quiet = now - self._seen[index][1]
            if word.startswith("failed ") and (quiet >= GRACE or "stopped answering" in word):
                self.end(word.removeprefix("failed "))
            if word != "left" and index != self._index and quiet >= self._silent:
                self.end(f"{self.name(index)} stopped answering")

    def _say(self, word: str) -> None:
        self._client.key_value_set(f"{self._keys}/{self._index}", word, allow_overwrite=True)

    def _words(self) -> Mapping[int, str]:
        return {int(key.rsplit("/", 1)[1]): word for key, word in self._client.key_value_dir_get(self._keys)}

    def _leave_failed(self, why: str) -> None:
        """Process 0 takes the store with it: it waits for the others to have read why, each in its turn."""
        self._over.set()
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._say(f"failed {why}")
            until = time.monotonic() + GRACE + 2 * POLL
            while self._index == 0 and time.monotonic() < until:
                words = self._words()
                others = [index for index in range(1, self._count) if self.name(index) not in why]
                if not any(words.get(index, "").startswith("alive") for index in others):
                    break
                time.sleep(POLL / 4)


def say_last(line: str) -> None:
    """Prints the line that a person needs, below what libraries have printed, and leaves the terminal usable."""
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # the live line of process 0 hides it
    os.write(2, f"{cursor}\nerror: {line}\n".encode())


def reachable(address: str, seconds: float) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def last_words(say: Callable[[], tuple[str, int] | None]) -> Iterator[None]:
    """While inside, a C++ abort() of this process prints a line and ends with an exit code, both from `say`.

    XLA aborts from a thread of its own when the coordinator is gone or cannot be reached. Python's signal handlers wait
    for the main thread, which may never come; one of C runs in the aborting thread. None from `say` is an abort of
    another kind, which goes its way.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handle(_number: int) -> None:
        libc.signal(signal.SIGABRT, None)
        said = say()
        if said is not None:
            say_last(said[0])
            os._exit(said[1])

    before = libc.signal(signal.SIGABRT, ctypes.cast(handle, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)
