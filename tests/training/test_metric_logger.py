import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from make_jax.config import Config, TrainConfig
from make_jax.errors import InputError
from make_jax.training.metric_logger import MetricLogger, open_logger
from make_jax.training.metric_writers import check_writers
from make_jax.training.metric_writers.jsonl import read_metrics


def config(folder: Path, *writers: str) -> Config:
    return Config(run=str(folder), train=TrainConfig(steps=10, writers=writers))


def quiet_console() -> Console:
    return Console(file=io.StringIO(), width=200)


class ListWriter:
    def __init__(self) -> None:
        self.written: list[tuple[int, Mapping[str, float | str]]] = []
        self.closed = 0

    def write(self, step: int, metrics: Mapping[str, float | str]) -> None:
        self.written.append((step, metrics))

    def close(self) -> None:
        self.closed += 1


def test_every_writer_gets_every_metric_and_is_closed() -> None:
    writers = [ListWriter(), ListWriter()]
    with MetricLogger(writers) as logger:
        logger.write(3, {"loss": 1.0})
        logger.write(3, {"val_ndcg@10": 0.5})
    for writer in writers:
        assert writer.written == [(3, {"loss": 1.0}), (3, {"val_ndcg@10": 0.5})] and writer.closed == 1


def test_a_resumed_run_logs_no_step_twice(tmp_path: Path) -> None:
    for steps in (range(0, 7), range(4, 10)):
        with open_logger(config(tmp_path, "jsonl", "tensorboard"), steps.start, quiet_console()) as logger:
            for step in steps:
                logger.advance(step + 1)
                logger.write(step + 1, {"loss": 5.0})
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 11))


def test_only_the_selected_writers_write(tmp_path: Path) -> None:
    with open_logger(config(tmp_path, "tensorboard"), console=quiet_console()) as logger:
        logger.write(1, {"loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]


def test_a_logger_without_writers_and_terminal_does_nothing() -> None:
    with MetricLogger() as logger:
        logger.advance(1)
        logger.write(1, {"loss": 1.0})
        logger.message("nothing")


def test_closing_twice_is_safe(tmp_path: Path) -> None:
    console = quiet_console()
    with open_logger(config(tmp_path, "jsonl", "tensorboard"), console=console) as logger:
        logger.close()
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue().splitlines()) == 1


def test_an_unknown_or_repeated_writer_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"train.writers has 'tensorbord', expected .*; did you mean 'tensorboard'\?"):
        check_writers(("jsonl", "tensorbord"))
    with pytest.raises(InputError, match=r"train.writers is jsonl jsonl, expected each writer once"):
        check_writers(("jsonl", "jsonl"))


def test_the_logger_imports_no_jax_and_no_wandb() -> None:
    code = (
        "import sys, make_jax.training.metric_logger;"
        "print(sorted({'jax', 'tensorflow', 'torch', 'wandb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
