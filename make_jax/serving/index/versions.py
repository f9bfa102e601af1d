"""Which versions an index has, which one is current, and the lock of the process that writes."""

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from make_jax.errors import InputError
from make_jax.files import PARTIAL, exit_waits
from make_jax.serving.index.manifest import check_files, read_manifest, read_sealed, size_problem, write_sealed

CURRENT = "current"
BUILDING = "building-"  # prefix of incomplete versions
_LOCK = "lock"
_VERSIONS = "versions"
_NAME = re.compile(r"v([1-9][0-9]{0,8})")


def version_folder(index: Path, version: str) -> Path:
    """The folder of a version."""
    return index / _VERSIONS / version


def version_names(index: Path) -> list[str]:
    """The complete versions, oldest first."""
    folder = index / _VERSIONS
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted((name for name in names if _NAME.fullmatch(name)), key=_number)


def next_version(index: Path) -> str:
    """The name of a new version. No current version had it before, so that readers notice the change."""
    return f"v{_newest(index) + 1}"


def _newest(index: Path) -> int:
    """The highest number of the versions, and of those that were there when one became current."""
    highest = 0
    with contextlib.suppress(InputError):
        stored = read_sealed(index / CURRENT).get("newest")
        highest = stored if isinstance(stored, int) else 0
    return max([highest, *map(_number, version_names(index))])


def current_version(index: Path) -> str:
    """The version that readers open. Raises InputError for a folder that is no index."""
    path = index / CURRENT
    if not path.exists():
        if names := version_names(index):
            listed = ", ".join(names)
            raise InputError(f"{index}: no current version; choose one of {listed}: search.py switch {index} VERSION")
        raise InputError(f"{index}: not an index, expected a folder that `search.py index` wrote")
    version = read_sealed(path).get("version")
    if not isinstance(version, str) or not _NAME.fullmatch(version):
        raise InputError(f"{path}: version {version!r}, expected a name such as v1")
    return version


def check_version(index: Path, version: str) -> None:
    """Raises InputError if an index has no such version."""
    if version not in (names := version_names(index)):
        raise InputError(f"{index}: no version {version!r}, expected one of {', '.join(names) or '(none)'}")


def set_current(index: Path, version: str) -> None:
    """Makes readers open another version, atomically. Raises InputError if there is no such version."""
    check_version(index, version)
    write_sealed(index / CURRENT, {"version": version, "newest": _newest(index)})


def switch_version(index: Path, version: str) -> str | None:
    """As `set_current`, for a version whose files are all there; returns the version before, None if it had none.

    Raises InputError for an unknown version, for one that lacks a file, and while another process writes.
    """
    previous = None
    with writing(index, create=False):
        if version in version_names(index):
            folder = version_folder(index, version)
            check_files(folder, read_manifest(folder).files, size_problem)
        with contextlib.suppress(InputError):
            previous = current_version(index)
        set_current(index, version)
    return previous


@contextlib.contextmanager
def writing(index: Path, create: bool = True) -> Iterator[None]:
    """Locks the index for the process that writes, and removes what killed ones left. Readers need no lock.

    Raises InputError while another process writes, and without `create` for a folder that is no index.
    """
    if create:
        (index / _VERSIONS).mkdir(parents=True, exist_ok=True)
    elif not (index / _VERSIONS).is_dir():
        raise InputError(f"{index}: not an index, expected a folder that `search.py index` wrote")
    with (index / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{index}: another process is writing to this index; wait until it has ended") from None
        for folder in (index, index / _VERSIONS):
            remove_partial(folder)
        yield


def remove_versions(index: Path, keep: int, previous: str | None) -> list[str]:
    """Removes all but `keep` versions and returns their names: the current, the previous, then the newest ones stay."""
    current = current_version(index)
    order = sorted(version_names(index), key=lambda name: (name != current, name != previous, -_number(name)))
    removed = order[max(keep, 1) :]
    for name in removed:
        remove_folder(version_folder(index, name))
    return removed


def remove_folder(folder: Path) -> None:
    """Removes a folder; if the process is killed, it has gone already or is complete."""
    renamed = folder.with_name(f"{PARTIAL}{folder.name}-removed")
    with exit_waits():
        folder.rename(renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Removes temporary files and folders of processes that were killed."""
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    assert match
    return int(match[1])
