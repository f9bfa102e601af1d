"""Search by Qdrant Edge in a process of its own: `EdgeEngine`."""

import dataclasses
import json
import logging
import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from make_jax.errors import InputError
from make_jax.serving.engines import EngineQuery, EngineResult, Parts, Rows
from make_jax.serving.engines.edge_process import serve
from make_jax.serving.engines.edge_store import STATE
from make_jax.serving.engines.qdrant import QdrantSettings
from make_jax.serving.filters import Filter
from make_jax.worker_processes import start_resource_tracker

_SECONDS_TO_CLOSE = 30.0
_ATTEMPTS = 3  # of a call whose process ends
_log = logging.getLogger(__name__)


def stored_state(folder: Path) -> str | None:
    """The state of the products in a folder; None if it is missing or not complete."""
    try:
        state: str | None = json.loads((folder / STATE).read_text("utf-8")).get("state")
    except (OSError, ValueError):
        return None
    return state


class EdgeEngine:
    """An `Engine` whose vectors, BM25 and filters are in a folder on disk that Qdrant Edge searches.

    The folder is a copy: it is built from `parts` if it is missing, damaged or holds the products of another state, and
    may be deleted while no process has it open. A process that ends is started again, and the call repeated.
    """

    def __init__(self, folder: Path, settings: QdrantSettings, parts: Parts) -> None:
        """Opens or builds the folder. Raises InputError if another process has it open."""
        self._folder = folder
        self._settings = settings
        self._parts = parts
        self._updates: list[tuple[Rows, np.ndarray]] = []  # since `parts`, for a folder that must be built again
        self._lock = threading.Lock()  # of the connection: one call at a time
        try:
            self._process, self._connection = self._start()
        except EOFError:
            raise self._ended() from None

    def search(self, queries: Sequence[EngineQuery]) -> list[EngineResult]:
        """The result of each query; all of them are one request."""
        results: list[EngineResult] = self._call("search", list(queries))
        return results

    def matching(self, filter: Filter | None) -> Bool[np.ndarray, " rows"]:
        """Which rows exist and meet the filter."""
        return self._call("matching", filter)

    def attributes(self) -> dict[str, int]:
        """How many products have each attribute."""
        counts: dict[str, int] = self._call("attributes")
        return counts

    def update(
        self, replaced: Rows, deleted: Int64[np.ndarray, " n"], state: str = "", parts: Parts | None = None
    ) -> None:
        """Replaces and appends rows, then deletes rows; the folder then holds the products of `state`."""
        self._call("update", replaced, deleted, state)
        if parts is None:
            self._updates.append((replaced, deleted))
        else:
            self._parts, self._updates = parts, []
        self._settings = dataclasses.replace(self._settings, state=state, repeats_update=False)

    def close(self) -> None:
        """Closes the folder and ends the process."""
        with self._lock:
            if self._process.is_alive():
                try:
                    self._connection.send(("close", ()))
                    self._connection.recv()
                except (EOFError, OSError):  # it has ended meanwhile
                    pass
            self._connection.close()
            self._process.join(_SECONDS_TO_CLOSE)
            self._kill()

    def _call(self, name: str, *arguments: Any) -> Any:
        with self._lock:
            for attempt in range(_ATTEMPTS):
                try:
                    if attempt:
                        self._restart(repeats_update=name == "update")
                    self._connection.send((name, arguments))
                    kind, value = self._connection.recv()
                    break
                except (EOFError, OSError) as error:  # the process has ended, perhaps in the middle of its answer
                    if attempt == _ATTEMPTS - 1:
                        raise self._ended() if isinstance(error, EOFError) else error from None
        if kind == "error":
            raise value
        return value

    def _restart(self, repeats_update: bool) -> None:
        self._connection.close()
        self._kill()
        _log.warning("%s: the process of Qdrant Edge ended; starting it again", self._folder)
        self._process, self._connection = self._start(repeats_update)

    def _ended(self) -> InputError:
        return InputError(
            f"{self._folder}: the process of Qdrant Edge ended while it opened or searched the folder, perhaps for "
            "want of memory or space on the disk; otherwise delete the folder while no server runs, and it is made "
            "again from the index"
        )

    def _start(self, repeats_update: bool = False) -> tuple[BaseProcess, Connection]:
        """Starts the process and sends it the products, if it needs them."""
        settings = self._settings
        if repeats_update:
            settings = dataclasses.replace(settings, repeats_update=True)
        start_resource_tracker()
        context = multiprocessing.get_context("spawn")
        connection, other_end = context.Pipe()
        process = context.Process(
            target=serve, args=(other_end, self._folder, settings), name="qdrant-edge", daemon=True
        )
        process.start()
        other_end.close()  # so that the end of the process is the end of the connection
        Finalize(self, _end, (process,), exitpriority=10)  # before the exit of Python waits for it
        while True:
            kind, value = connection.recv()
            if kind == "error":
                process.join()
                raise value
            if kind == "ready":
                break
            for part in self._parts():
                connection.send(part)
            connection.send(None)
        if value:
            for replaced, deleted in self._updates:
                connection.send(("update", (replaced, deleted, self._settings.state)))
                connection.recv()
        return process, connection

    def _kill(self) -> None:
        _end(self._process)


def _end(process: BaseProcess) -> None:
    """Kills a process; what it has written is complete (write-ahead log)."""
    if process.is_alive():
        process.kill()
        process.join()
