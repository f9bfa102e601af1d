"""Atomic and durable writes: write to a temporary path, fsync, rename."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PARTIAL = ".partial-"  # prefix of incomplete files and folders; never read, safe to delete


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replaces the file `path` by `content` atomically; on any error the old file is unchanged."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        _name_file(error, path)
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def folder_atomically(path: str | Path) -> Iterator[Path]:
    """Yields an empty temporary folder, renamed to `path` on success and removed on any error.

    `path` must not exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{path.name}-", dir=path.parent))
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        partial.chmod(0o755)
        partial.rename(path)
    except BaseException as error:
        _name_file(error, path)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes | str | Iterable[bytes]) -> None:
    """Writes a file, not atomically, and returns when it is on disk; parent folders are created.

    For files that are read only after another record marks them complete. Any OSError names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            if isinstance(content, str):
                content = content.encode("utf-8")
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        _name_file(error, path)
        raise


def _name_file(error: BaseException, path: Path) -> None:
    """Adds the path to an OSError without one, such as a full disk during a write."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)


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
