"""The process that has a Qdrant Edge folder open; `edge.EdgeEngine` starts it and sends it calls.

It ignores Ctrl-C and SIGTERM, which its parent handles, and ends with its parent.

    parent -> process    (name of a method of QdrantEngine, arguments)
    process -> parent    ("ready", whether the folder was built) once, then ("result", value) or ("error", exception)
    process -> parent    ("rows", None), while the folder is built: the parent sends all Rows, then None
"""

import fcntl
import shutil
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from make_jax.errors import InputError
from make_jax.serving.engines import FolderInUseError, Rows
from make_jax.serving.engines.edge_store import STATE, EdgeStore
from make_jax.serving.engines.qdrant import QdrantEngine, QdrantSettings
from make_jax.worker_processes import start_worker


def serve(connection: Connection, folder: Path, settings: QdrantSettings) -> None:
    """Opens or builds the folder, then answers calls until the connection is closed."""
    start_worker()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            _lock(lock, folder)
            engine, built = _open(connection, folder, settings)
        except Exception as error:
            connection.send(("error", _portable(error)))
            return
        connection.send(("ready", built))
        while (call := _next_call(connection)) is not None:
            name, arguments = call
            try:
                answer = ("result", getattr(engine, name)(*arguments))
            except Exception as error:
                answer = ("error", _portable(error))
            connection.send(answer)


def _next_call(connection: Connection) -> tuple[str, tuple[Any, ...]] | None:
    try:
        call: tuple[str, tuple[Any, ...]] = connection.recv()
    except EOFError:
        return None
    return call


def _portable(error: Exception) -> Exception:
    """An exception that can be sent: those of libraries may not be."""
    return error if isinstance(error, InputError | OSError) else RuntimeError(f"{type(error).__name__}: {error}")


def _lock(file: Any, folder: Path) -> None:
    """The kernel releases the lock when the process ends in any way."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUseError(
            f"{folder}: open in another process, and only one can have it open; stop that one, or use engine flat"
        ) from None


def _open(connection: Connection, folder: Path, settings: QdrantSettings) -> tuple[QdrantEngine, bool]:
    """The engine, and whether the folder had to be built, because it was new, incomplete, damaged or out of date."""
    try:
        store = EdgeStore(folder, settings.width)
        if QdrantEngine.is_complete(store, settings):
            return QdrantEngine(store, settings), False
        store.close()
    except InputError:
        raise
    except BaseException:  # a damaged shard: an exception of some type, or a panic, which is no Exception
        pass
    (folder / STATE).unlink(missing_ok=True)  # first, so that what is left is not taken for complete
    shutil.rmtree(folder / "shard", ignore_errors=True)

    def parts() -> Iterator[Rows]:
        connection.send(("rows", None))
        while (part := connection.recv()) is not None:
            yield part

    return QdrantEngine.load(EdgeStore(folder, settings.width), settings, parts), True
