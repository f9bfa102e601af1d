"""W&B's API is replaced by a stub; the real package runs offline where it is installed."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.training.metric_writers import WandbWriter


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What a stub of `wandb` was called with."""
    calls: list[tuple[str, Any]] = []

    class StubRun:
        def log(self, data: dict[str, Any], step: int | None = None) -> None:
            calls.append(("log", (step, data)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**arguments: Any) -> StubRun:
        calls.append(("init", arguments))
        return StubRun()

    stub = types.ModuleType("wandb")
    stub.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return calls


def test_a_run_is_opened_with_the_settings_logged_by_step_and_finished(tmp_path: Path, calls: Any) -> None:
    writer = WandbWriter(tmp_path / "demo", 0, Config())
    writer.write(1, {"loss": 2.0, "data_fingerprint": "b0e07ac8"})
    writer.close()
    init, *rest = calls
    assert init[1]["project"] == "make_jax" and init[1]["name"] == "demo" and init[1]["dir"] == str(tmp_path / "demo")
    assert init[1]["config"]["optim"]["learning_rate"] == Config().optim.learning_rate
    assert rest == [("log", (1, {"loss": 2.0, "data_fingerprint": "b0e07ac8"})), ("finish", None)]


def test_a_resumed_run_continues_its_wandb_run_and_a_new_one_does_not(tmp_path: Path, calls: Any) -> None:
    for start_step in (0, 7, 0):
        WandbWriter(tmp_path, start_step, Config())
    first, resumed, new = (arguments for _, arguments in calls)
    assert first["id"] == resumed["id"] != new["id"]
    assert resumed["resume"] == "allow"


def test_the_project_comes_from_wandb_project(tmp_path: Path, calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "shop")
    WandbWriter(tmp_path, 0, Config())
    assert calls[0][1]["project"] == "shop"


def test_a_missing_package_is_an_input_error_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # makes `import wandb` fail
    with pytest.raises(InputError, match=r"train.writers has 'wandb'.*pip install -e '.*\[wandb\]', or remove"):
        WandbWriter(tmp_path, 0, Config())


def test_the_real_package_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = WandbWriter(tmp_path, 0, Config())
    writer.write(1, {"loss": 2.0})
    writer.write(1, {"val_ndcg@10": 0.5})
    writer.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
