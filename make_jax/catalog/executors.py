"""Runs jobs in this process, in local processes, or on a Ray cluster; results are in the order of the jobs."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from make_jax.errors import InputError
from make_jax.extras import import_optional

R = TypeVar("R")


class Executor(ABC):
    """Runs picklable functions on picklable arguments. Jobs write files to a file system that all workers share."""

    workers: int  # jobs that run at the same time

    @abstractmethod
    def submit(self, function: Callable[..., R], *arguments: Any) -> Callable[[], R]:
        """Starts a job; returns a function that waits for its result or raises its exception."""

    def map(self, function: Callable[..., R], jobs: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """The results of the jobs, in their order. At most two jobs a worker are in memory."""
        pending: deque[Callable[[], R]] = deque()
        for arguments in jobs:
            pending.append(self.submit(function, *arguments))
            if len(pending) > 2 * self.workers:
                yield pending.popleft()()
        while pending:
            yield pending.popleft()()


class InProcess(Executor):
    """Runs each job when it is submitted."""

    workers = 1

    def submit(self, function: Callable[..., R], *arguments: Any) -> Callable[[], R]:
        """Runs the job."""
        result = function(*arguments)
        return lambda: result

    def map(self, function: Callable[..., R], jobs: Iterable[tuple[Any, ...]]) -> Iterator[R]:
        """The results of the jobs, each run when its result is read."""
        return (function(*arguments) for arguments in jobs)


class LocalProcesses(Executor):
    """A pool of processes, which start with the first jobs."""

    def __init__(self, pool: ProcessPoolExecutor, workers: int) -> None:
        self._pool = pool
        self.workers = workers

    def submit(self, function: Callable[..., R], *arguments: Any) -> Callable[[], R]:
        """Starts a job in the pool."""
        future: Future[R] = self._pool.submit(function, *arguments)
        return future.result


class RayTasks(Executor):
    """Tasks of one CPU on the connected Ray cluster, which repeats the tasks of killed workers."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, function: Callable[..., R], *arguments: Any) -> Callable[[], R]:
        """Starts a task."""
        reference = self._ray.remote(function).remote(*arguments)

        def result() -> R:
            try:
                value: R = self._ray.get(reference)
                return value
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayError as error:
                raise InputError(f"Ray: {type(error).__name__}, expected running workers; start it again") from error

        return result


@contextmanager
def open_executor(workers: int = 0, ray: str = "") -> Iterator[Executor]:
    """Workers for a `with` block: `workers` local processes (0: one a core), or the Ray cluster at the address `ray`.

    "auto" is the cluster that runs on this machine. Raises InputError without Ray or a cluster at the address.
    """
    if ray:
        library = import_optional("ray", "ray", "--ray")
        connected = library.is_initialized()
        if not connected:
            try:
                library.init(address=ray, log_to_driver=False, logging_level="error")
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"--ray {ray}: no Ray cluster ({reason}), expected its address or auto") from None
        try:
            yield RayTasks(library)
        finally:
            if not connected:
                library.shutdown()
        return
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield InProcess()
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        yield LocalProcesses(pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)
