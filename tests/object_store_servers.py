"""Local servers of the S3 API and the Google Cloud Storage API, as the fixtures `store` and `bucket`.

conftest.py imports them, so that there is one server of each kind. `make test` runs the tests that use them, with each
kind. They need s3fs and moto_server, or gcsfs and gcp-storage-emulator, next to this Python, as in the environment
VENV/stores of the Makefile (s3fs pins an older python-dateutil than requirements.txt), and are skipped without them.
"""

import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_SECONDS_TO_START = 60.0
_ADDRESS = "http://127.0.0.1:{port}"


class _Kind(NamedTuple):
    """A kind of object store."""

    library: str
    system: str  # the class of its file system
    program: str  # the server
    arguments: tuple[str, ...]
    environment: dict[str, str]


_KINDS = {
    "s3": _Kind(
        "s3fs",
        "S3FileSystem",
        "moto_server",
        ("-p", "{port}"),
        {
            "AWS_ENDPOINT_URL": _ADDRESS,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
    ),
    "gs": _Kind(
        "gcsfs",
        "GCSFileSystem",
        "gcp-storage-emulator",
        ("start", "--host", "127.0.0.1", "--port", "{port}", "--in-memory"),
        {"STORAGE_EMULATOR_HOST": _ADDRESS, "GOOGLE_CLOUD_PROJECT": "test"},
    ),
}


class _Servers:
    """Starts the server of a kind when it is first requested; all run until the end of the session, because fsspec
    keeps its file systems, and with them the addresses."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self._systems: dict[str, Any] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def system(self, name: str) -> Any:
        """The fsspec file system of a kind, to which the environment of this process and its children points."""
        if name not in self._systems:
            self._systems[name] = self._start(_KINDS[name])
        return self._systems[name]

    def _start(self, kind: _Kind) -> Any:
        library = pytest.importorskip(kind.library, reason=f"{kind.library} is not installed")
        neighbor = Path(sys.executable).with_name(kind.program)
        program = str(neighbor) if neighbor.exists() else shutil.which(kind.program)
        if program is None:
            pytest.skip(f"{kind.program} is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = self._folder / f"{kind.program}.log"
        command = [program, *(argument.format(port=port) for argument in kind.arguments)]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, cwd=self._folder)
        self._processes.append(server)
        for variable, value in kind.environment.items():
            self._patch.setenv(variable, value.format(port=port))
        self._patch.setenv("NO_PROXY", "127.0.0.1")
        _wait_for(port, server, log)
        return getattr(library, kind.system)(use_listings_cache=False, skip_instance_cache=True)

    def stop(self) -> None:
        """Ends all servers."""
        for server in self._processes:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def store_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Servers]:
    """The servers of this session."""
    with pytest.MonkeyPatch.context() as patch:
        servers = _Servers(tmp_path_factory.mktemp("object-stores"), patch)
        yield servers
        servers.stop()


@pytest.fixture(params=_KINDS)
def store(request: pytest.FixtureRequest, store_servers: _Servers) -> Any:
    """An fsspec file system of a server of each kind."""
    return store_servers.system(request.param)


@pytest.fixture
def bucket(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket; mirrors are in `tmp_path`/machine."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    store.mkdir(name)
    use_machine(monkeypatch, tmp_path / "machine")
    return f"{scheme(store)}://{name}"


def scheme(store: Any) -> str:
    """The scheme of a store's URLs."""
    protocols: tuple[str, ...] = (store.protocol,) if isinstance(store.protocol, str) else tuple(store.protocol)
    return next(name for name in _KINDS if name in protocols)


def use_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on mirrors are in `folder`; a new one is as another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()}")
