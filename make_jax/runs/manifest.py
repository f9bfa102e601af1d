"""The digest manifest of a folder: its files with size and SHA-256.

Orbax loads a flipped bit silently, so a checkpoint has a manifest, written last and verified before loading. Each
process reads back the files that it wrote and leaves their digests in a part of the manifest: one process alone would
read as much as all of them wrote.
"""

import hashlib
import json
import os
from pathlib import Path

from make_jax.errors import InputError
from make_jax.files import sync_folder, write_atomically

NAME = "manifest.json"
_PART = "manifest-part-{}.json"


def write_part(folder: Path, written: Path, process: int) -> None:
    """Syncs every file in `written`, a folder inside `folder`, to disk, and leaves sizes and digests for `write`."""
    files = {path.relative_to(folder).as_posix(): _entry(path) for path in written.rglob("*") if path.is_file()}
    write_atomically(folder / _PART.format(process), json.dumps({"files": files}))


def write(folder: Path) -> None:
    """Syncs every file in `folder` to disk, then writes their sizes and digests to `folder`/manifest.json.

    Files that `write_part` listed are not read again; the parts are deleted. Raises OSError if one changed its size.
    """
    known: dict[str, dict[str, int | str]] = {}
    for path in folder.glob(_PART.format("*")):
        known |= json.loads(path.read_bytes())["files"]
        path.unlink()
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            sync_folder(path)
        elif name not in known:
            files[name] = _entry(path)
        elif known[name]["bytes"] == path.stat().st_size:
            files[name] = known[name]
        else:
            raise OSError(f"{path}: {path.stat().st_size} bytes, its process wrote {known[name]['bytes']}")
    if missing := known.keys() - files.keys():
        raise OSError(f"{folder / min(missing)}: missing, though its process wrote it")
    write_atomically(folder / NAME, json.dumps({"files": files}, indent=1) + "\n")


def verify(folder: Path) -> list[str]:
    """Returns the names of the files in `folder`'s manifest after checking that each is unchanged.

    Raises InputError with the first missing or damaged file; the manifest itself is one of them.
    """
    path = folder / NAME
    try:
        listed = {
            name: (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in json.loads(path.read_bytes())["files"].items()
        }
    except FileNotFoundError:
        raise InputError(f"{path}: missing, so the checkpoint is incomplete") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: damaged, expected a JSON list of files") from None
    for name, (size, digest) in listed.items():
        _verify_file(folder, name, size, digest)
    return list(listed)


def _verify_file(folder: Path, name: str, size: int, digest: str) -> None:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{folder / NAME}: damaged, names a file outside its folder: {name}")
    if not path.is_file():
        raise InputError(f"{path}: missing, expected {size} bytes")
    try:
        actual = path.stat().st_size
        if actual != size:
            raise InputError(f"{path}: damaged, {actual} bytes, expected {size}")
        if _digest(path, False) != digest:
            raise InputError(f"{path}: damaged, its SHA-256 differs from the manifest")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _entry(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": _digest(path, True)}


def _digest(path: Path, sync: bool) -> str:
    """SHA-256 of a file's content in hex; `sync` first writes the content through to the disk."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
