"""Starting several processes, and their messages and exit codes when one cannot be reached or is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.common.processes import free_port
from make_jax.config import Config, DistributedConfig, check
from make_jax.errors import InputError
from make_jax.runs import failure_detection, manifest
from make_jax.runs.checkpoints import Checkpoints
from make_jax.runs.failure_detection import EXIT_PEER_LOST, HEARTBEAT_TIMEOUT, PeerFailures
from make_jax.runs.processes import Processes, init_distributed
from tests.conftest import ROOT

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from jax.experimental import multihost_utils
from make_jax.config import DistributedConfig
from make_jax.errors import InputError, exit_cleanly
from make_jax.runs import failure_detection, processes as runs_processes
from make_jax.runs.processes import init_distributed
from make_jax.signals import exit_on_signals
from make_jax.training.stopping import stop_on_signals
exit_on_signals(0)
runs_processes.HEARTBEAT_TIMEOUT = failure_detection.HEARTBEAT_TIMEOUT = 12  # shorter tests
def main():
    with init_distributed(DistributedConfig({settings}), lambda: None, Path({folder!r})) as processes:
        print(processes.index, processes.count, processes.broadcast({{"a": 0.1 + processes.index}}), flush=True)
        {then}
exit_cleanly(main)
"""


def start(settings: str, count: int, folder: Path, then: str = "", **environment: str) -> list[subprocess.Popen[str]]:
    """Starts processes of a run by `settings`, each of which executes `then`; {i} is their index."""
    processes = []
    for i in range(count):
        code = PROGRAM.format(settings=settings.format(i=i), then=then, folder=str(folder))
        env = {**os.environ, **{name: value.format(i=i) for name, value in environment.items()}}
        env["XLA_FLAGS"] = env["XLA_FLAGS"].replace("device_count=8", "device_count=1")
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
        )
    return processes


def run(settings: str, count: int, folder: Path, then: str = "", **environment: str) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of processes that `start` starts."""
    processes = start(settings, count, folder, then, **environment)
    outputs = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *both) for process, both in zip(processes, outputs, strict=True)]


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
def test_processes_connect_by_the_environment(environment, tmp_path):
    results = run("", 2, tmp_path, **environment, JAX_COORDINATOR_PORT=str(free_port()))
    for i, (code, out, error) in enumerate(results):
        assert code == 0, error
        assert out.splitlines()[-1] == f"{i} 2 {{'a': 0.1}}"


def pair() -> str:
    """Settings of two processes."""
    return f"'127.0.0.1:{free_port()}', 2, {{i}}"


def test_each_process_digests_the_files_that_it_saved_and_a_flipped_bit_in_any_is_found(tmp_path):
    save = f"from tests.runs.small_state import save_and_print_digested_files as save; save({str(tmp_path / 'made')!r})"
    digested = []
    for code, out, error in run(pair(), 2, tmp_path, save):
        assert code == 0, error
        digested.append(json.loads(out.splitlines()[-1]))
    own = [{name for name in digested[i] if name.startswith(f"state/ocdbt.process_{i}/")} for i in (0, 1)]
    assert own[0] and own[1] == set(digested[1])  # process 0 digests the common files too
    path = Checkpoints(tmp_path / "made").latest_intact("last").path
    assert sorted([*digested[0], *digested[1]]) == sorted(manifest.verify(path))  # each once
    for name in (max(own[0]), max(own[1])):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=rf"{name}: damaged, its SHA-256 differs"):
            manifest.verify(path)
        (path / name).write_bytes(content)


ADVICE = "at step 0; restart the job with the same command: it starts anew, since no checkpoint was saved\n"


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    "wait",
    [
        pytest.param("time.sleep(100)", id="outside of collectives"),
        pytest.param("multihost_utils.process_allgather(np.zeros(1))", id="in a collective"),
    ],
)
def test_one_process_fails_and_the_other_repeats_the_reason(failing, wait, tmp_path):
    then = f"if processes.index == {failing}: raise InputError('bad picture')\n        {wait}"
    results = run(pair(), 2, tmp_path, then)
    code, _, error = results.pop(failing)
    assert code == 2 and error.endswith("error: bad picture\n")
    code, _, error = results[0]
    assert code == EXIT_PEER_LOST and error.endswith(f"error: process {failing} of 2 ended: bad picture {ADVICE}")


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize(
    "wait",
    [
        pytest.param("time.sleep(200)", id="outside of collectives"),
        pytest.param("multihost_utils.process_allgather(np.zeros(1))", id="in a collective"),
    ],
)
def test_a_killed_or_frozen_process_ends_the_other_within_a_minute_with_one_line(lost, number, wait, tmp_path):
    processes = start(pair(), 2, tmp_path, f"if processes.index == {lost}: time.sleep(200)\n        {wait}")
    try:
        for process in processes:
            while "{'a'" not in process.stdout.readline():  # Gloo prints other lines
                assert process.poll() is None
        processes[lost].send_signal(number)
        other = processes[1 - lost]
        _, error = other.communicate(timeout=60)  # the promise of docs/scaling.md
        assert other.returncode == EXIT_PEER_LOST
        assert error.endswith(f"error: process {lost} of 2 stopped answering {ADVICE}")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends_its_process_and_the_other_repeats_the_line(number, tmp_path):
    then = f"""with stop_on_signals(processes.forward_sigterm):
            if processes.index == 1: os.kill(os.getpid(), {int(number)})
            time.sleep(100)"""
    first, second = run(pair(), 2, tmp_path, then)
    word, code = ("stopped by SIGTERM", 0) if number == signal.SIGTERM else ("interrupted", 130)
    line = f"{word} before the first step; there was nothing to save"
    assert second[0] == code and second[2].splitlines()[-1] == line
    assert first[0] == EXIT_PEER_LOST and first[2].endswith(f"error: process 1 of 2 ended: {line} {ADVICE}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_the_first_step_a_signal_to_one_process_stops_both(number, tmp_path):
    then = f"""with stop_on_signals(processes.forward_sigterm) as stop:
            stop.has_stepped = True
            if processes.index == 1: os.kill(os.getpid(), {int(number)})
            while not stop.should_stop(): time.sleep(0.1)
            processes.finish()
            stop.end(3)"""
    first, second = run(pair(), 2, tmp_path, then)
    saved = "step 3 is saved; the same command resumes from there"
    assert first[0] == 0 and first[2].splitlines()[-1] == f"stopped by SIGTERM; {saved}"
    word, code = ("stopped by SIGTERM", 0) if number == signal.SIGTERM else ("interrupted", 130)
    assert second[0] == code and second[2].splitlines()[-1] == f"{word}; {saved}"


def test_the_heartbeat_timeout_keeps_the_promise_of_a_minute():
    assert 2 * HEARTBEAT_TIMEOUT <= 60


def test_a_bug_in_all_processes_ends_them_with_its_traceback(tmp_path):
    # Each waits whether another one is the reason; none is.
    then = "import make_jax.runs.failure_detection as f; f.HEARTBEAT_TIMEOUT = 1; raise ValueError('a bug')"
    for code, _, error in run(pair(), 2, tmp_path, then):
        assert code in (1, EXIT_PEER_LOST) and "ValueError: a bug" in error


def test_a_process_with_other_settings_is_an_error(tmp_path):
    first, second = run(
        pair(), 2, tmp_path, "processes.check_equal({'the seed': str(processes.index)}); time.sleep(60)"
    )
    assert second[0] == 2 and "error: the seed of process 1 of 2 differs from that of process 0" in second[2]
    assert first[0] == EXIT_PEER_LOST and "process 1 of 2 ended: the seed of process 1" in first[2]


def test_a_coordinator_whose_processes_do_not_connect_ends_with_one_line(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    [(code, _, error)] = run(f"'{address}', 2, 0, 2", 1, tmp_path)
    assert code == 2
    assert error.splitlines()[-1] == (
        f"error: distributed.coordinator_address {address}: not all 2 processes connected within 2 s; start each with "
        "its own distributed.process_id"
    )


def test_an_unreachable_coordinator_and_a_port_in_use_are_errors():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1:{port}: port {port} is in use on this machine; set another"):
            init_distributed(DistributedConfig(f"127.0.0.1:{port}", 2, 0, 1), lambda: None).__enter__()
    with pytest.raises(InputError, match=r"not reachable within 1 s; is process 0 running\?"):
        init_distributed(DistributedConfig(f"127.0.0.1:{port}", 2, 1, 1), lambda: None).__enter__()


def test_a_single_process_needs_no_communication():
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


def test_processes_count_from_zero_and_the_first_is_the_coordinator():
    assert Processes(0, 2).is_coordinator and not Processes(1, 2).is_coordinator


def test_a_report_of_an_earlier_start_is_deleted_and_a_process_ignores_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(failure_detection.time, "sleep", lambda seconds: None)
    first, second = (PeerFailures(i, 3, tmp_path, lambda: "at step 7; restart") for i in range(2))
    second.report("train.batch_size is 3")
    assert first.message() == "process 1 of 3 ended: train.batch_size is 3 at step 7; restart"
    assert second.message() == "a process of 3 stopped answering at step 7; restart"
    first.clear()
    assert first.message() == "a process of 3 stopped answering at step 7; restart"
