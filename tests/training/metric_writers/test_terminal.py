import io
from contextlib import closing

import pytest
from rich.console import Console

from make_jax.training.metric_writers import terminal
from make_jax.training.metric_writers.terminal import TerminalProgress


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_plain_line_shows_step_and_metrics() -> None:
    console = plain_console()
    with closing(TerminalProgress(700, console=console)) as progress:
        progress.write(0, {"loss": 2.31, "logit_scale": 14.25, "examples_per_second": 1234.4, "data_wait": 0.031})
        progress.advance(120)
    line = printed(console).splitlines()[-1]
    assert line.startswith("step 120/700  ETA ")
    assert line.endswith("  loss 2.310  scale 14.2  1,234 examples/s  MFU unknown  data wait 3%")


def test_the_plain_line_shows_the_known_utilization_metrics() -> None:
    console = plain_console()
    known = {"examples_per_second": 800.0, "examples_per_second_per_device": 100.0, "mfu": 0.412}
    with closing(TerminalProgress(700, console=console)) as progress:
        progress.write(0, known | {"peak_device_memory": 61.25e9})
        progress.advance(1)
    line = printed(console).splitlines()[-1]
    assert line.endswith("800 examples/s  100 per device  MFU 41.2%  device memory 61.2 GB")


def test_plain_lines_keep_their_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    console = plain_console()
    with closing(TerminalProgress(100, console=console)) as progress:
        for step in range(1, 26):  # a second each
            now += 1
            progress.advance(step)
    assert [line.split()[1] for line in printed(console).splitlines()] == ["1/100", "11/100", "21/100", "25/100"]


def test_eta_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    console = plain_console()
    with closing(TerminalProgress(100, start_step=40, console=console)) as progress:
        now += 300
        progress.advance(41)  # compiled
        now += 18
        progress.advance(50)  # 2 seconds a step, 50 to go
    assert "step 50/100  ETA 1:40" in printed(console)


def test_eta_of_hours_and_before_the_pace_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    console = plain_console()
    with closing(TerminalProgress(100, console=console)) as progress:
        progress.advance(1)
        now += 3528
        progress.advance(50)
    assert [line.split()[3] for line in printed(console).splitlines()] == ["-", "1:00:00", "1:00:00"]


def test_the_live_line_shows_on_a_terminal_with_messages_above_it() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with closing(TerminalProgress(10, console=console)) as progress:
        progress.advance(5)
        progress.write(5, {"loss": 1.5})
        progress.message("saved [step 5]")  # brackets are not markup
    output = printed(console)
    assert "step 5/10" in output
    assert "loss 1.500" in output
    assert "saved [step 5]\n" in output


def test_closing_twice_prints_one_last_line() -> None:
    console = plain_console()
    with closing(TerminalProgress(10, console=console)) as progress:
        progress.close()
    assert len(printed(console).splitlines()) == 1
