"""Batches placed on devices ahead of the training step.

Grain's ThreadPrefetchIterDataset is not used here: it holds one element more than its buffer size (device memory),
measures no wait, and reads on after an error.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from make_jax.signals import block_in_thread

Host = TypeVar("Host")
Placed = TypeVar("Placed")


class DevicePrefetch(Generic[Host, Placed]):
    """An iterator over `place(batch)` of each batch, at most `depth` of them placed ahead, in order.

    `iterator` and `place` run in one background thread. An exception of either reaches the consumer after the batches
    made before it, and again at every later `next`. Use it as a context manager, or call `close`.

    Args:
        iterator: host batches; closed by `close` if it can be.
        place: host batch -> device batch, such as `lambda batch: jax.device_put(batch, sharding)`.
        depth: maximum number of placed batches not taken yet, including the one being placed; ValueError below 1.
    """

    seconds_waited: float  # that `next` has waited for data since the start

    def __init__(self, iterator: Iterator[Host], place: Callable[[Host], Placed], depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth: found {depth}, expected at least 1")
        self.seconds_waited = 0.0
        self._iterator = iterator
        self._place = place
        self._free_slots = threading.Semaphore(depth)  # bounds device memory
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._end: BaseException | None = None
        self._thread = threading.Thread(target=self._produce, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> "DevicePrefetch[Host, Placed]":
        return self

    def __next__(self) -> Placed:
        if self._end is not None:
            raise self._end
        started = time.perf_counter()
        kind, value = self._queue.get()
        self.seconds_waited += time.perf_counter() - started
        if kind == "batch":
            self._free_slots.release()
            return value
        self._end = value
        raise value

    def close(self) -> None:
        """Stops the thread, then closes the iterator; `next` then raises StopIteration. Safe to call twice."""
        self._closing.set()
        self._free_slots.release()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._end = StopIteration()
        self._queue = queue.SimpleQueue()  # drop placed batches: they hold device memory
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> "DevicePrefetch[Host, Placed]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _produce(self) -> None:
        block_in_thread()
        try:
            while True:
                self._free_slots.acquire()
                if self._closing.is_set():
                    return
                self._queue.put(("batch", self._place(next(self._iterator))))
        except BaseException as error:  # StopIteration too: all reach the consumer
            self._queue.put(("end", error))
