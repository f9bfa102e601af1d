"""The kill matrix detects what it tests for."""

import json
import os
import sys

import pytest

from benchmarks.robustness import kill_matrix, kill_runs
from make_jax.runs import manifest


def metrics(folder, losses, fingerprint="abc"):
    folder.mkdir(exist_ok=True)
    lines = [{"step": i + 1, "loss": loss, "data_fingerprint": fingerprint} for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def checkpoint(folder, name):
    path = folder / "checkpoints" / name
    path.mkdir(parents=True)
    (path / "meta.json").write_text("{}")
    manifest.write(path)
    return path


def test_another_loss_or_batch_in_the_last_bit_is_detected(tmp_path):
    reference = metrics(tmp_path / "a", [1.0, 2.0, 3.0])
    kill_runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0]), reference, complete=False)
    with pytest.raises(kill_runs.PromiseBroken, match=r"1 of 4 values differ, first \[\(2, 'loss'\)\]"):
        kill_runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0000000000000004]), reference, complete=False)
    with pytest.raises(kill_runs.PromiseBroken, match=r"2 of 4 values differ"):
        kill_runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0], fingerprint="abd"), reference, complete=False)
    with pytest.raises(kill_runs.PromiseBroken, match=r"4 values logged instead of 6"):
        kill_runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0]), reference)


def test_damaged_and_partial_checkpoints_are_distinguished_from_intact_ones(tmp_path):
    checkpoint(tmp_path, "last/000003")
    newer = checkpoint(tmp_path, "last/000006")
    assert kill_runs.newest(tmp_path) == 6 and kill_runs.saving(tmp_path) == set()
    (newer / "meta.json").write_text("[]")
    assert kill_runs.newest(tmp_path) == 3 and "damaged" in kill_runs.checkpoints(tmp_path)[newer]
    checkpoint(tmp_path, "last/.partial-000009")
    assert kill_runs.newest(tmp_path) == 3 and kill_runs.saving(tmp_path) == {".partial-000009"}


def test_a_broken_promise_is_reported_and_makes_the_exit_code_1(tmp_path, monkeypatch, capsys):
    def broken():
        raise kill_matrix.PromiseBroken("lost")

    rows = {
        "good": lambda: "fine",
        "bad": broken,
        "none": lambda: (_ for _ in ()).throw(kill_matrix.NotRunnable("no root")),
    }
    monkeypatch.setattr(kill_matrix.Matrix, "rows", lambda self: rows)
    monkeypatch.setattr(sys, "argv", ["kill_matrix.py", "--work", str(tmp_path), "--out", str(tmp_path / "out.json")])
    for name, value in kill_matrix.run_environment(tmp_path).items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)  # restored after main() changes it
    assert kill_matrix.main() == 1
    written = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["result"] for row in written] == ["kept", "BROKEN", "not run"]
    rows["bad"] = lambda: "fine now"
    rows["good"] = broken  # was kept: is not done again
    assert kill_matrix.main() == 0
    assert "2 kept, 0 BROKEN, 1 not run" in capsys.readouterr().out
