"""A run in an object store, against a real S3 API served locally: killed, resumed elsewhere, failing uploads."""

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
from tests.runs.small_state import make_state
from tests.s3_server import use_machine

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


def test_after_kills_the_run_goes_on_from_a_complete_checkpoint_on_any_machine(s3, bucket, tmp_path, monkeypatch):
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
        store = RunStore(f"{bucket}/run")
        store.start(Processes())
        checkpoints = Checkpoints(store.folder / "checkpoints")
        newest = checkpoints.newest() or 0
        assert newest >= saved[-1] - 1  # `save` waited for the upload of the previous one
        state, meta = checkpoints.restore(make_state(0))
        checkpoints.close()
        assert meta["position"] == newest
        for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(newest)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_failed_upload_names_the_url_and_the_step_and_the_next_start_repeats_it(s3, bucket):
    store = RunStore(f"{bucket}/run")
    folder = store.folder / "checkpoints/last/000002"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    s3.rmdir(bucket.removeprefix("s3://"))
    with pytest.raises(InputError, match=r"^s3://.*/run: cannot write it .*the checkpoint of step 2 is in /"):
        store.upload_checkpoint(2)
    s3.mkdir(bucket.removeprefix("s3://"))
    RunStore(f"{bucket}/run").upload()
    assert s3.exists(f"{bucket}/run/checkpoints/last/000002/manifest.json")


def test_reports_of_a_run_are_not_those_of_training(s3, bucket, tmp_path, monkeypatch):
    """eval.py on another machine writes them while training goes on."""
    store = RunStore(f"{bucket}/run")
    store.folder.mkdir(parents=True)
    (store.folder / "config.json").write_text("{}")
    store.upload()
    s3.pipe_file(f"{bucket}/run/eval/t/report.md", b"being uploaded by another machine")
    Mirror(f"{bucket}/run", RUN).delete_incomplete(lambda name: not name.startswith("eval/"))
    store.upload()
    assert s3.exists(f"{bucket}/run/eval/t/report.md")


def test_a_run_that_is_not_in_the_store_is_an_input_error(bucket):
    with pytest.raises(InputError, match="not found, expected a run or another model's folder"):
        pull_run(f"{bucket}/none")
    assert str(pull_run("runs/local")) == "runs/local"
