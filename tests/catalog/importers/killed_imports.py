"""Kills imports at many of their lines; a separate program, because a process with JAX threads must not fork.

    python -m tests.catalog.importers.killed_imports FOLDER POINTS NAME SOURCE [OPTION ...]

Runs the import once without interruption into FOLDER/complete/out. Then, for POINTS evenly spaced lines and for every
line of `ImportState.finish`, a child process imports until that line and kills itself, and another one completes the
import. Prints counts as JSON: killed processes, partial catalogs, catalogs that differ from the uninterrupted one.
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
os.fsync = lambda descriptor: None  # data of a killed process survives without it, and it takes most of the time
open_database = import_state._open_database


def open_without_sync(folder: Path) -> sqlite3.Connection:
    """The database of an import, without waiting for the disk."""
    database = open_database(folder)
    database.execute("PRAGMA synchronous = OFF")
    return database


import_state._open_database = open_without_sync


class Trace:
    """Counts the executed lines of the importers, and kills the process at one of them."""

    def __init__(self, until: int = -1) -> None:
        self.until = until
        self.count = 0
        self.finishing: dict[int, int] = {}  # line of ImportState.finish -> count when first reached

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """The trace function for sys.settrace."""
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
    """Runs one traced import."""
    sys.settrace(trace)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["import", arguments[0], arguments[1], str(out), *arguments[2:]])
    sys.settrace(None)


def in_child(action: Callable[[], None]) -> int:
    """Runs an action in a child process; returns its wait status."""
    child = os.fork()
    if not child:
        action()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def lines_of(arguments: list[str], out: Path) -> tuple[int, list[int]]:
    """Runs a complete import in a child process; returns its number of lines and those of ImportState.finish."""
    reader, writer = os.pipe()

    def action() -> None:
        trace = Trace()
        run(arguments, out, trace)
        os.write(writer, json.dumps([trace.count, list(trace.finishing.values())]).encode())

    assert in_child(action) == 0
    os.close(writer)
    with os.fdopen(reader) as pipe:
        count, finishing = json.load(pipe)
    return count, finishing


def kill_everywhere(folder: Path, points: int, arguments: list[str]) -> dict[str, int]:
    """The counts described in the module docstring."""
    complete = folder / "complete/out"
    complete.parent.mkdir(parents=True)
    count, finishing = lines_of(arguments, complete)
    expected = contents(complete)
    counts = {"lines": count, "killed": 0, "partial": 0, "different": 0, "left": 0}
    for point in sorted({*range(0, count, max(1, count // points)), *finishing}):
        out = folder / "killed/out"
        out.parent.mkdir()
        counts["killed"] += os.WTERMSIG(in_child(partial(run, arguments, out, Trace(point)))) == signal.SIGKILL
        counts["partial"] += out.exists() and contents(out) != expected
        if list(out.parent.iterdir()) != [out]:  # otherwise the import was already complete
            assert in_child(partial(run, arguments, out, Trace())) == 0
        counts["different"] += contents(out) != expected
        counts["left"] += len(list(out.parent.iterdir())) - 1
        shutil.rmtree(out.parent)
    return counts


if __name__ == "__main__":
    print(json.dumps(kill_everywhere(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
