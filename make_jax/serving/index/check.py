"""Verifies an index: `check_index(path)` reads every file and compares its checksum."""

from pathlib import Path
from typing import NamedTuple

from make_jax.errors import InputError
from make_jax.retrieval.top_k import Progress, no_progress
from make_jax.serving.index.manifest import Manifest, file_problem, read_manifest
from make_jax.serving.index.versions import BUILDING, current_version, version_folder, version_names


class Checked(NamedTuple):
    """The result of `check_index`."""

    lines: list[str]  # what each version is
    problems: list[str]  # one for each damaged or missing file


def check_index(path: Path, progress: Progress = no_progress) -> Checked:
    """Describes the versions of an index and lists its damaged and missing files, in all versions.

    Raises InputError for a folder that is no index.
    """
    lines: list[str] = []
    problems: list[str] = []
    names = version_names(path)
    current = ""
    try:
        current = current_version(path)
    except InputError as error:
        if not names:
            raise
        problems.append(str(error))
    if current and current not in names:
        problems.append(f"{path}/current: names {current}, which is missing; restore it or switch to another version")
    for name in names:
        folder = version_folder(path, name)
        try:
            manifest = read_manifest(folder)
        except InputError as error:
            problems.append(str(error))
            continue
        lines.append(_line(name, manifest, name == current))
        for done, file in enumerate(manifest.files, start=1):
            if problem := file_problem(folder / file, manifest.files[file]):
                problems.append(problem)
            progress(f"files of {name}", done, len(manifest.files))
    lines += [f"{building.name}: incomplete; the same `index` command continues" for building in _incomplete(path)]
    return Checked(lines, problems)


def _incomplete(path: Path) -> list[Path]:
    return sorted(path.glob(f"{BUILDING}*"))


def _line(name: str, manifest: Manifest, is_current: bool) -> str:
    size = sum(file.size for file in manifest.files.values())
    parts = [
        f"{name}{' (current)' if is_current else ''}: {manifest.count:,} products of {manifest.catalog.name}",
        f"model {manifest.model.name}",
        f"{len(manifest.updates)} update{'' if len(manifest.updates) == 1 else 's'}",
        f"{size / 1e6:,.1f} MB",
        f"built {manifest.created}",
    ]
    return ", ".join(parts)
