"""Where built catalogs are kept, one folder a digest, and how old and half-written ones go away."""

import contextlib
import fcntl
import os
import re
import shutil
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from make_jax.files import PARTIAL

_DIGEST = "[0-9a-f]{16}"


def cache_root(cache: str = "") -> Path:
    """The folder that built catalogs go to: `cache`, else $XDG_CACHE_HOME/make_jax, else ~/.cache/make_jax."""
    if cache:
        return Path(cache)
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"  # relative values are to be ignored
    return base / "make_jax"


def folder_name(name: str, digest: str) -> str:
    """The name of the built folder of a catalog: its own name, made safe, and the start of its digest."""
    return f"{_safe(name)}-{digest[:16]}"


@contextlib.contextmanager
def only_builder(root: Path, name: str) -> Iterator[None]:
    """While inside, no other process builds a catalog of this name in `root`; waits for one that does."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{_safe(name)}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that builds {name} in {root}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hold(owner: object, file: Path) -> None:
    """Keeps the built folder of `file` from being removed by other processes as long as `owner` lives."""
    descriptor = os.open(file, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    weakref.finalize(owner, os.close, descriptor)


def remove_partial(root: Path, name: str) -> None:
    """Removes what interrupted builds of this name left. Only for who is inside `only_builder`."""
    pattern = re.compile(rf"{re.escape(PARTIAL + _safe(name))}-{_DIGEST}-\w+")
    for folder in root.iterdir():
        if pattern.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def built_folders(root: Path, name: str) -> list[Path]:
    """All whole builds of catalogs of this name, whatever their digest."""
    pattern = re.compile(rf"{re.escape(_safe(name))}-{_DIGEST}")
    return sorted(folder for folder in root.iterdir() if pattern.fullmatch(folder.name))


def remove_built(folder: Path, held: str) -> bool:
    """Removes a built folder unless someone holds its file `held`. A reader never sees it half removed."""
    partial = folder.with_name(f"{PARTIAL}{folder.name}-old")
    with contextlib.ExitStack() as stack:
        if (folder / held).exists():
            file = stack.enter_context((folder / held).open("rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        folder.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:60] or "catalog"
