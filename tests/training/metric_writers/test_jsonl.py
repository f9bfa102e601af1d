import json
import math
from pathlib import Path

import pytest

from make_jax.errors import InputError
from make_jax.training.metric_writers.jsonl import JsonlWriter, read_metrics


def log(folder: Path, steps: range) -> None:
    """Logs `steps` as a run does that starts after steps.start steps."""
    writer = JsonlWriter(folder, steps.start)
    for step in steps:
        writer.write(step + 1, {"loss": 5.0 - 0.1 * step})
    writer.close()


def logged_steps(folder: Path) -> list[int]:
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_every_line_is_flushed(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path)
    writer.write(3, {"loss": 2.5, "validation/ndcg@10": 0.5, "data_fingerprint": "b0e07ac8"})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line.pop("time") > 1e9
    assert line == {"step": 3, "loss": 2.5, "validation/ndcg@10": 0.5, "data_fingerprint": "b0e07ac8"}
    writer.close()
    writer.close()  # a second call is safe


def test_a_resumed_run_logs_no_step_twice(tmp_path: Path) -> None:
    log(tmp_path, range(0, 7))
    log(tmp_path, range(4, 10))
    assert logged_steps(tmp_path) == list(range(1, 11))


def test_a_run_from_scratch_removes_all_records(tmp_path: Path) -> None:
    log(tmp_path, range(0, 7))
    log(tmp_path, range(0, 2))
    assert logged_steps(tmp_path) == [1, 2]


def test_an_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    log(tmp_path, range(0, 3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as a killed run leaves it
    assert logged_steps(tmp_path) == [1, 2, 3]
    log(tmp_path, range(3, 5))
    assert logged_steps(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("broken", ["{oops", "[1]", '{"loss": 1.0}', '{"step": "2"}'])
def test_a_broken_line_is_an_input_error_with_its_number(tmp_path: Path, broken: str) -> None:
    log(tmp_path, range(0, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(f"{broken}\n")
    with pytest.raises(
        InputError, match=r'metrics\.jsonl:3: found .*, expected one JSON object with an integer "step"'
    ):
        JsonlWriter(tmp_path, 2)


def test_a_non_finite_value_is_written_as_null(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path)
    writer.write(0, {"loss": math.nan, "logit_scale": math.inf})
    writer.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads(line, parse_constant=no_constant)
    assert record["loss"] is None
    assert record["logit_scale"] is None
