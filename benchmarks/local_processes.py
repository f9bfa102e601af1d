"""Several processes of one run on this machine, as a pod's hosts would be: for tests and benchmarks."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_DEVICES = re.compile(r"--xla_force_host_platform_device_count=\d+")


def start(
    arguments: Sequence[str], count: int, devices: int, logs: Path, *, program: Sequence[str] = ("train.py",)
) -> list[subprocess.Popen[bytes]]:
    """Starts `program` with `arguments` as `count` processes that find each other, and returns them in their order.

    Each has `devices` pretended devices and writes what it says to `logs`/process-I.txt (appended). With `count` 1 it
    is one plain process. The caller waits for them, and kills them if need be.
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
        with said_by(logs, index).open("ab") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT))
    return started


def wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int]:
    """The exit codes of all, in their order; kills what is left and raises TimeoutExpired after `seconds` for each."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def said_by(logs: Path, index: int) -> Path:
    """Where a process writes what it says."""
    return logs / f"process-{index}.txt"


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
