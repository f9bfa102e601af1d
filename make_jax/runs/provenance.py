"""Metadata of result files: commit, device, versions, command, catalog."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_jax.catalog.reader import Catalog

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "ir-measures", "pytrec_eval-terrier", "bm25s")
_MODEL_LIBRARIES = {  # module -> distribution; listed if the model imported it
    "torch": "torch",
    "sentence_transformers": "sentence-transformers",
    "open_clip": "open_clip_torch",
}
_MAX_NOTE = 1 << 16  # bytes read of PROVENANCE.md


def metadata(catalog: Catalog, *, seed: int, command: str = "", **more: Any) -> dict[str, Any]:
    """Returns the metadata of a result file; `command` defaults to this program's command line, `more` is added."""
    import jax

    import make_jax

    devices = jax.devices()
    used = [name for module, name in _MODEL_LIBRARIES.items() if module in sys.modules]
    versions = {name: importlib.metadata.version(name) for name in (*_LIBRARIES, *used)}
    return {
        "commit": commit(),
        "make_jax": make_jax.__version__,
        "python": platform.python_version(),
        "versions": versions,
        "device": f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "command": command or shlex.join(["python", *map(_without_folders, sys.argv)]),
        "seed": seed,
        "catalog": {
            "name": catalog.info.name,
            "title": catalog.info.title,
            "licence": catalog.info.licence,
            "digest": catalog.digest,
            "queries_from": query_source(catalog),
        },
        **more,
    }


def commit() -> str:
    """Returns the commit of the source tree, with `+changes` if files differ; "" outside of a repository."""
    source = Path(__file__)
    try:
        _, head, status = (
            subprocess.run(
                ["git", "-C", str(source.parent), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
            for arguments in (
                ["ls-files", "--error-unmatch", source.name],  # fails in an environment inside another repository
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _without_folders(argument: str) -> str:
    """An absolute path relative to the working folder, or its name only: published files keep folders private."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def query_source(catalog: Catalog) -> str:
    """Returns the text after "Queries:" at a line's start in the catalog's PROVENANCE.md, or where to look."""
    if "PROVENANCE.md" not in catalog.source.sizes:
        return "The catalog does not state the source of its queries (it has no PROVENANCE.md)."
    with catalog.source.open("PROVENANCE.md") as file:
        text = file.read(_MAX_NOTE).decode("utf-8", errors="replace")
    match = re.search(r"^\W*queries:\W*(.*)$", text, re.IGNORECASE | re.MULTILINE)
    return match[1].strip() if match else "See PROVENANCE.md of the catalog."
