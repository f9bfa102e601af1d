"""A local S3 server, moto's, as the fixtures `s3` and `bucket`, which conftest.py imports, so that there is one server.

`make test` runs the tests that use them. They need s3fs and moto_server next to this Python, as in the environment
VENV/s3 of the Makefile (s3fs pins an older python-dateutil than requirements.txt), and are skipped without them.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SECONDS_TO_START = 60.0


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An fsspec file system of the server, which the environment of this process and its children points to."""
    s3fs = pytest.importorskip("s3fs", reason="the extra [s3] is not installed")
    neighbor = Path(sys.executable).with_name("moto_server")
    program = str(neighbor) if neighbor.exists() else shutil.which("moto_server")
    if program is None:
        pytest.skip("moto_server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen([program, "-p", str(port)], stdout=log, stderr=log)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        _wait_for(port, server)
        yield s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    server.kill()
    server.wait()
    log.close()


@pytest.fixture
def bucket(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket; mirrors are in `tmp_path`/machine."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.mkdir(name)
    use_machine(monkeypatch, tmp_path / "machine")
    return f"s3://{name}"


def use_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on mirrors are in `folder`; a new one is as another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"moto_server did not start: {os.environ.get('AWS_ENDPOINT_URL')}")
