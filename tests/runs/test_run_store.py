"""A run in an object store, on a local server of each kind: killed, resumed elsewhere, failing uploads."""

import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.object_stores import RUN, Mirror
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.processes import Processes
from make_jax.runs.run_store import RunStore, pull_run
from tests.conftest import ROOT
from tests.object_store_servers import use_machine
from tests.runs.small_state import make_state

_SAVES = """
import sys
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.processes import Processes
from make_jax.runs.run_store import RunStore
from tests.runs.small_state import make_state
store = RunStore(sys.argv[1])
store.start(Processes())
checkpoints = Checkpoints(store.folder / "checkpoints", on_saved=store.upload_checkpoint)
print(checkpoints.newest() or 0, flush=True)
for step in range((checkpoints.newest() or 0) + 1, 1000):
    checkpoints.save("last", step, make_state(step), {"position": step})
    print(step, flush=True)
"""


def test_after_kills_the_run_goes_on_from_a_complete_checkpoint_on_any_machine(store, bucket, tmp_path, monkeypatch):
    newest = 0
    for kill, machine in enumerate(("first", "second")):
        use_machine(monkeypatch, tmp_path / machine)
        command = [sys.executable, "-c", _SAVES, f"{bucket}/run"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        start, *saved = [int(process.stdout.readline()) for _ in range(4)]
        time.sleep(0.05 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert start >= newest
        use_machine(monkeypatch, tmp_path / f"reader-{kill}")
        run_store = RunStore(f"{bucket}/run")
        run_store.start(Processes())
        checkpoints = Checkpoints(run_store.folder / "checkpoints")
        newest = checkpoints.newest() or 0
        assert newest >= saved[-1] - 1  # `save` waited for the upload of the previous one
        state, meta = checkpoints.restore(make_state(0))
        checkpoints.close()
        assert meta["position"] == newest
        for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(newest)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_failed_upload_names_the_url_and_the_step_and_the_next_start_repeats_it(store, bucket):
    run_store = RunStore(f"{bucket}/run")
    folder = run_store.folder / "checkpoints/last/000002"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    store.rmdir(bucket.partition("://")[2])
    with pytest.raises(InputError, match=r"^(s3|gs)://.*/run: cannot write it .*the checkpoint of step 2 is in /"):
        run_store.upload_checkpoint(2)
    store.mkdir(bucket.partition("://")[2])
    RunStore(f"{bucket}/run").upload()
    assert store.exists(f"{bucket}/run/checkpoints/last/000002/manifest.json")


def test_reports_of_a_run_are_not_those_of_training(store, bucket, tmp_path, monkeypatch):
    """eval.py on another machine writes them while training goes on."""
    run_store = RunStore(f"{bucket}/run")
    run_store.folder.mkdir(parents=True)
    (run_store.folder / "config.json").write_text("{}")
    run_store.upload()
    store.pipe_file(f"{bucket}/run/eval/t/report.md", b"being uploaded by another machine")
    Mirror(f"{bucket}/run", RUN).delete_incomplete(lambda name: not name.startswith("eval/"))
    run_store.upload()
    assert store.exists(f"{bucket}/run/eval/t/report.md")


def test_a_run_that_is_not_in_the_store_is_an_input_error(bucket):
    with pytest.raises(InputError, match="not found, expected a run or another model's folder"):
        pull_run(f"{bucket}/none")
    assert str(pull_run("runs/local")) == "runs/local"
