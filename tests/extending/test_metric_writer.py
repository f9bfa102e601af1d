"""The metric writer of docs/extending.md, run as it is printed there."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from make_jax.cli.train_options import parse_settings
from make_jax.training.metric_logger import open_logger
from make_jax.training.metric_writers import WRITERS, MetricWriter
from tests.conftest import ROOT


def section(heading: str) -> str:
    """The text below a heading of docs/extending.md."""
    page = (ROOT / "docs" / "extending.md").read_text()
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_example_is_selected_by_its_name_and_logs_no_step_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = section("A metric writer")
    table = dict(WRITERS)
    names = {"WRITERS": table}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    monkeypatch.setitem(WRITERS, "csv", table["csv"])
    (command,) = re.findall(r"python train\.py --config configs/demo\.py (.*)", text)
    config = parse_settings([*command.split(), "--run", str(tmp_path)], "")
    assert config.train.writers == ("jsonl", "tensorboard", "csv")
    for start_step in (0, 1):
        with open_logger(config, start_step, Console(file=io.StringIO())) as logger:
            assert all(isinstance(writer, MetricWriter) for writer in logger.writers)
            logger.write(start_step + 1, {"loss": 2.5, "data_fingerprint": "b0e07ac8"})
            logger.write(start_step + 2, {"loss": 1.5})
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    expected = ["1,loss,2.5", "1,data_fingerprint,b0e07ac8", "2,loss,2.5", "2,data_fingerprint,b0e07ac8", "3,loss,1.5"]
    assert rows == expected
