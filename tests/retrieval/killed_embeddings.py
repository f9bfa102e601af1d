"""Kills embedding at many of its lines, as a program of its own: it forks, which a process with jax's threads must not.

    python -m tests.retrieval.killed_embeddings CATALOG FOLDER POINTS

Embeds once whole into FOLDER/whole. Then, for POINTS lines spread over its course and for the first time that each line
of writing is reached, a new process embeds until that line, where it kills itself; the next one runs to the end.
Prints, as JSON, how many were killed, in how many something was left half, and how many differ from the whole one.
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
    """Counts the lines that run, and kills the process at one of them."""

    def __init__(self, until: int = -1) -> None:
        self.until = until
        self.count = 0
        self.writing: dict[tuple[str, int], int] = {}  # lines of writing, and the count at which each was first reached

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """What sys.settrace asks for."""
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
    """One embedding."""
    sys.settrace(trace)
    embed_to_disk(FakeEncoder(), catalog, catalog.products, folder, "all", per_shard=5)
    sys.settrace(None)


def in_child(do: Callable[[], None]) -> int:
    """Does something in a child process; its wait status."""
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


def half(folder: Path, whole: dict[str, bytes]) -> bool:
    """Whether a file under its own name differs from the whole one, or a folder that lacks some opens."""
    there = {name: data for name, data in contents(folder).items() if not name.startswith(".")}
    try:
        VectorFolder(folder)
        opened = True
    except InputError:
        opened = False
    return any(data != whole[name] for name, data in there.items()) or opened != (there.keys() == whole.keys())


def main(catalog: Catalog, folder: Path, points: int) -> dict[str, int]:
    """The counts that the module's docstring names."""
    assert catalog.digest  # once, not in each child
    reader, writer = os.pipe()

    def measured() -> None:
        trace = Trace()
        run(catalog, folder / "whole", trace)
        os.write(writer, json.dumps([trace.count, list(trace.writing.values())]).encode())

    assert in_child(measured) == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count, writing = json.load(pipe)
    whole = contents(folder / "whole")
    found = {"lines": count, "killed": 0, "half": 0, "different": 0}
    for point in sorted({*range(0, count, max(1, count // points)), *writing}):
        out = folder / "killed"
        found["killed"] += os.WTERMSIG(in_child(partial(run, catalog, out, Trace(point)))) == signal.SIGKILL
        found["half"] += out.exists() and half(out, whole)
        assert in_child(partial(run, catalog, out)) == 0
        found["different"] += contents(out) != whole
        shutil.rmtree(out)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Catalog.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
