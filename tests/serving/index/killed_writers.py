"""Kills `index`, `update` and `switch` at many lines of their code. A separate program, because it forks, which a
process with JAX's threads must not.

    python -m tests.serving.index.killed_writers CATALOG CHANGED FOLDER POINTS

Makes an index of CATALOG in FOLDER. Then, for each of the three commands and POINTS evenly spaced executed lines, a new
process runs the command on a copy until that line, where it kills itself. The copy must be intact and in the state
before or after the command, to the byte of every product, vector and picture. The same command then runs to its end,
which must give the state after. Prints, as JSON, counts for each command.
"""

import hashlib
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
from make_jax.serving.index.check import check_index
from make_jax.serving.index.model import IndexModel
from make_jax.serving.index.reader import open_index
from make_jax.serving.index.update import update_index
from make_jax.serving.index.versions import switch_version
from make_jax.serving.index.writer import IndexSettings, build_index
from tests.retrieval.fake_encoder import FakeEncoder
from tests.serving.index.tiny_index import fake_model

WATCHED = (f"{os.sep}serving{os.sep}index{os.sep}", "shards.py", "embed_to_disk.py", "files.py", "line_chunks.py")
os.fsync = lambda descriptor: None  # what a killed process has written stays without it


class Trace:
    """Counts executed lines, and kills the process at one of them."""

    def __init__(self, until: int = -1) -> None:
        self.until = until
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """The trace function of sys.settrace."""
        name = frame.f_code.co_filename
        if "make_jax" not in name or not any(part in name for part in WATCHED):
            return None
        if event == "line":
            if self.count == self.until:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
        return self


def model(digest: str) -> IndexModel:
    """The fake encoder under a name."""
    encoder = FakeEncoder()
    encoder.digest = digest
    return fake_model(encoder)


def state(index: Path) -> str:
    """A digest of all that readers see, or what is damaged."""
    try:
        opened = open_index(index)
        problems = check_index(index).problems
    except InputError as error:
        return f"damaged: {error}"
    if problems:
        return f"damaged: {problems[0]}"
    sha = hashlib.sha256(f"{opened.version} {len(opened.updates)} {opened.manifest.count}".encode())
    for row, product in enumerate(opened.products):
        sha.update(f"{product} {opened.image_checksum(row)}".encode() + (opened.thumbnail(row) or b"none"))
    for array in (opened.vectors, opened.weights, opened.deleted):
        sha.update(array.tobytes())
    return f"{opened.version}, update {len(opened.updates)}: {sha.hexdigest()}"


def in_child(do: Callable[[], Any]) -> tuple[int, Any]:
    """Calls `do` in a child process; returns its wait status, and the result through JSON, None if it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.write(writer, json.dumps(do()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    return os.waitpid(child, 0)[1], json.loads(text) if text else None


def traced(command: Callable[[Path], object], index: Path, until: int) -> int:
    """Runs the command, and returns the number of lines executed."""
    trace = Trace(until)
    sys.settrace(trace)
    command(index)
    sys.settrace(None)
    return trace.count


def done(do: Callable[[], Any]) -> Any:
    """The result of `do` in a child process that must not fail."""
    status, result = in_child(do)
    assert status == 0, status
    return result


def continued(command: Callable[[Path], object], index: Path) -> tuple[str, str]:
    """The state that a killed command left, and the state after the same command ran to its end."""
    left = state(index)
    command(index)
    return left, state(index)


def try_command(command: Callable[[Path], object], base: Path, folder: Path, points: int) -> dict[str, Any]:
    """Kills the command at `points` lines, each time on a copy of the index `base`."""
    before = done(partial(state, base))
    copy = shutil.copytree(base, folder / "copy")
    lines = done(partial(traced, command, copy, -1))
    after = done(partial(state, copy))
    found: dict[str, Any] = {"lines": lines, "killed": 0, "old": 0, "new": 0, "mixed": [], "not continued": []}
    for point in range(0, lines, max(1, lines // points)):
        shutil.rmtree(copy)
        shutil.copytree(base, copy)
        found["killed"] += os.WTERMSIG(in_child(partial(traced, command, copy, point))[0]) == signal.SIGKILL
        left, ended = done(partial(continued, command, copy))
        if left in (before, after):
            found["old" if left == before else "new"] += 1
        else:
            found["mixed"].append([point, left])
        if ended != after:
            found["not continued"].append([point, ended])
    shutil.rmtree(copy)
    return found | {"states": [before, after]}


def main(path: str, changed_path: str, folder: Path, points: int) -> dict[str, Any]:
    """The counts that the module's docstring names."""
    catalog, changed = Catalog.load(path), Catalog.load(changed_path)
    assert catalog.digest and changed.digest  # once, not in each child
    settings, waiting = IndexSettings(keep=1), IndexSettings(switch=False)
    one, two = folder / "one", folder / "two"

    def prepare() -> None:
        build_index(one, model("old"), catalog)
        shutil.copytree(one, two)
        build_index(two, model("new"), catalog, waiting)

    def index(out: Path) -> None:
        build_index(out, model("new"), catalog, settings)

    def update(out: Path) -> None:
        update_index(out, lambda _: model("old"), changed, ["p9"])

    def switch(out: Path) -> None:
        switch_version(out, "v2")

    done(prepare)
    commands = {"index": (index, one), "update": (update, one), "switch": (switch, two)}
    return {name: try_command(command, base, folder, points) for name, (command, base) in commands.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
