"""Batches placed on devices ahead of the step that takes them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Host = TypeVar("Host")
Placed = TypeVar("Placed")


class Prefetch(Generic[Host, Placed]):
    """An iterator over `place(batch)` that works ahead in a thread of its own; see `prefetch`."""

    seconds_waited: float  # that `next` has spent waiting, over the whole life; the data-wait share is made of it

    def __init__(self, iterator: Iterator[Host], place: Callable[[Host], Placed], depth: int) -> None:
        self.seconds_waited = 0.0
        self._iterator = iterator
        self._place = place
        self._room = threading.Semaphore(depth)  # placed batches nobody has taken yet; device memory depends on it
        self._ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._ended: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetch[Host, Placed]":
        return self

    def __next__(self) -> Placed:
        if self._ended is not None:
            raise self._ended
        started = time.perf_counter()
        kind, value = self._ready.get()
        self.seconds_waited += time.perf_counter() - started
        if kind == "batch":
            self._room.release()
            return value
        self._ended = value
        raise value

    def close(self) -> None:
        """Ends the thread, then the iterator behind it if that can be closed; `next` then raises StopIteration."""
        self._stop.set()
        self._room.release()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._ended = StopIteration()
        self._ready = queue.SimpleQueue()  # batches nobody will take must not hold device memory
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> "Prefetch[Host, Placed]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._stop.is_set():
                    return
                self._ready.put(("batch", self._place(next(self._iterator))))
        except BaseException as error:  # handed to the consumer, StopIteration too
            self._ready.put(("end", error))


def prefetch(iterator: Iterator[Host], place: Callable[[Host], Placed], depth: int) -> Prefetch[Host, Placed]:
    """An iterator whose batches are placed on devices ahead of time, at most `depth` (>= 1) of them.

    `iterator` and `place` run in one background thread; an exception of either reaches the consumer, after the batches
    made before it. Use it as a context manager, or call `close()`: that ends the thread and closes `iterator`.
    `seconds_waited` tells how long `next` has waited for data.

    Args:
        iterator: host batches.
        place: host batch -> device batch, such as `lambda batch: jax.device_put(batch, sharding)`.
        depth: the most placed batches that nobody has taken yet, the one being made included.
    """
    if depth < 1:
        raise ValueError(f"depth: found {depth}, expected at least 1")
    return Prefetch(iterator, place, depth)
