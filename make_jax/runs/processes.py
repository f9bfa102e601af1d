"""Several processes, one run: how they find each other, and what they must agree on.

Each process drives its own devices and reads its own rows of each batch; all run the same program and enter the same
collectives. They are found by explicit settings (`config.DistributedConfig`) or by what JAX reads of its environment:
SLURM, Open MPI, TPU pods, Kubernetes (docs/scaling.md has a recipe for each). Process 0 is the coordinator and the one
that writes. What happens when one of them dies stands in `runs/watch.py`.
"""

import itertools
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # its store has no public name
from jax.experimental import multihost_utils

from make_jax.config import DistributedConfig
from make_jax.errors import InputError, Terminated, tell
from make_jax.runs.watch import GONE, Watch, last_words, reachable

# Later than our own watch, which says more; JAX's would be 100 s, and a process 0 whose machine lost its power is only
# told by it.
HEARTBEAT = 45  # seconds

_SESSIONS = itertools.count()  # runs of this process; all processes count alike


class Processes:
    """The processes of a run; alone, everything here answers at once."""

    def __init__(self, index: int = 0, count: int = 1, keys: str = "") -> None:
        self.index, self.count = index, count
        self.step = 0  # the newest that was begun; the loop says so
        self.finished = False
        self._keys = keys  # prefix of this run's keys in the coordinator's store

    @property
    def is_coordinator(self) -> bool:
        """Whether this is process 0, which writes files and tells."""
        return self.index == 0

    def broadcast(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Process 0's numbers, in all processes: what they decide by must not differ in a last digit. All call it."""
        if self.count == 1:
            return dict(numbers)
        bits = np.array(list(numbers.values()), np.float64).view(np.uint32)  # devices have no float64
        told = np.asarray(multihost_utils.broadcast_one_to_all(bits)).view(np.float64)
        return dict(zip(numbers, told.tolist(), strict=True))

    def check_equal(self, what: Mapping[str, str], seconds: float = 3600.0) -> None:
        """InputError in a process whose texts differ from those of process 0, which may be `seconds` late."""
        if self.count == 1:
            return
        client = _store()
        for name, text in what.items():
            key = f"{self._keys}/same/{name}"
            if self.is_coordinator:
                client.key_value_set(key, text)
            elif client.blocking_key_value_get(key, round(1000 * seconds)) != text:
                raise InputError(
                    f"{name} of process {self.index} of {self.count} differs from that of process 0; "
                    "give all processes the same"
                )

    def finish(self) -> None:
        """All that the processes do together is done: from now on one may end before the others."""
        self.finished = True


@contextmanager
def init_distributed(settings: DistributedConfig, newest: Callable[[], int | None]) -> Iterator[Processes]:
    """The processes of this run, found and watched until the end of the block; before it no device may be in use.

    An exception that ends the block before `Processes.finish` ends the process there, as `errors.exit_cleanly` would:
    Python's own way out waits for processes that wait for this one.

    Args:
        settings: who the processes are; the defaults ask the environment.
        newest: the step of the newest checkpoint, for the message when a process is gone.

    Raises:
        InputError: the settings contradict the environment.
    """
    if not _started(settings):
        yield Processes()
        return
    index, count, keys = jax.process_index(), jax.process_count(), f"make_jax/{next(_SESSIONS)}"

    def advice() -> str:
        step = newest()
        again = "it begins anew, for no checkpoint was saved yet" if step is None else f"it goes on from step {step}"
        return f"at step {processes.step}; restart the job with the same command: {again}"

    watch: Watch | None = None

    def why_aborted() -> tuple[str, int] | None:
        gone = None if watch is None else watch.missing()
        if index != 0 and not reachable(distributed.global_state.coordinator_address or "", 3.0):
            gone = f"process 0 of {count}"
        return None if gone is None else (f"{gone} stopped answering {advice()}", GONE)

    processes = Processes(index, count, keys)
    with last_words(why_aborted):
        watch = Watch(_store(), index, count, f"{keys}/watch", advice)
        # Gloo gives the first collective 30 s to find all processes, who are together now and may not be so soon.
        multihost_utils.sync_global_devices(keys)
        try:
            yield processes
        except BaseException as error:
            if processes.finished:
                raise
            _end(watch, error)
        finally:
            watch.leave()


def _started(settings: DistributedConfig) -> bool:
    """Whether there are several processes, which have found each other."""
    if not jax.distributed.is_initialized() and settings.num_processes != 1:
        if settings.coordinator_address:
            _start(settings)
        else:
            _detect(settings.initialization_timeout)
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _start(s: DistributedConfig) -> None:
    """Starts what explicit settings say."""
    address, seconds = f"distributed.coordinator_address {s.coordinator_address}", s.initialization_timeout
    port = int(s.coordinator_address.rpartition(":")[2])
    if s.process_id == 0 and not _free(port):
        raise InputError(f"{address}: port {port} is in use here; set another one")
    until = time.monotonic() + seconds
    while s.process_id and not reachable(s.coordinator_address, 5.0):
        if time.monotonic() > until:
            raise InputError(f"{address}: not reachable within {seconds} s; is process 0 running?")
        time.sleep(0.2)
    missing = f"not all {s.num_processes} processes came within {seconds} s"
    missing += "; start each with its own distributed.process_id"
    with last_words(lambda: (f"{address}: {missing}", 2)):
        _initialize(
            seconds,
            coordinator_address=s.coordinator_address,
            num_processes=s.num_processes,
            process_id=s.process_id,
        )


def _detect(seconds: int) -> None:
    """Starts what the environment says; one that tells of no other process is no error."""
    told = (
        "the environment (SLURM, Open MPI, Kubernetes, TPU) tells of other processes, and not all came within "
        f"{seconds} s; start them all (with srun, mpirun), or set distributed.num_processes to 1"
    )
    with last_words(lambda: (told, 2)), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Kubernetes without its package: a pod may well be alone
        _initialize(seconds)


def _initialize(seconds: int, **explicit: Any) -> None:
    try:
        jax.distributed.initialize(initialization_timeout=seconds, heartbeat_timeout_seconds=HEARTBEAT, **explicit)
    except (ValueError, RuntimeError) as error:
        alone = "coordinator_address should be defined" in str(error) or "must be called before" in str(error)
        if explicit or not alone:
            said = " ".join(str(error).split())
            raise InputError(f"the processes did not find each other: {said}; see docs/scaling.md") from error


def _store() -> Any:
    """The coordinator's store of texts."""
    return distributed.global_state.client


def _free(port: int) -> bool:
    """Whether this machine can listen on a port: XLA's service crashes where it cannot."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _end(watch: Watch, error: BaseException) -> NoReturn:
    """Ends this process by its error, or by that of another one which is the reason of it."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if not isinstance(cause, InputError | Terminated | KeyboardInterrupt | OSError):
        watch.blame()  # a failed collective comes as a ValueError, a JaxRuntimeError, or what a library made of it
    code = tell(error)
    if code is None:
        traceback.print_exception(error)
        code = 1
    watch.failed(" ".join(str(error).split())[:500] or type(error).__name__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
