"""What a folder holds, to compare it with another."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path inside."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
