"""Placing batches ahead of the step."""

import threading
import time
from collections.abc import Iterator

import pytest

from make_jax.inputs.device import prefetch


class Counting:
    """0, 1, 2, ... up to `stop`, then `error` or the end; remembers whether it was closed."""

    def __init__(self, stop: int, error: Exception | None = None) -> None:
        self.stop, self.error = stop, error
        self.made, self.closed = 0, False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.made == self.stop:
            raise self.error or StopIteration
        self.made += 1
        return self.made - 1

    def close(self) -> None:
        self.closed = True


def double(value: int) -> int:
    return 2 * value


def wait_until_quiet(source: Counting) -> None:
    """Returns when the producer has stopped for want of room."""
    before = -1
    while source.made != before:
        before = source.made
        time.sleep(0.1)


def test_batches_come_in_order_and_placed_then_the_end() -> None:
    ahead = prefetch(Counting(5), double, 2)
    assert list(ahead) == [0, 2, 4, 6, 8]
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_at_most_depth_batches_wait(depth: int) -> None:
    source = Counting(100)
    with prefetch(source, double, depth) as ahead:
        wait_until_quiet(source)
        assert source.made == depth
        assert next(ahead) == 0
        wait_until_quiet(source)
        assert source.made == depth + 1


def test_exception_of_the_producer_reaches_the_consumer_after_the_batches_before_it() -> None:
    with prefetch(Counting(2, ValueError("bad row")), double, 4) as ahead:
        assert [next(ahead), next(ahead)] == [0, 2]
        for _ in range(2):  # and again, rather than a wait without end
            with pytest.raises(ValueError, match="bad row"):
                next(ahead)


def test_exception_of_place_reaches_the_consumer() -> None:
    def place(value: int) -> int:
        raise MemoryError("device is full")

    with prefetch(Counting(2), place, 1) as ahead, pytest.raises(MemoryError, match="device is full"):
        next(ahead)


def test_close_ends_the_thread_and_closes_the_iterator() -> None:
    source = Counting(100)
    before = threading.active_count()
    ahead = prefetch(source, double, 2)
    assert next(ahead) == 0
    ahead.close()
    assert threading.active_count() == before
    assert source.closed
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_seconds_waited_counts_the_wait_for_data_and_not_the_step() -> None:
    def slow(value: int) -> int:
        time.sleep(0.05)
        return value

    with prefetch(Counting(4), slow, 4) as ahead:
        next(ahead)
        assert 0.02 < ahead.seconds_waited < 2
        time.sleep(0.5)
        before = ahead.seconds_waited
        next(ahead)
        assert ahead.seconds_waited - before < 0.02


def test_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        prefetch(Counting(1), double, 0)
