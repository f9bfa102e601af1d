"""Reads all files of a folder, for comparisons."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file of a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
