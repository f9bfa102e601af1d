"""After a killed or failed save the previous checkpoint is intact."""

import signal
import sys
from types import SimpleNamespace

import pytest

from make_jax.errors import InputError
from make_jax.files import PARTIAL
from make_jax.runs import checkpoints as module
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.failure_detection import silence_save_tracebacks
from tests.runs.small_state import make_state, names, run, saved


@pytest.mark.parametrize(
    "instant",
    [
        pytest.param("die()", id="while Orbax writes"),
        pytest.param("module.manifest.write = die", id="after Orbax's commit"),
        pytest.param("module.Path.rename = die", id="before it gets its name"),
        pytest.param("module.shutil.rmtree = die", id="while the older one is deleted"),
    ],
)
def test_kill_in_the_middle_of_a_save_leaves_one_that_loads(tmp_path, instant):
    dies_at_once = instant == "die()"
    before, after = ("", instant) if dies_at_once else (instant, "c.wait()")
    program = f"c.save('last', 1, state(1), {{}})\nc.wait()\n{before}\nc.save('last', 2, state(2), {{}})\n{after}\n"
    assert run(tmp_path, program).returncode == -signal.SIGKILL
    survivor = Checkpoints(tmp_path)
    partial = list(tmp_path.glob(f"last/{PARTIAL}*"))
    assert partial, "the kill came too late to test anything"
    expected = 2 if "rmtree" in instant else 1
    assert survivor.load_params("last")["step"] == expected
    survivor.save("last", 3, make_state(3), {})
    survivor.close()
    assert names(survivor) == ["last/000003"]


FULL_DISK = """
def main():
    c.save('last', 1, state(1), {})
    c.wait()
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, free[1]))
    try:
        c.save('last', 2, state(2), {}, {"long.txt": "x" * (1 << 20)})
        c.wait()
    except InputError as error:
        assert not list(c.folder.glob("*/.*")), "a partial checkpoint is left"
        resource.setrlimit(resource.RLIMIT_FSIZE, free)
        print(c.load_params("last")["step"])
        c.save('last', 3, state(3), {})
        c.wait()
        print(c.load_params("last")["step"])
        raise
exit_cleanly(main)
"""


@pytest.mark.parametrize("limit", [pytest.param(1 << 17, id="in Orbax"), pytest.param(1 << 19, id="in our own files")])
def test_full_disk_leaves_the_old_checkpoint_loadable_and_logs_one_line(tmp_path, limit):
    result = run(tmp_path, FULL_DISK.replace("(LIMIT,", f"({limit},"))
    assert (result.returncode, result.stdout) == (2, "1\n3\n"), result.stderr
    assert result.stderr.startswith(f"error: {tmp_path}/last: the checkpoint of step 2 was not written (")
    assert "File too large" in result.stderr and "older checkpoints are intact" in result.stderr
    assert result.stderr.count("\n") == 1


def test_state_that_cannot_be_written_is_an_input_error_at_the_next_call(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))

    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.manifest, "write", fail)
    checkpoints.save("last", 2, make_state(2), {})
    with pytest.raises(InputError, match=r"step 2 was not written \(No space left on device\)"):
        checkpoints.save("last", 3, make_state(3), {})
    assert names(checkpoints) == ["last/000001"]


def test_a_disk_without_free_space_is_detected_before_writing(checkpoints, monkeypatch):
    saved(checkpoints, ("last", 1))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(InputError, match=r"step 2 was not written \(No space left on device: .* 1 free\)"):
        checkpoints.save("last", 2, make_state(2), {})
    assert names(checkpoints) == ["last/000001"]
    assert not list(checkpoints.folder.glob("*/.*"))
    with pytest.raises(InputError, match=r"No space left on device: .* 1 free; set `run` to another disk"):
        checkpoints.check_free_space(make_state(2))


@pytest.mark.parametrize("hook", ["excepthook", "unraisablehook"])
def test_late_writes_after_a_failed_save_print_nothing_and_other_errors_are_printed(monkeypatch, hook):
    printed: list[BaseException] = []
    before = {"excepthook": lambda kind, error, trace: printed.append(error)}
    before["unraisablehook"] = lambda raised: printed.append(raised.exc_value)
    monkeypatch.setattr(sys, hook, before[hook])
    silence_save_tracebacks()
    for error in (RuntimeError("Event loop is closed"), RuntimeError("another"), ValueError("Event loop is closed")):
        raised = type(error), error, None
        if hook == "excepthook":
            sys.excepthook(*raised)
        else:
            sys.unraisablehook(SimpleNamespace(exc_type=raised[0], exc_value=error, exc_traceback=None))
    assert [str(error) for error in printed] == ["another", "Event loop is closed"]
