"""Runs the HTTP API on uvicorn until a signal; requests that run then are answered first."""

import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from make_jax.errors import InputError, Terminated
from make_jax.serving.http.connections import MAX_CONNECTIONS, LimitedProtocol
from make_jax.signals import end, set_handler

GRACE_SECONDS = 10  # for requests that run when a signal comes
_OTHER_FILES = 200  # that the process has open besides connections
_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn's server, stopped through make_jax.signals where a program uses that."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self.stopped_by: signal.Signals | None = None
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Makes the first signal stop the server; a second one ends the process at once.

        Python's handlers are needed: uvloop replaces the pipe that make_jax.signals reads.
        """
        if not set_handler(lambda number: None):
            with super().capture_signals():
                yield
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)
        yield

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by is not None:
            end(signal.Signals(number), "; requests were cut off")
        self.stopped_by, self.should_exit = signal.Signals(number), True


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on the address; port 0 is a free one. InputError if the address is in use."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}; expected an address of this machine") from None
    family, kind, _, _, address = infos[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(f"{host} port {port}: {error.strerror}; set another one with --port") from None
    return listener


def _connection_limit() -> int:
    """How many connections there may be: fewer than MAX_CONNECTIONS where the system allows fewer open files."""
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - _OTHER_FILES))


def run(app: FastAPI, listener: socket.socket, on_start: Callable[[], None], on_stop: Callable[[], None]) -> None:
    """Answers requests until Ctrl-C or SIGTERM; calls `on_start` when clients can connect, `on_stop` at the end.

    Raises KeyboardInterrupt or Terminated, with a line for the terminal.
    """
    config = uvicorn.Config(
        app,
        http=type("Protocol", (LimitedProtocol,), {"max_connections": _connection_limit()}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # a client could choose its address, and with it its rate limit
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=32 << 10,  # of request line and headers
    )
    server = _Server(config, on_start)
    try:
        server.run(sockets=[listener])
    finally:
        on_stop()
    line = f"answered {server.server_state.total_requests:,} requests"
    if server.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt(f"interrupted; {line}")
    raise Terminated(f"stopped; {line}")
