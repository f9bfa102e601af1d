"""The cache of built catalogs: one folder a content digest, with locks and removal of stale or partial folders."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO

from make_jax.files import PARTIAL, cache_home, write_atomically
from make_jax.object_stores import BUILDS, Mirror, is_url, local_path

UNWRITABLE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_DIGEST = "[0-9a-f]{16}"
_SECONDS_TO_OPEN = 5.0  # opening a complete build takes less, on a busy machine too; a longer wait is for a new build


def cache_root(cache: str = "") -> Path:
    """The folder of all built catalogs: `cache`, or the mirror of a URL; "" is `files.cache_home`."""
    return local_path(cache) if cache else cache_home()


def folder_name(name: str, digest: str) -> str:
    """The folder name of a built catalog: a safe form of its name and the first 16 digits of its digest."""
    return f"{_safe(name)}-{digest[:16]}"


@contextlib.contextmanager
def build_lock(root: Path, name: str) -> Iterator[None]:
    """Holds the lock for building catalogs of this name in `root`; waits while another process holds it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{_safe(name)}.lock").open("w") as lock:
        if not _acquired_within(lock, _SECONDS_TO_OPEN):
            print(f"waiting for another process that is building {name} in {root}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _acquired_within(lock: IO[str], seconds: float) -> bool:
    """Whether the exclusive lock of a file was acquired in this time."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)


def lock_for_reading(owner: object, file: Path) -> None:
    """Prevents other processes from removing the built folder of `file` until `owner` is garbage-collected."""
    descriptor = os.open(file, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    weakref.finalize(owner, os.close, descriptor)


def partial_folder(root: Path, name: str, key: str) -> Path:
    """Where a catalog of this name is built from a source identified by `key`; a later build goes on in it.

    Partial folders of other sources of this name are removed. The caller must hold `build_lock`.
    """
    chosen = root / f"{PARTIAL}{_safe(name)}-{key[:16]}"
    pattern = re.compile(rf"{re.escape(PARTIAL + _safe(name))}-{_DIGEST}(-\w+)?")
    for folder in root.iterdir():
        if folder != chosen and pattern.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    return chosen


def built_folders(root: Path, name: str | None = None) -> list[Path]:
    """All complete builds of catalogs of this name (None: of any), of any digest."""
    pattern = re.compile(rf"{'[A-Za-z0-9_-]+' if name is None else re.escape(_safe(name))}-{_DIGEST}")
    return sorted(folder for folder in root.iterdir() if pattern.fullmatch(folder.name))


def pull_build_of(cache: str, stamp: str) -> None:
    """Downloads the builds in a cache that is a URL whose columns were made from the files with this stamp."""
    if not is_url(cache):
        return
    mirror = Mirror(cache, BUILDS)
    for name in mirror.stored():
        folder, _, file = name.partition("/")
        if file == "columns/columns.json" and stamp in json.loads(mirror.read(name)).get("stamps", ()):
            pull_build(cache, folder)


def pull_build(cache: str, folder: str) -> None:
    """Downloads the build of this name, if there is one, from a cache that is a URL."""
    if is_url(cache):
        Mirror(cache, BUILDS).pull(lambda name: name.startswith(f"{folder}/"))


def push_build(cache: str, folder: Path) -> None:
    """Uploads a build to a cache that is a URL."""
    if is_url(cache):
        Mirror(cache, BUILDS).push(lambda name: name.startswith(f"{folder.name}/"))


def remove_built(folder: Path, locked: str) -> bool:
    """Removes a built folder unless its file `locked` is locked. Readers never see a partly removed folder."""
    partial = folder.with_name(f"{PARTIAL}{folder.name}-old")
    with contextlib.ExitStack() as stack:
        if (folder / locked).exists():
            file = stack.enter_context((folder / locked).open("rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        folder.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)
    return True


def remembered(root: Path, key: Sequence[object], modules: Sequence[ModuleType], make: Callable[[], str]) -> str:
    """The text that `make` returns, from a file in `root` if it was made before from the same `key`.

    The text must be a function of `key` and of the code in `modules`, which the file's name depends on too.
    """
    sha = hashlib.sha256(json.dumps(key, default=str).encode("utf-8"))
    for module in modules:
        sha.update(Path(module.__file__ or "").read_bytes())
    path = root / "vocabularies" / sha.hexdigest()[:32]
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = make()
    with contextlib.suppress(OSError):  # a full disk costs time at the next start and nothing else
        write_atomically(path, text)
    return text


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:60] or "catalog"
