"""Atomic and durable writes: write to a temporary path, fsync, rename."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from make_jax import signals

PARTIAL = ".partial-"  # prefix of incomplete files and folders; never read, safe to delete

_temporary: set[Path] = set()  # paths that this process is writing
_lock = threading.Lock()  # held to create, rename and remove them


def cache_home() -> Path:
    """The folder for what can be made again: $XDG_CACHE_HOME/make_jax, else ~/.cache/make_jax."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"  # the standard ignores relative values
    return base / "make_jax"


def write_atomically(path: str | Path, content: bytes | memoryview | str) -> None:
    """Replaces the file `path` by `content` atomically; on any error the old file is unchanged."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with _naming(path), removed_on_exit(partial(_empty_file, path.parent)) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        with _lock:
            temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def folder_atomically(path: str | Path) -> Iterator[Path]:
    """Yields an empty temporary folder, renamed to `path` on success and removed on any error.

    `path` must not exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    make = partial(tempfile.mkdtemp, prefix=f"{PARTIAL}{path.name}-", dir=path.parent)
    with _naming(path), removed_on_exit(make) as temporary:
        yield temporary
        publish_folder(temporary, path)


def publish_folder(complete: Path, path: Path) -> None:
    """Writes the folder `complete` to disk (fsync) and renames it to `path`, which must not exist."""
    for file in complete.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    complete.chmod(0o755)
    with _lock:
        complete.rename(path)
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes | str | Iterable[bytes]) -> None:
    """Writes a file, not atomically, and returns when it is on disk; parent folders are created.

    For files that are read only after another record marks them complete. Any OSError names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), path.open("wb") as file:
        if isinstance(content, str):
            content = content.encode("utf-8")
        file.writelines([content] if isinstance(content, bytes) else content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def removed_on_exit(make: Callable[[], str | Path]) -> Iterator[Path]:
    """Yields the path that `make` returns and removes it after the block, also if a signal ends the process in it."""
    with _lock:
        path = Path(make())
        _temporary.add(path)
    try:
        yield path
    finally:
        with _lock:
            _remove(path)
            _temporary.discard(path)


@contextlib.contextmanager
def exit_waits() -> Iterator[None]:
    """A signal that ends the process waits for the block, which must take less than a second."""
    with _lock:
        yield


def _empty_file(folder: Path) -> str:
    handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=folder)
    os.close(handle)
    return name


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_all_temporary() -> None:
    """Removes all temporary paths. A thread that ends its own waits for the lock, until the process ends."""
    _lock.acquire()
    for path in _temporary:
        renamed = path.with_name(f"{path.name}-removed")  # other threads can create no file by the old name any more
        with contextlib.suppress(OSError):
            path.rename(renamed)
        for _ in range(10):  # for a file whose creation had begun
            _remove(renamed)
            if not renamed.exists():
                break


signals.before_exit(_remove_all_temporary)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Adds the path to an OSError without one, such as a full disk during a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(path: Path) -> None:
    """Makes renames in the folder `path` durable (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_digest(folder: Path) -> str:
    """SHA-256, in hex, of the names and contents of all files below a folder."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        sha.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return sha.hexdigest()
