"""Batches placed on devices ahead of the step."""

import threading
import time
from collections.abc import Iterator

import pytest

from make_jax.inputs.device import DevicePrefetch


class Counting:
    """Yields 0, 1, 2, ... up to `stop`, then raises `error` or ends; records whether it was closed."""

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


def wait_until_blocked(source: Counting) -> None:
    """Returns when the producer waits for a free slot."""
    before = -1
    while source.made != before:
        before = source.made
        time.sleep(0.1)


def test_placed_batches_come_in_order_then_the_iterator_ends() -> None:
    prefetched = DevicePrefetch(Counting(5), double, 2)
    assert list(prefetched) == [0, 2, 4, 6, 8]
    with pytest.raises(StopIteration):
        next(prefetched)
    prefetched.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_at_most_depth_batches_are_placed_ahead(depth: int) -> None:
    source = Counting(100)
    with DevicePrefetch(source, double, depth) as prefetched:
        wait_until_blocked(source)
        assert source.made == depth
        assert next(prefetched) == 0
        wait_until_blocked(source)
        assert source.made == depth + 1


def test_exception_of_the_producer_reaches_the_consumer_after_the_batches_before_it() -> None:
    with DevicePrefetch(Counting(2, ValueError("bad row")), double, 4) as prefetched:
        assert [next(prefetched), next(prefetched)] == [0, 2]
        for _ in range(2):  # again, instead of blocking forever
            with pytest.raises(ValueError, match="bad row"):
                next(prefetched)


def test_exception_of_place_reaches_the_consumer() -> None:
    def place(value: int) -> int:
        raise MemoryError("device is full")

    with DevicePrefetch(Counting(2), place, 1) as prefetched, pytest.raises(MemoryError, match="device is full"):
        next(prefetched)


def test_close_stops_the_thread_and_closes_the_iterator() -> None:
    source = Counting(100)
    before = threading.active_count()
    prefetched = DevicePrefetch(source, double, 2)
    assert next(prefetched) == 0
    prefetched.close()
    assert threading.active_count() == before
    assert source.closed
    with pytest.raises(StopIteration):
        next(prefetched)
    prefetched.close()


def test_seconds_waited_counts_the_wait_for_data_and_not_the_step() -> None:
    def slow(value: int) -> int:
        time.sleep(0.05)
        return value

    with DevicePrefetch(Counting(4), slow, 4) as prefetched:
        next(prefetched)
        assert 0.02 < prefetched.seconds_waited < 2
        time.sleep(0.5)
        before = prefetched.seconds_waited
        next(prefetched)
        assert prefetched.seconds_waited - before < 0.02


def test_a_depth_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="depth"):
        DevicePrefetch(Counting(1), double, 0)
