"""Batches of concurrent calls: what arrives while one batch runs forms the next."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs a function of a list on the items that several threads submit, in its own thread.

    No item waits for others to arrive: an idle batcher starts at once with a batch of one. Items are processed in the
    order of their submission. For asyncio: `await asyncio.wrap_future(batcher.submit(item))`.
    """

    def __init__(
        self, function: Callable[[list[Item]], list[Result | Exception]], max_batch: int, name: str = "batcher"
    ) -> None:
        """`function` returns the result of each item, or the exception that its future raises; `max_batch` items.

        An exception of `function` itself is raised by the futures of that batch alone.
        """
        self._function, self._max_batch = function, max_batch
        self._queue: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of `_closed`: nothing is queued behind the end
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> "Future[Result]":
        """The future result of an item. A future that is cancelled before its batch starts is not computed.

        Raises RuntimeError after `close`.
        """
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.put((item, future))
        return future

    @property
    def waiting(self) -> int:
        """How many items wait for the current batch to end."""
        return self._queue.qsize()

    def close(self) -> None:
        """Returns when all submitted items are done; later submissions are refused."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            while len(batch) < self._max_batch and not self._queue.empty():
                batch.append(self._queue.get())  # this thread alone takes from the queue
            ended = None in batch
            pairs = [pair for pair in batch if pair is not None and pair[1].set_running_or_notify_cancel()]
            if pairs:
                self._process([item for item, _ in pairs], [future for _, future in pairs])

    def _process(self, items: list[Item], futures: "list[Future[Result]]") -> None:
        try:
            pairs = list(zip(futures, self._function(items), strict=True))
        except Exception as error:  # a bug must not end the thread, on which all later calls depend
            pairs = [(future, error) for future in futures]
        for future, result in pairs:
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
