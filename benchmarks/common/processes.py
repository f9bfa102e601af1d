"""Child processes of tests and benchmarks: programs of this repository, and several processes of one run."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT
from make_jax.errors import InputError

_DEVICES = re.compile(r"--xla_force_host_platform_device_count=\d+")


def start(
    arguments: Sequence[str], count: int, devices: int, logs: Path, *, program: Sequence[str] = ("train.py",)
) -> list[subprocess.Popen[bytes]]:
    """Starts `program` with `arguments` as `count` connected processes and returns them in order.

    Each has `devices` simulated devices and appends its output to `logs`/process-I.txt. With `count` 1 the process is
    not distributed. The caller waits for the processes and kills them if necessary.
    """
    logs.mkdir(parents=True, exist_ok=True)
    flags = f"{_DEVICES.sub('', os.environ.get('XLA_FLAGS', ''))} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip(), "PYTHONPATH": str(ROOT)}
    coordinator = f"127.0.0.1:{free_port()}"
    started = []
    for index in range(count):
        settings = (
            {"coordinator_address": coordinator, "num_processes": count, "process_id": index} if count > 1 else {}
        )
        options = [f"--distributed.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, *program, *arguments, *options]
        with log_file(logs, index).open("ab") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT))
    return started


def wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int]:
    """Returns the exit codes in order; after `seconds` for one process, kills all and raises TimeoutExpired."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def log_file(logs: Path, index: int) -> Path:
    """Returns the file with the output of a process."""
    return logs / f"process-{index}.txt"


def free_port() -> int:
    """Returns an unused TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_program(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs `PYTHON PROGRAM ...` in the repository root, with its output on the terminal.

    Raises InputError when it fails.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths} | (environment or {}), check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command[1:3])} ended with exit code {done.returncode}; run this again to go on")
