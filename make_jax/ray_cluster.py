"""The connection to a Ray cluster, and its errors as one line each. Imports ray only when connecting (extra [ray])."""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from make_jax.errors import InputError
from make_jax.extras import import_optional
from make_jax.signals import take_back_sigterm

_CONNECT_SECONDS = 5.0


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address`: host:port of its head node, or "auto".

    "auto" is the cluster that this machine is a node of. An existing connection of this process is used and kept.
    Raises InputError without the extra [ray], without a cluster at the address, and for one of another version.
    """
    ray = import_optional("ray", "ray", "--ray")
    if ray.is_initialized():
        yield ray
        return
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--ray {address}: no connection ({reason[:300]}), expected a running cluster that this machine is a node "
            "of; start one with `ray start` or correct the address"
        ) from None
    take_back_sigterm()  # Ray's handler prints a stack
    try:
        if not ray.cluster_resources().get("CPU"):
            print(f"--ray {address}: waiting for a node with CPUs", file=sys.stderr)
        yield ray
    finally:
        ray.shutdown()


def check_paths(paths: Sequence[Path]) -> None:
    """Raises InputError that names this node for a path that does not exist on it."""
    for path in paths:
        if not os.path.lexists(path):
            raise InputError(
                f"{path}: not found on the Ray node {socket.gethostname()}, expected a path on a file system that all "
                "nodes share"
            )


def input_error(error: Exception) -> Exception:
    """What to raise instead of a `ray.exceptions.RayError`: the exception of the job itself, or an InputError."""
    cause = getattr(error, "cause", None)
    text = " ".join(str(cause or error).split())
    if isinstance(cause, ImportError) or "failed to import" in text:
        return InputError(
            f"--ray: a node cannot import what this process runs ({text[-200:]}), expected make_jax with the same "
            "dependencies on all nodes"
        )
    if isinstance(cause, Exception):
        return cause
    return InputError(
        f"--ray: {type(error).__name__}: {text[:300]}; run the same command again, which does what is missing"
    )


def _check_address(address: str) -> None:
    """Raises InputError for an address that is malformed or where nothing listens; Ray would try it for long."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(f"--ray {address}: expected host:port of the cluster's head node, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--ray {address}: nothing answers there ({error}), expected the address that `ray start --head` printed"
        ) from None
