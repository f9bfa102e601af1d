"""Concurrent calls share batches; errors and cancellations concern their own call."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from make_jax.serving.batching import Batcher


class Doubler:
    """Doubles numbers, records batches, and waits before the first until `release` is set; odd numbers fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started, self.release = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        self.started.set()
        assert self.release.wait(30)
        if 13 in items:
            raise RuntimeError("a bug")
        return [ValueError(f"{item} is odd") if item % 2 else 2 * item for item in items]


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def batcher(doubler):
    made = Batcher(doubler, max_batch=3)
    yield made
    doubler.release.set()
    made.close()


def test_calls_that_arrive_during_a_batch_share_the_next_in_order_up_to_the_limit(doubler, batcher):
    first = batcher.submit(2)
    assert doubler.started.wait(30)
    later = [batcher.submit(item) for item in (4, 6, 8, 10)]
    assert batcher.waiting == 4
    doubler.release.set()
    assert [future.result(30) for future in (first, *later)] == [4, 8, 12, 16, 20]
    assert doubler.batches == [[2], [4, 6, 8], [10]]


def test_an_error_concerns_its_own_call_and_a_bug_its_own_batch(doubler, batcher):
    doubler.release.set()
    with pytest.raises(ValueError, match="3 is odd"):
        batcher.submit(3).result(30)
    with pytest.raises(RuntimeError, match="a bug"):
        batcher.submit(13).result(30)
    assert batcher.submit(2).result(30) == 4


def test_a_wrong_number_of_results_is_an_error_of_the_batch():
    batcher = Batcher(lambda items: [], max_batch=2)
    with pytest.raises(ValueError, match="shorter"):
        batcher.submit(1).result(30)
    batcher.close()


def test_a_cancelled_call_is_not_computed(doubler, batcher):
    batcher.submit(2)
    assert doubler.started.wait(30)
    cancelled, kept = batcher.submit(4), batcher.submit(6)
    assert cancelled.cancel()
    doubler.release.set()
    assert kept.result(30) == 12
    assert doubler.batches == [[2], [6]]


def test_close_finishes_what_was_submitted_and_refuses_more(doubler, batcher):
    futures = [batcher.submit(item) for item in (2, 4, 6, 8, 10)]
    doubler.release.set()
    batcher.close()
    assert [future.done() for future in futures] == [True] * 5
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(2)
    batcher.close()  # again is harmless


def test_many_threads_and_asyncio_get_their_own_results(doubler, batcher):
    doubler.release.set()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda i: batcher.submit(2 * i).result(30), range(200))) == [4 * i for i in range(200)]

    async def gather() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(batcher.submit(2 * i)) for i in range(20)))

    assert asyncio.run(gather()) == [4 * i for i in range(20)]
