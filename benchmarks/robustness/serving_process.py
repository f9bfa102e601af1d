"""A `search.py serve` of its own for a measurement: with a key, its log in a file, and its memory watched."""

import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks import ROOT
from make_jax.errors import InputError

_SECONDS_TO_START = 180.0
_SAMPLE_SECONDS = 0.1


class ServingProcess:
    """A running server. Use it in a `with` statement, which ends it."""

    def __init__(self, index: Path, engine: str) -> None:
        """Starts the server and waits until it answers. InputError if it does not start."""
        self._folder = tempfile.TemporaryDirectory()
        self.log = Path(self._folder.name) / "log"
        keys = Path(self._folder.name) / "keys"
        serve = [sys.executable, str(ROOT / "search.py"), "serve", str(index), "--api-keys", str(keys)]
        added = subprocess.run([*serve, "--new-key", "fuzz"], capture_output=True, text=True, cwd=ROOT, check=True)
        self.key = added.stdout.strip()
        limits = ["--rate-limit", "0", "--allowed-host", "127.0.0.1", "--clicks", str(keys.with_name("clicks"))]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*serve, "--port", "0", "--engine", engine, *limits], stderr=log, cwd=ROOT)
        self.port = self._wait_for_port()
        self.largest_mb = 0.0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def __enter__(self) -> "ServingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._sampler.join()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON of a successful answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", f"{path}?{urlencode(parameters)}", headers={"Authorization": f"Bearer {self.key}"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if response.status != 200:
            raise ValueError(f"{path}: status {response.status}: {content[:200]!r}")
        return json.loads(content)

    def memory_mb(self) -> float:
        """The resident memory of the server and its processes."""
        return sum(_resident_mb(pid) for pid in _tree(self._process.pid))

    def stop(self) -> tuple[int, float]:
        """Sends SIGTERM; returns the exit code and the seconds until the end."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60), time.monotonic() - started

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := re.search(r"^http://127\.0\.0\.1:(\d+)", self.log.read_text("utf-8"), re.MULTILINE):
                return int(found[1])
            time.sleep(0.1)
        self._process.kill()
        raise InputError(f"search.py serve has not started: {self.log.read_text('utf-8')[-500:]}")

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.largest_mb = max(self.largest_mb, self.memory_mb())


def _tree(pid: int) -> list[int]:
    """A process and those that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the thread has ended
            continue
        found += [process for child in children for process in _tree(int(child))]
    return found


def _resident_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) / 1000 if found else 0.0
