import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from make_jax.errors import InputError
from make_jax.training import metric_logger
from make_jax.training.metric_logger import MetricLogger, read_metrics


def plain() -> Console:
    return Console(file=io.StringIO(), width=200)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def tell(folder: Path, steps: range, total: int = 10) -> None:
    with MetricLogger(folder, total, start_step=steps.start, console=plain()) as told:
        for step in steps:
            told.advance(step + 1)
            told.write(step + 1, {"loss": 5.0 - 0.1 * step})


def steps_told(folder: Path) -> list[int]:
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_every_line_is_flushed(tmp_path: Path) -> None:
    with MetricLogger(tmp_path, 10, console=plain()) as told:
        told.write(3, {"loss": 2.5, "validation/ndcg@10": 0.5})
        line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["step"] == 3
    assert line["loss"] == 2.5
    assert line["validation/ndcg@10"] == 0.5


def test_a_run_that_goes_on_tells_no_step_twice(tmp_path: Path) -> None:
    tell(tmp_path, range(0, 7))
    tell(tmp_path, range(4, 10))
    assert steps_told(tmp_path) == list(range(1, 11))


def test_a_run_from_scratch_takes_everything_back(tmp_path: Path) -> None:
    tell(tmp_path, range(0, 7))
    tell(tmp_path, range(0, 2))
    assert steps_told(tmp_path) == [1, 2]


def test_a_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    tell(tmp_path, range(0, 3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as a killed run leaves it
    assert steps_told(tmp_path) == [1, 2, 3]
    tell(tmp_path, range(3, 5))
    assert steps_told(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("broken", ["{oops", "[1]", '{"loss": 1.0}', '{"step": "2"}'])
def test_a_broken_line_is_an_input_error_with_its_number(tmp_path: Path, broken: str) -> None:
    tell(tmp_path, range(0, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(f"{broken}\n")
    with pytest.raises(InputError, match=r'metrics\.jsonl:3: found .*, expected one JSON object with a whole "step"'):
        MetricLogger(tmp_path, 10, start_step=2, console=plain())


def test_a_value_that_is_not_finite_stands_as_null(tmp_path: Path) -> None:
    with MetricLogger(tmp_path, 10, console=plain()) as told:
        told.write(0, {"loss": math.nan, "logit_scale": math.inf})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads(line, parse_constant=no_constant)
    assert record["loss"] is None
    assert record["logit_scale"] is None


def test_tensorboard_reads_the_scalars_and_no_step_twice(tmp_path: Path) -> None:
    tell(tmp_path, range(0, 7))
    tell(tmp_path, range(4, 10))
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    told = reader.Tensors("loss")
    assert [event.step for event in told] == list(range(1, 11))
    assert told[9].tensor_proto.float_val[0] == pytest.approx(5.0 - 0.9)


def test_the_plain_line_tells_all(tmp_path: Path) -> None:
    console = plain()
    with MetricLogger(tmp_path, 700, console=console) as told:
        told.write(0, {"loss": 2.31, "logit_scale": 14.25, "examples_per_second": 1234.4, "data_wait": 0.031})
        told.advance(120)
    line = printed(console).splitlines()[-1]
    assert line.startswith("step 120/700  ETA ")
    assert line.endswith("  loss 2.310  scale 14.2  1,234 examples/s  MFU unknown  data wait 3%")


def test_the_plain_line_tells_of_devices_what_is_known(tmp_path: Path) -> None:
    console = plain()
    known = {"examples_per_second": 800.0, "examples_per_second_per_device": 100.0, "mfu": 0.412}
    with MetricLogger(tmp_path, 700, console=console) as told:
        told.write(0, known | {"peak_device_memory": 61.25e9})
        told.advance(1)
    line = printed(console).splitlines()[-1]
    assert line.endswith("800 examples/s  100 a device  MFU 41.2%  device memory 61.2 GB")


def test_plain_lines_keep_their_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(metric_logger.time, "monotonic", lambda: now)
    console = plain()
    with MetricLogger(tmp_path, 100, console=console) as told:
        for step in range(1, 26):  # a second each
            now += 1
            told.advance(step)
    assert [line.split()[1] for line in printed(console).splitlines()] == ["1/100", "11/100", "21/100", "25/100"]


def test_eta_follows_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(metric_logger.time, "monotonic", lambda: now)
    console = plain()
    with MetricLogger(tmp_path, 100, start_step=40, console=console) as told:
        now += 300
        told.advance(41)  # compiled
        now += 18
        told.advance(50)  # 2 seconds a step, 50 to go
    assert "step 50/100  ETA 1:40" in printed(console)


def test_eta_of_hours_and_before_the_pace_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(metric_logger.time, "monotonic", lambda: now)
    console = plain()
    with MetricLogger(tmp_path, 100, console=console) as told:
        told.advance(1)
        now += 3528
        told.advance(50)
    assert [line.split()[3] for line in printed(console).splitlines()] == ["-", "1:00:00", "1:00:00"]


def test_the_live_line_shows_on_a_terminal_and_notes_stand_above_it(tmp_path: Path) -> None:
    console = terminal()
    with MetricLogger(tmp_path, 10, console=console) as told:
        told.advance(5)
        told.write(5, {"loss": 1.5})
        told.note("saved [step 5]")  # brackets are no markup
    output = printed(console)
    assert "step 5/10" in output
    assert "loss 1.500" in output
    assert "saved [step 5]\n" in output


def test_closing_twice_is_safe(tmp_path: Path) -> None:
    console = plain()
    with MetricLogger(tmp_path, 10, console=console) as told:
        told.close()
    assert len(printed(console).splitlines()) == 1


def test_telemetry_imports_no_jax() -> None:
    code = (
        "import sys, make_jax.training.metric_logger; print(sorted({'jax', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
