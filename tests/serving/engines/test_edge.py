"""EdgeEngine: its process may end at any instant, its folder may be damaged, deleted or in use."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.serving.engines import EngineQuery, Rows
from make_jax.serving.engines.edge import EdgeEngine
from make_jax.serving.engines.qdrant import QdrantSettings
from tests.serving.engines.reference import Reference
from tests.serving.engines.small_index import WIDTH, assert_same, queries, small_rows

SETTINGS = QdrantSettings(WIDTH, candidates=None, state="v1")
QUERY = EngineQuery(queries(1)[0], "red shoes", 0.5, limit=60, facets=("*",))
UPDATE = small_rows(30, 5, first=30), np.array([3, 31, 50])


def parts() -> list[Rows]:
    return [small_rows(40)]


def no_parts() -> list[Rows]:
    raise AssertionError("the products were read")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder."""
    folder = tmp_path_factory.mktemp("edge")
    EdgeEngine(folder, SETTINGS, parts).close()
    return folder


@pytest.fixture
def open_engine() -> Iterator[Callable[..., EdgeEngine]]:
    """Opens engines that are closed after the test."""
    opened: list[EdgeEngine] = []

    def open_engine(*arguments: object) -> EdgeEngine:
        opened.append(EdgeEngine(*arguments))  # type: ignore[arg-type]
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()
    assert not [child for child in multiprocessing.active_children() if child.name == "qdrant-edge"]


def kill(engine: EdgeEngine) -> None:
    assert engine._process.pid is not None
    os.kill(engine._process.pid, signal.SIGKILL)


def check(engine: EdgeEngine, updated: bool = False) -> None:
    reference = Reference(small_rows(40))
    if updated:
        reference.update(*UPDATE)
    assert_same(engine.search([QUERY])[0], reference.search(QUERY))


def test_a_folder_is_opened_again_and_only_by_one_process(folder: Path, open_engine: Callable[..., EdgeEngine]) -> None:
    engine = open_engine(folder, SETTINGS, no_parts)
    check(engine)
    with pytest.raises(InputError, match=f"{folder}: open in another process"):
        EdgeEngine(folder, SETTINGS, no_parts)
    check(engine)


def test_a_process_that_was_killed_is_started_again(
    folder: Path, open_engine: Callable[..., EdgeEngine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(folder, SETTINGS, no_parts)
    check(engine)
    assert not caplog.messages
    kill(engine)
    check(engine)
    assert caplog.messages == [f"{folder}: the process of Qdrant Edge ended; starting it again"]


def test_updates_survive_the_process_at_any_instant(tmp_path: Path, open_engine: Callable[..., EdgeEngine]) -> None:
    engine = open_engine(tmp_path / "edge", SETTINGS, parts)
    engine._parts = no_parts  # the folder is never built again
    engine.update(*UPDATE, "v1, update 1")
    kill(engine)
    check(engine, updated=True)
    for seconds in (0.0, 0.005):
        thread = threading.Timer(seconds, kill, [engine])
        thread.start()
        engine.update(*UPDATE, "v1, update 2")
        thread.join()
        check(engine, updated=True)
    engine.close()
    check(open_engine(tmp_path / "edge", QdrantSettings(WIDTH, candidates=None, state="v1, update 2"), no_parts), True)


def test_a_lost_folder_is_built_again_with_all_updates(tmp_path: Path, open_engine: Callable[..., EdgeEngine]) -> None:
    engine = open_engine(tmp_path / "edge", SETTINGS, parts)
    engine.update(*UPDATE)
    kill(engine)
    for file in (tmp_path / "edge" / "shard").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    check(engine, updated=True)


@pytest.mark.parametrize("change", ["another state", "no state file", "an empty shard", "no shard"])
def test_a_folder_that_is_not_complete_is_built_again(
    tmp_path: Path, open_engine: Callable[..., EdgeEngine], change: str
) -> None:
    EdgeEngine(tmp_path, SETTINGS, lambda: [small_rows(10, 9)]).close()
    if change == "no state file":
        (tmp_path / "state.json").unlink()
    if "shard" in change:
        shutil.rmtree(tmp_path / "shard")
    if change == "an empty shard":
        (tmp_path / "shard").mkdir()
    state = "v2" if change == "another state" else SETTINGS.state
    check(open_engine(tmp_path, QdrantSettings(WIDTH, candidates=None, state=state), parts))


def test_errors_of_the_process_are_raised_and_it_goes_on(folder: Path, open_engine: Callable[..., EdgeEngine]) -> None:
    engine = open_engine(folder, SETTINGS, no_parts)
    with pytest.raises(InputError, match="expected"):
        engine.search([EngineQuery(np.zeros(3, np.float32))])
    check(engine)


def test_several_threads_get_their_own_results(folder: Path, open_engine: Callable[..., EdgeEngine]) -> None:
    engine = open_engine(folder, SETTINGS, no_parts)
    reference = Reference(small_rows(40))
    wrong: list[str] = []

    def search(number: int) -> None:
        query = EngineQuery(queries(8)[number], limit=number + 1)
        for _ in range(20):
            try:
                assert_same(engine.search([query])[0], reference.search(query))
            except AssertionError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


_PROGRAM = """
import sys
from pathlib import Path
from make_jax.serving.engines.edge import EdgeEngine
from make_jax.serving.engines.qdrant import QdrantSettings
from tests.serving.engines.small_index import WIDTH

if __name__ == "__main__":
    engine = EdgeEngine(Path(sys.argv[1]), QdrantSettings(WIDTH, candidates=None, state="v1"), list)
    print(engine._process.pid, "jax" in sys.modules, flush=True)
"""


def test_a_program_that_does_not_close_its_engine_ends_and_its_process_too(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run(
        [sys.executable, program, folder],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert (run.returncode, run.stderr) == (0, "")
    pid, has_jax = run.stdout.split()
    assert has_jax == "False", "the process of the engine would import jax"
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
