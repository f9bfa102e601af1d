"""A name of a model in a folder that changes when its files do."""

import hashlib
from pathlib import Path


def folder_digest(folder: Path) -> str:
    """SHA-256, in hex, of the names and contents of all files below a folder."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        sha.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return sha.hexdigest()
