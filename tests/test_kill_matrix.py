"""The kill matrix sees what it is there to see."""

import importlib
import json
import os
import sys

import pytest

from make_jax.runs import manifest
from tests.conftest import ROOT


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("kill_runs")


@pytest.fixture
def matrix(runs):
    return importlib.import_module("kill_matrix")


def metrics(folder, losses, seen="abc"):
    folder.mkdir(exist_ok=True)
    lines = [{"step": i + 1, "loss": loss, "seen": seen} for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def checkpoint(folder, name):
    path = folder / "checkpoints" / name
    path.mkdir(parents=True)
    (path / "meta.json").write_text("{}")
    manifest.write(path)
    return path


def test_another_loss_or_batch_in_the_last_bit_is_seen(runs, tmp_path):
    reference = metrics(tmp_path / "a", [1.0, 2.0, 3.0])
    runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0]), reference, whole=False)
    with pytest.raises(runs.Failed, match=r"1 of 4 values differ, first \[\(2, 'loss'\)\]"):
        runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0000000000000004]), reference, whole=False)
    with pytest.raises(runs.Failed, match=r"2 of 4 values differ"):
        runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0], seen="abd"), reference, whole=False)
    with pytest.raises(runs.Failed, match=r"4 values told instead of 6"):
        runs.expect_same(metrics(tmp_path / "b", [1.0, 2.0]), reference)


def test_damage_and_what_is_being_written_are_told_apart_from_what_is_intact(runs, tmp_path):
    checkpoint(tmp_path, "last/000003")
    newer = checkpoint(tmp_path, "last/000006")
    assert runs.newest(tmp_path) == 6 and runs.saving(tmp_path) == set()
    (newer / "meta.json").write_text("[]")
    assert runs.newest(tmp_path) == 3 and "damaged" in runs.checkpoints(tmp_path)[newer]
    checkpoint(tmp_path, "last/.partial-000009")
    assert runs.newest(tmp_path) == 3 and runs.saving(tmp_path) == {".partial-000009"}


def test_a_broken_promise_is_told_and_makes_the_exit_code_1(matrix, tmp_path, monkeypatch, capsys):
    def broken():
        raise matrix.Failed("lost")

    rows = {"good": lambda: "fine", "bad": broken, "none": lambda: (_ for _ in ()).throw(matrix.NotRun("no root"))}
    monkeypatch.setattr(matrix.Matrix, "rows", lambda self: rows)
    monkeypatch.setattr(sys, "argv", ["kill_matrix.py", "--work", str(tmp_path), "--out", str(tmp_path / "out.json")])
    for name, value in matrix.surroundings(tmp_path).items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)  # what main() changes is put back
    assert matrix.main() == 1
    told = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["result"] for row in told] == ["kept", "BROKEN", "not run"]
    rows["bad"] = lambda: "fine now"
    rows["good"] = broken  # was kept: is not done again
    assert matrix.main() == 0
    assert "2 kept, 0 BROKEN, 1 not run" in capsys.readouterr().out
