"""Finding the other processes, and what is said when they cannot be found or are gone."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.common.processes import free_port
from make_jax.config import Config, DistributedConfig, check
from make_jax.errors import InputError
from make_jax.runs import watch as module
from make_jax.runs.processes import Processes, init_distributed
from make_jax.runs.watch import GONE, GRACE, SILENT, SILENT_AFTER_FAILURE, Watch
from tests.conftest import ROOT

PROGRAM = """
import sys
from make_jax.config import DistributedConfig
from make_jax.errors import InputError, exit_cleanly
from make_jax.runs.processes import init_distributed
def main():
    with init_distributed(DistributedConfig({settings}), lambda: None) as processes:
        print(processes.index, processes.count, processes.broadcast({{"a": 0.1 + processes.index}}))
        {then}
exit_cleanly(main)
"""


def run(settings: str, count: int, then: str = "", **environment: str) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of processes that join a run by `settings`; {i} stands for their index."""
    started = []
    for i in range(count):
        code = PROGRAM.format(settings=settings.format(i=i), then=then)
        env = {**os.environ, **{name: value.format(i=i) for name, value in environment.items()}}
        env["XLA_FLAGS"] = env["XLA_FLAGS"].replace("device_count=8", "device_count=1")
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
        )
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *both) for process, both in zip(started, said, strict=True)]


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(
            {
                "SLURM_JOB_ID": "77",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": "{i}",
                "SLURM_LOCALID": "{i}",
            },
            id="SLURM",
        ),
        pytest.param(
            {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": "{i}",
                "OMPI_COMM_WORLD_LOCAL_RANK": "{i}",
            },
            id="Open MPI",
        ),
    ],
)
def test_processes_find_each_other_by_the_environment(environment):
    found = run("", 2, **environment, JAX_COORDINATOR_PORT=str(free_port()))
    for i, (code, out, error) in enumerate(found):
        assert code == 0, error
        assert out.splitlines()[-1] == f"{i} 2 {{'a': 0.1}}"


def test_one_process_fails_and_the_other_repeats_why():
    then = "import time; time.sleep(100 * (1 - processes.index)); raise InputError('bad picture')"
    first, second = run(f"'127.0.0.1:{free_port()}', 2, {{i}}", 2, then)
    assert second[0] == 2 and second[2].endswith("error: bad picture\n")
    assert first[0] == GONE and first[2].endswith(
        "error: process 1 of 2 ended: bad picture at step 0; restart the job with the same command: "
        "it begins anew, for no checkpoint was saved yet\n"
    )


def test_a_coordinator_that_waits_in_vain_ends_with_one_line_in_the_end():
    address = f"127.0.0.1:{free_port()}"
    [(code, _, error)] = run(f"'{address}', 2, 0, 2", 1)
    assert code == 2
    assert error.splitlines()[-1] == (
        f"error: distributed.coordinator_address {address}: not all 2 processes came within 2 s; start each with its "
        "own distributed.process_id"
    )


def test_coordinator_that_is_not_there_and_port_in_use_are_errors():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1:{port}: port {port} is in use here; set another one"):
            init_distributed(DistributedConfig(f"127.0.0.1:{port}", 2, 0, 1), lambda: None).__enter__()
    with pytest.raises(InputError, match=r"not reachable within 1 s; is process 0 running\?"):
        init_distributed(DistributedConfig(f"127.0.0.1:{port}", 2, 1, 1), lambda: None).__enter__()


def test_alone_everything_answers_at_once():
    with init_distributed(DistributedConfig(num_processes=1), lambda: None) as processes:
        assert (processes.index, processes.count, processes.is_coordinator) == (0, 1, True)
        assert processes.broadcast({"a": 0.1}) == {"a": 0.1}
        processes.check_equal({"the settings": "x"})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            DistributedConfig("host:1234", 2, 2),
            "distributed.process_id is 2, expected 0 to 1, for distributed.num_processes is 2",
        ),
        (
            DistributedConfig("host:1234", 2),
            "distributed.process_id is -1, expected 0 to 1, for distributed.num_processes is 2",
        ),
        (
            DistributedConfig("host:1234"),
            "distributed.num_processes is 0, expected at least 1 with distributed.coordinator_address",
        ),
        (DistributedConfig("host", 2, 0), "distributed.coordinator_address is 'host', expected HOST:PORT"),
        (
            DistributedConfig(num_processes=2),
            "distributed.num_processes is 2, expected HOST:PORT in distributed.coordinator_address with it",
        ),
        (
            DistributedConfig(process_id=0),
            "distributed.process_id is 0, expected HOST:PORT in distributed.coordinator_address with it",
        ),
        (DistributedConfig(initialization_timeout=0), "distributed.initialization_timeout is 0, expected at least 1"),
    ],
)
def test_contradicting_settings_are_named(settings, expected):
    with pytest.raises(InputError, match=f"^{expected.replace('(', '.').replace(')', '.')}"):
        check(replace(Config(), distributed=settings))


class Store:
    """The coordinator's store, as one process after the other writes to it."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        assert allow_overwrite
        self.words[key] = value

    def key_value_dir_get(self, keys: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.words.items() if key.startswith(keys)]


class Ended(Exception):  # noqa: N818 - it stands for the end of the process
    pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time that watches see; processes do not end, they raise Ended with what they said."""
    now, said = [100.0], []

    def leave(code: int) -> None:
        raise Ended(code, *said)

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(module, "say_last", said.append)
    monkeypatch.setattr(module.os, "_exit", leave)
    monkeypatch.setattr(module, "POLL", 1e6)  # the tests look
    yield now


def watches(count: int) -> list[Watch]:
    store = Store()
    made = [Watch(store, i, count, "keys", lambda: "at step 7; restart") for i in range(count)]
    for watch in reversed(made):
        watch._look()  # now each has seen the newest word of those behind it
    return made


def test_a_process_without_a_sign_of_life_is_named_after_its_time_and_no_other_is(clock):
    first, second, _third = watches(3)
    for _ in range(3):
        clock[0] += SILENT / 3 - 0.1
        second._look()
        first._look()
    clock[0] += 0.4
    with pytest.raises(Ended) as ended:
        first._look()
    assert ended.value.args == (GONE, "process 2 of 3 stopped answering at step 7; restart")
    with pytest.raises(Ended) as ended:  # and the others give the same reason
        second._look()
    assert ended.value.args[-1] == "process 2 of 3 stopped answering at step 7; restart"


def test_after_a_failed_collective_silence_counts_sooner(clock, monkeypatch):
    first, _second = watches(2)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    first.blame()
    clock[0] += SILENT_AFTER_FAILURE
    with pytest.raises(Ended, match="process 1 of 2 stopped answering"):
        first._look()


def test_the_one_that_is_silent_for_longest_is_missing_after_a_while(clock, monkeypatch):
    first, second, third = watches(3)
    monkeypatch.setattr(module, "POLL", 2.0)
    assert first.missing() is None
    clock[0] += 4.0
    second._look()
    first._look()
    clock[0] += 4.0
    assert first.missing() == "process 2 of 3"
    third.leave()
    first._look()
    assert first.missing() is None


def test_a_process_that_left_is_not_missed(clock):
    first, second = watches(2)
    second.leave()
    clock[0] += 10 * SILENT
    first._look()
    first._look()


def test_a_failed_process_gives_the_others_time_to_fail_alike(clock):
    first, second = watches(2)
    second.failed("train.batch_size is 3")
    first._look()
    clock[0] += GRACE
    with pytest.raises(Ended, match=r"process 1 of 2 ended: train.batch_size is 3 at step 7; restart"):
        first._look()


def test_processes_count_from_zero_and_the_first_writes():
    assert Processes(0, 2).is_coordinator and not Processes(1, 2).is_coordinator
