"""Clients for `fuzz_requests.py`: usual ones, and ones that are slow or drop the connection."""

import contextlib
import http.client
import select
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.robustness.fuzz_requests import FuzzRequest

SLOW = ("slow headers", "slow body", "slow reader")
_BLOCK = bytes(1 << 20)
_BYTE_SECONDS = 0.2  # between two bytes that a slow client sends, or 512 that it reads


_ESTABLISHED = "01"  # in /proc/net/tcp


class Outcome(NamedTuple):
    """What came back."""

    status: int | None  # None: the connection was closed
    seconds: float
    body: bytes = b""
    error: str = ""


def send(address: tuple[str, int], request: FuzzRequest, timeout: float) -> Outcome:
    """Sends a request as its `behavior` states, and returns what came back."""
    started = time.monotonic()
    with socket.socket() as connection:
        connection.settimeout(timeout)
        if request.behavior == "slow reader":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        status, body, error = None, b"", ""
        try:
            if _send(connection, request, started + timeout):
                status, body = _receive(connection, request.method)
        except (OSError, http.client.HTTPException) as problem:
            error = f"{type(problem).__name__}: {problem}"
        return Outcome(status, time.monotonic() - started, body, error)


def _send(connection: socket.socket, request: FuzzRequest, deadline: float) -> bool:
    """Sends the request; whether an answer is to be read."""
    head = request.data.index(b"\r\n\r\n") + 4 if request.behavior == "slow body" else 0
    if request.behavior in ("slow headers", "slow body"):
        connection.sendall(request.data[:head])
        for position in range(head, len(request.data) - 1):
            connection.sendall(request.data[position : position + 1])
            if select.select([connection], [], [], _BYTE_SECONDS)[0] or time.monotonic() > deadline:
                return True
        connection.sendall(request.data[-1:])
        return True
    with contextlib.suppress(ConnectionError):  # the server has answered and closed before it has read all
        connection.sendall(request.data)
        for _ in range(request.repeated // len(_BLOCK)):
            connection.sendall(_BLOCK)
    if request.behavior == "slow reader":
        while _is_open(connection) and time.monotonic() < deadline:
            connection.recv(512)
            time.sleep(_BYTE_SECONDS)
        return False
    if request.behavior.startswith("drop"):
        if request.behavior == "drop response":
            connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        return False
    return True


def _is_open(connection: socket.socket) -> bool:
    """Whether the server has the connection. The kernel may still send what a server that closed it has written."""
    ends = [f":{port:04X}" for _, port in (connection.getpeername(), connection.getsockname())]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any([line[1][-5:], line[2][-5:], line[3]] == [*ends, _ESTABLISHED] for line in lines)


def _receive(connection: socket.socket, method: str) -> tuple[int, bytes]:
    with http.client.HTTPResponse(connection, method=method) as response:
        response.begin()
        return response.status, response.read()
