"""Runs of several processes: start-up, values that all processes agree on, and the exit of a failed process.

Each process drives its own devices and reads its own rows of each batch; all run the same program and enter the same
collectives. `jax.distributed` connects them by explicit settings (`config.DistributedConfig`) or by the environment of
SLURM, Open MPI, Kubernetes or a TPU pod (docs/scaling.md). Process 0 is the coordinator and the only one that writes
logs. `failure_detection.py` handles the loss of a process.
"""

import hashlib
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from make_jax import signals
from make_jax.config import DistributedConfig
from make_jax.errors import InputError, Terminated, print_error
from make_jax.runs.failure_detection import HEARTBEAT_TIMEOUT, PeerFailures, exit_on_abort


class Processes:
    """The processes of a run; with a single process every method returns at once.

    Attributes:
        index, count: this process and the number of processes.
        step: the last step begun, which the training loop sets; used in messages.
        finished: whether the processes need each other no more.
        forward_sigterm: hands a SIGTERM to `jax.distributed`; None if that receives it itself.
    """

    def __init__(self, index: int = 0, count: int = 1, forward_sigterm: Callable[[], None] | None = None) -> None:
        self.index, self.count, self.forward_sigterm = index, count, forward_sigterm
        self.step = 0
        self.finished = False

    @property
    def is_coordinator(self) -> bool:
        """Whether this is process 0, which writes files and logs."""
        return self.index == 0

    def broadcast(self, values: Mapping[str, float]) -> dict[str, float]:
        """Returns process 0's values in all processes, bit for bit. All processes must call it."""
        if self.count == 1:
            return dict(values)
        bits = np.array(list(values.values()), np.float64).view(np.uint32)  # devices have no float64
        received = np.asarray(multihost_utils.broadcast_one_to_all(bits)).view(np.float64)
        return dict(zip(values, received.tolist(), strict=True))

    def check_equal(self, texts: Mapping[str, str]) -> None:
        """Raises InputError in a process whose texts differ from those of process 0. All processes must call it."""
        if self.count == 1:
            return
        digests = [list(hashlib.sha256(text.encode()).digest()) for text in texts.values()]
        reference = np.asarray(multihost_utils.broadcast_one_to_all(np.array(digests, np.uint8))).tolist()
        for name, own, expected in zip(texts, digests, reference, strict=True):
            if own != expected:
                raise InputError(
                    f"{name} of process {self.index} of {self.count} differs from that of process 0; "
                    "give all processes the same"
                )

    def finish(self) -> None:
        """Marks the end of all shared work: from now on a process may end before the others."""
        self.finished = True


def in_any_process(flag: bool) -> bool:
    """Returns whether the flag is set in any process. All processes must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


@contextmanager
def init_distributed(
    settings: DistributedConfig, newest: Callable[[], int | None], folder: Path | None = None
) -> Iterator[Processes]:
    """Connects the processes of a run for the duration of the block. Must be entered before any device is used.

    An exception that leaves the block before `Processes.finish` ends the process there, with the message and exit code
    of `errors.exit_cleanly`: Python's normal exit waits for processes that wait for this one.

    Args:
        settings: address, number and index of the processes; the defaults read the environment.
        newest: returns the step of the newest checkpoint, for the message when a process is lost.
        folder: the run's folder, shared by all processes; they exchange the reason of a failure there.

    Raises:
        InputError: the settings contradict the environment, or the other processes cannot be reached.
    """
    if not _initialize_jax(settings):
        yield Processes()
        return
    processes = Processes(jax.process_index(), jax.process_count(), signals.take_back_sigterm())

    def advice() -> str:
        step = newest()
        again = "it starts anew, since no checkpoint was saved" if step is None else f"it resumes from step {step}"
        return f"at step {processes.step}; restart the job with the same command: {again}"

    failures = PeerFailures(processes.index, processes.count, folder, advice)
    signals.set_report(lambda line: None if processes.finished else failures.report(line))
    with exit_on_abort(lambda: None if processes.finished else failures.on_abort()):
        if processes.is_coordinator:
            failures.clear()
        try:
            _connect_devices()
            yield processes
        except BaseException as error:
            if processes.finished:
                raise
            _exit(failures, error)


def _initialize_jax(settings: DistributedConfig) -> bool:
    """Initializes `jax.distributed` unless it is; returns whether there are several processes."""
    if not jax.distributed.is_initialized() and settings.num_processes != 1:
        if settings.coordinator_address:
            _initialize_explicitly(settings)
        else:
            _initialize_from_environment(settings.initialization_timeout)
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _initialize_explicitly(s: DistributedConfig) -> None:
    where, timeout = f"distributed.coordinator_address {s.coordinator_address}", s.initialization_timeout
    port = int(s.coordinator_address.rpartition(":")[2])
    if s.process_id == 0 and not _is_free(port):
        raise InputError(f"{where}: port {port} is in use on this machine; set another one")
    end = time.monotonic() + timeout
    while s.process_id and not _is_reachable(s.coordinator_address):  # JAX would abort
        if time.monotonic() > end:
            raise InputError(f"{where}: not reachable within {timeout} s; is process 0 running?")
        time.sleep(0.2)
    missing = f"not all {s.num_processes} processes connected within {timeout} s"
    with exit_on_abort(lambda: (f"{where}: {missing}; start each with its own distributed.process_id", 2)):
        _call_initialize(
            timeout,
            coordinator_address=s.coordinator_address,
            num_processes=s.num_processes,
            process_id=s.process_id,
        )


def _initialize_from_environment(timeout: int) -> None:
    """Initializes from what JAX detects; an environment without other processes is no error."""
    missing = (
        "the environment (SLURM, Open MPI, Kubernetes, TPU) defines other processes, and not all connected within "
        f"{timeout} s; start them all (with srun, mpirun), or set distributed.num_processes to 1"
    )
    with exit_on_abort(lambda: (missing, 2)), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Kubernetes without its package: a pod may well be alone
        _call_initialize(timeout)


def _call_initialize(timeout: int, **explicit: Any) -> None:
    try:
        jax.distributed.initialize(
            initialization_timeout=timeout, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT, **explicit
        )
    except (ValueError, RuntimeError) as error:
        alone = "coordinator_address should be defined" in str(error) or "must be called before" in str(error)
        if explicit or not alone:
            reason = " ".join(str(error).split())
            raise InputError(f"the processes could not be connected: {reason}; see docs/scaling.md") from error


def _connect_devices() -> None:
    """Runs one collective over all devices. Gloo allows 30 s for the first one; compilation may take longer later."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
    ones = np.ones(mesh.size, np.float32)
    split = jax.make_array_from_callback(ones.shape, NamedSharding(mesh, PartitionSpec("devices")), ones.__getitem__)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(split))


def _is_reachable(address: str) -> bool:
    """Whether HOST:PORT accepts connections."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0):
            return True
    except OSError:
        return False


def _is_free(port: int) -> bool:
    """Whether this machine can listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _exit(failures: PeerFailures, error: BaseException) -> NoReturn:
    """Ends this process by its own error, or by the loss of another process that caused it."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if not isinstance(cause, InputError | Terminated | KeyboardInterrupt | OSError):
        failures.wait()  # a failed collective raises ValueError, JaxRuntimeError, or a library's own error
    code = print_error(error)
    if code is None:
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    failures.report(" ".join(str(error).split())[:500] or type(error).__name__)
    os._exit(code)
