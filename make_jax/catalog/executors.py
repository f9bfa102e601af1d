"""Runs jobs in this process, in local processes, or on a Ray cluster; results are in the order of the jobs."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from make_jax import ray_cluster
from make_jax.worker_processes import start_resource_tracker, start_worker

R = TypeVar("R")


class Executor(ABC):
    """Runs picklable functions on picklable arguments. Jobs write files to a file system that all workers share."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """Number of jobs that run at the same time."""

    def share(self, value: R) -> R:
        """What to pass to jobs in place of a value that many of them read."""
        return value

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

    @property
    def workers(self) -> int:
        """One."""
        return 1

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
        self._workers = workers

    @property
    def workers(self) -> int:
        """Processes of the pool."""
        return self._workers

    def submit(self, function: Callable[..., R], *arguments: Any) -> Callable[[], R]:
        """Starts a job in the pool."""
        future: Future[R] = self._pool.submit(function, *arguments)
        return future.result


class RayTasks(Executor):
    """Tasks of one CPU on a Ray cluster, which repeats those of killed workers, up to three times each."""

    def __init__(self, ray: Any, paths: Sequence[Path]) -> None:
        """`ray` is connected; `paths` are those that jobs read and write, which each node must see."""
        self._ray = ray
        self._task = ray.remote(num_cpus=1)(_run)
        self._paths = tuple(paths)

    @property
    def workers(self) -> int:
        """CPUs that the cluster has now."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def share(self, value: R) -> R:
        """A reference to a copy in the object store, which each node fetches once."""
        reference: R = self._ray.put(value)
        return reference

    def submit(self, function: Callable[..., R], *arguments: Any) -> Callable[[], R]:
        """Starts a task."""
        reference = self._task.remote(self._paths, function, *arguments)

        def result() -> R:
            try:
                value: R = self._ray.get(reference)
                return value
            except self._ray.exceptions.RayError as error:
                raise ray_cluster.input_error(error) from None

        return result


def _run(paths: tuple[Path, ...], function: Callable[..., R], *arguments: Any) -> R:
    ray_cluster.check_paths(paths)
    return function(*arguments)


@contextmanager
def open_executor(workers: int = 0, ray: str = "", paths: Sequence[Path] = ()) -> Iterator[Executor]:
    """Workers for a `with` block: `workers` local processes (0: one a core), or the Ray cluster at the address `ray`.

    `paths` are absolute, and exist on each node of the cluster when a job runs. Raises InputError as `connected` of
    `ray_cluster.py`.
    """
    if ray:
        with ray_cluster.connected(ray) as library:
            yield RayTasks(library, paths)
        return
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield InProcess()
        return
    start_resource_tracker()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), start_worker)
    try:
        yield LocalProcesses(pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)
