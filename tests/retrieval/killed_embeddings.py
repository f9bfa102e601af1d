"""Kills embedding at many lines of its code. A separate program, because it forks, which a process with JAX must not.

    python -m tests.retrieval.killed_embeddings CATALOG FOLDER POINTS

Embeds once without interruption into FOLDER/complete. Then, for POINTS evenly spaced executed lines, and for the first
time that each line of writing is reached, a new process embeds until that line, where it kills itself; the next process
runs to the end. Prints, as JSON, how many processes were killed, how many left a partial file, and how many folders
differ from the complete one.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.retrieval.embed_to_disk import embed_to_disk
from make_jax.retrieval.vectors.shards import VectorFolder
from tests.retrieval.fake_encoder import FakeEncoder

WATCHED = tuple(os.sep + name for name in ("shards.py", "embed_to_disk.py", "files.py"))
WRITING = (
    "prepare_folder",
    "write_atomically",
    "write_durably",
    "_replace",
    "write_shard",
    "claim_shard",
    "embed_to_disk",
)
os.fsync = lambda descriptor: None  # what a killed process has written stays without it


class Trace:
    """Counts executed lines, and kills the process at one of them."""

    def __init__(self, until: int = -1) -> None:
        self.until = until
        self.count = 0
        self.writing: dict[tuple[str, int], int] = {}  # lines of writing, and the count at which each was first reached

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """The trace function of sys.settrace."""
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            if self.count == self.until:
                os.kill(os.getpid(), signal.SIGKILL)
            if frame.f_code.co_name in WRITING:
                self.writing.setdefault((frame.f_code.co_name, frame.f_lineno), self.count)
            self.count += 1
        return self


def run(catalog: Catalog, folder: Path, trace: Trace | None = None) -> None:
    """Embeds the catalog once."""
    sys.settrace(trace)
    embed_to_disk(FakeEncoder(), catalog, catalog.products, folder, "all", per_shard=5)
    sys.settrace(None)


def in_child(do: Callable[[], None]) -> int:
    """Calls `do` in a child process and returns its wait status."""
    child = os.fork()
    if not child:
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def has_partial(folder: Path, complete: dict[str, bytes]) -> bool:
    """Whether a file under its final name differs from the complete one, or an incomplete folder opens."""
    files = {name: data for name, data in contents(folder).items() if not name.startswith(".")}
    try:
        VectorFolder(folder)
        opened = True
    except InputError:
        opened = False
    return any(data != complete[name] for name, data in files.items()) or opened != (files.keys() == complete.keys())


def main(catalog: Catalog, folder: Path, points: int) -> dict[str, int]:
    """The counts that the module's docstring names."""
    assert catalog.digest  # once, not in each child
    reader, writer = os.pipe()

    def measured() -> None:
        trace = Trace()
        run(catalog, folder / "complete", trace)
        os.write(writer, json.dumps([trace.count, list(trace.writing.values())]).encode())

    assert in_child(measured) == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count, writing = json.load(pipe)
    complete = contents(folder / "complete")
    found = {"lines": count, "killed": 0, "partial": 0, "different": 0}
    for point in sorted({*range(0, count, max(1, count // points)), *writing}):
        out = folder / "killed"
        found["killed"] += os.WTERMSIG(in_child(partial(run, catalog, out, Trace(point)))) == signal.SIGKILL
        found["partial"] += out.exists() and has_partial(out, complete)
        assert in_child(partial(run, catalog, out)) == 0
        found["different"] += contents(out) != complete
        shutil.rmtree(out)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Catalog.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
