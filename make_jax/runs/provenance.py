"""Where a number comes from: commit, device, versions, command, catalog."""

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
_OF_MODELS = {  # module -> what is installed; told where the model needed it
    "torch": "torch",
    "sentence_transformers": "sentence-transformers",
    "open_clip": "open_clip_torch",
}
_LONGEST_NOTE = 1 << 16  # bytes read of PROVENANCE.md


def metadata(catalog: Catalog, *, seed: int, command: str = "", **more: Any) -> dict[str, Any]:
    """What a result file says of itself; `command` is this program's own where it is empty, `more` is added."""
    import jax

    import make_jax

    devices = jax.devices()
    used = [name for module, name in _OF_MODELS.items() if module in sys.modules]
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
    """The commit of the source tree this runs from, with `+changes` when files differ; "" outside of one."""
    here = Path(__file__)
    try:
        _, head, status = (
            subprocess.run(
                ["git", "-C", str(here.parent), *words], capture_output=True, text=True, timeout=10, check=True
            )
            for words in (
                ["ls-files", "--error-unmatch", here.name],  # else an environment inside someone else's repository
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def _without_folders(argument: str) -> str:
    """An absolute path from here on, or its name alone: where somebody's files lie is nobody's business."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def query_source(catalog: Catalog) -> str:
    """What the catalog's PROVENANCE.md says after "Queries:" at the start of a line; else where to look."""
    if "PROVENANCE.md" not in catalog.source.sizes:
        return "The catalog does not say where its queries come from (it has no PROVENANCE.md)."
    with catalog.source.open("PROVENANCE.md") as file:
        text = file.read(_LONGEST_NOTE).decode("utf-8", errors="replace")
    found = re.search(r"^\W*queries:\W*(.*)$", text, re.IGNORECASE | re.MULTILINE)
    return found[1].strip() if found else "See PROVENANCE.md of the catalog."
