"""Kills imports at many of their lines, as a program of its own: it forks, which a process with jax's threads must not.

    python -m tests.catalog.importers.killed_imports FOLDER POINTS NAME SOURCE [OPTION ...]

Runs the import once whole into FOLDER/whole/out. Then, for POINTS lines spread over its course and for every line of
`Work.finish`, a new process imports until that line is reached, where it kills itself; the next one runs to the end.
Prints, as JSON, how many were killed, in how many a catalog stood half, and how many differ from the whole one.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.parquet  # noqa: F401  # once, not in each child

from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import import_state
from tests.catalog.importers.contents import contents

WATCHED = (f"{os.sep}importers{os.sep}", f"{os.sep}files.py")
import_state.BATCH = 3  # many commits in a small import
os.fsync = lambda descriptor: None  # what a killed process has written stays without it, and it takes most of the time
opened = import_state._opened


def opened_without_sync(folder: Path) -> sqlite3.Connection:
    """The database of an import, without waiting for the disk either."""
    database = opened(folder)
    database.execute("PRAGMA synchronous = OFF")
    return database


import_state._opened = opened_without_sync


class Trace:
    """Counts the lines of the importers that run, and kills the process at one of them."""

    def __init__(self, until: int = -1) -> None:
        self.until = until
        self.count = 0
        self.finishing: dict[int, int] = {}  # the lines of Work.finish and the count at which each was reached

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """What sys.settrace asks for."""
        if not any(part in frame.f_code.co_filename for part in WATCHED):
            return None
        if event == "line":
            if self.count == self.until:
                os.kill(os.getpid(), signal.SIGKILL)
            if frame.f_code.co_name == "finish":
                self.finishing.setdefault(frame.f_lineno, self.count)
            self.count += 1
        return self


def run(arguments: list[str], out: Path, trace: Trace) -> None:
    """One import, traced."""
    sys.settrace(trace)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["import", arguments[0], "--source", arguments[1], str(out), *arguments[2:]])
    sys.settrace(None)


def in_child(do: Callable[[], None]) -> int:
    """Does something in a child process; its wait status."""
    child = os.fork()
    if not child:
        do()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def lines_of(arguments: list[str], out: Path) -> tuple[int, list[int]]:
    """A whole import in a child; how many lines it has, and which of them are those of Work.finish."""
    reader, writer = os.pipe()

    def do() -> None:
        trace = Trace()
        run(arguments, out, trace)
        os.write(writer, json.dumps([trace.count, list(trace.finishing.values())]).encode())

    assert in_child(do) == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count, finishing = json.load(pipe)
    return count, finishing


def kill_everywhere(folder: Path, points: int, arguments: list[str]) -> dict[str, int]:
    """The counts that the module's docstring names."""
    whole = folder / "whole/out"
    whole.parent.mkdir(parents=True)
    count, finishing = lines_of(arguments, whole)
    expected = contents(whole)
    found = {"lines": count, "killed": 0, "half": 0, "different": 0, "left": 0}
    for point in sorted({*range(0, count, max(1, count // points)), *finishing}):
        out = folder / "killed/out"
        out.parent.mkdir()
        found["killed"] += os.WTERMSIG(in_child(partial(run, arguments, out, Trace(point)))) == signal.SIGKILL
        found["half"] += out.exists() and contents(out) != expected
        if list(out.parent.iterdir()) != [out]:  # else it had nothing left to do
            assert in_child(partial(run, arguments, out, Trace())) == 0
        found["different"] += contents(out) != expected
        found["left"] += len(list(out.parent.iterdir())) - 1
        shutil.rmtree(out.parent)
    return found


if __name__ == "__main__":
    print(json.dumps(kill_everywhere(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
