"""The server on a socket: slow and hostile clients, dropped connections, a graceful stop."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from make_jax.errors import InputError
from make_jax.serving.http import server
from make_jax.serving.http.app import create_app
from make_jax.serving.http.connections import LimitedProtocol
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.requests import SearchHit
from tests.conftest import ROOT
from tests.serving.http.memory_service import MemoryService, webp
from tests.serving.http.serving_thread import serving

LIMITS = HttpSettings(receive_seconds=0.5, max_upload_bytes=200_000, max_body_bytes=2000)


@pytest.fixture(scope="module")
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture(scope="module")
def address(service: MemoryService) -> Iterator[tuple[str, int]]:
    """A server with short limits, in a thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LimitedProtocol, "header_seconds", 0.5)
        patch.setattr(LimitedProtocol, "read_seconds", 0.5)
        patch.setattr(server, "MAX_CONNECTIONS", 20)
        with serving(create_app({"test": service}, LIMITS)) as address:
            yield address


def request(address, method="GET", path="/v1/search?q=red", body=None, headers=()):
    connection = http.client.HTTPConnection(*address, timeout=4)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def raw(address, data: bytes, rest: Callable[[socket.socket], None] = lambda _: None) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(address, timeout=2) as connection:
        connection.sendall(data)
        rest(connection)
        received = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := connection.recv(65536):
                received += part
        return received


def test_searches_and_the_page_over_a_socket(address):
    status, body = request(address)
    assert status == 200 and json.loads(body)["hits"][0]["id"] == "1"
    assert request(address, path="/healthz")[0] == 200


def test_a_body_above_the_limit_is_refused_before_it_is_sent(address):
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    for kind, length in ((b"application/json", 2001), (b"multipart/form-data; boundary=b", 100 << 20)):
        received = raw(address, head % (kind, length))
        assert received.startswith(b"HTTP/1.1 413") and b"payload_too_large" in received


def test_a_body_above_the_limit_without_a_length_is_refused(address):
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    received = raw(address, head + chunk * 3)
    assert received.startswith(b"HTTP/1.1 413")


def test_an_upload_within_its_own_limit_is_accepted_and_a_larger_one_refused(address):
    for padding, expected in ((100_000, 200), (300_000, 413)):
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + webp() + bytes(padding)
        status, _ = request(
            address, "POST", "/v1/search", part + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert status == expected


def test_a_body_that_does_not_arrive_in_time_is_an_error(address):
    head = (
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
    )
    started = time.monotonic()

    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(15):  # each byte is in time, all of them are not
                connection.sendall(b" ")
                time.sleep(0.05)

    received = raw(address, head, trickle)
    assert received.startswith(b"HTTP/1.1 408") and b"request_timeout" in received
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc", b"G"])
def test_headers_that_do_not_arrive_in_time_end_the_connection(address, start):
    started = time.monotonic()

    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(15 if start else 0):
                connection.sendall(b"x")
                time.sleep(0.05)

    assert raw(address, start, trickle) == b""
    assert time.monotonic() - started < 5


def test_a_second_request_on_a_connection_has_the_time_of_the_first(address):
    connection = http.client.HTTPConnection(*address, timeout=4)
    for pause in (0, 0.3, 0.3, 0.3):
        time.sleep(pause)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b'{"status":"available"}'
    connection.sock.sendall(b"GET /healthz HTTP/1.1\r\nHo")
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        assert connection.sock.recv(100) == b""
    assert time.monotonic() - started < 3
    connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"a" * 400_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 400_000 + b" HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_is_no_fault(address, data):
    received = raw(address, data)
    assert not received.startswith(b"HTTP/1.1 5"), received[:100]
    assert request(address)[0] == 200


def test_what_is_no_request_has_an_error_as_json(address):
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    damaged_body = head + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n"
    for data in (b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", damaged_body):
        received, _, body = raw(address, data).partition(b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400") and b"application/json" in received
        assert json.loads(body)["code"] == "bad_request"


def test_a_client_that_does_not_read_its_response_is_disconnected(address, service):
    big = "x" * 8_000_000
    service.products["big"] = SearchHit("big", big, {}, False, 0.0)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    connection.sendall(b"GET /v1/products/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    started = time.monotonic()
    time.sleep(1.5)
    received = 0
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            received += len(part)
    assert received < len(big) and time.monotonic() - started < 6
    assert len(request(address, path="/v1/products/big")[1]) > len(big)
    connection.close()


def test_the_rest_of_a_body_that_nobody_reads_has_a_time(address):
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(address, timeout=4) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(b"x")
                time.sleep(0.05)
            assert connection.recv(100) == b""
        assert time.monotonic() - started < 2


def test_too_many_connections_are_refused_and_others_go_on(address):
    first = http.client.HTTPConnection(*address, timeout=4)
    first.request("GET", "/healthz")
    assert first.getresponse().read()
    idle = [socket.create_connection(address) for _ in range(19)]
    status, body = request(address)
    assert status == 503 and json.loads(body)["code"] == "too_many_search_requests"
    first.request("GET", "/healthz")
    assert first.getresponse().status == 200
    for connection in (first, *idle):
        connection.close()
    deadline = time.monotonic() + 4
    while request(address)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_dropped_connections_leave_the_server_working(address):
    for data in (
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"GET /v1/search HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1",
    ):
        for _ in range(20):
            connection = socket.create_connection(address)
            connection.sendall(data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()
    assert request(address)[0] == 200


def test_a_port_in_use_and_a_wrong_host_are_errors(address):
    with pytest.raises(InputError, match=rf"127.0.0.1 port {address[1]}: Address already in use; set another one"):
        server.listen("127.0.0.1", address[1])
    with pytest.raises(InputError, match=r"--host no\.such\.host\.invalid: .*expected an address of this machine"):
        server.listen("no.such.host.invalid", 0)


PROGRAM = """
import sys, time
from make_jax.errors import exit_cleanly
from make_jax.serving.http import server
from make_jax.serving.http.app import create_app
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.requests import SearchHit
from make_jax.signals import exit_on_signals
from tests.serving.http.memory_service import MemoryService

class Slow(MemoryService):
    def search(self, request):
        print("searching", flush=True)
        time.sleep(float(request.q or 0))
        return super().search(request)

exit_on_signals()
listener = server.listen("127.0.0.1", 0)
def started(): print(listener.getsockname()[1], flush=True)
def stopped(): print("closed", flush=True)
exit_cleanly(lambda: server.run(create_app({"test": Slow()}, HttpSettings()), listener, started, stopped))
"""


@pytest.mark.parametrize(
    ("signals", "code", "line"),
    [
        ([signal.SIGTERM], 0, "stopped; answered 1 requests"),
        ([signal.SIGINT], 130, "interrupted; answered 1 requests"),
        ([signal.SIGTERM, signal.SIGTERM], 143, "stopped by SIGTERM; requests were cut off"),
    ],
)
def test_a_signal_stops_after_the_running_requests_and_a_second_one_at_once(signals, code, line):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    results: list[tuple[int, str | None]] = []

    def search() -> None:
        seconds = "1" if len(signals) == 1 else "20"
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
            connection.request("GET", f"/v1/search?q={seconds}")
            response = connection.getresponse()
            results.append((response.status, response.getheader("connection")))
            connection.close()

    thread = threading.Thread(target=search)
    thread.start()
    assert process.stdout.readline() == "searching\n"
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    if len(signals) == 1:  # no new connections meanwhile
        with pytest.raises(ConnectionRefusedError):
            request(("127.0.0.1", port), path="/healthz")
    try:
        out, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    thread.join()
    assert (process.returncode, errors) == (code, f"{line}\n")
    assert (results, out) == (([(200, "close")], "closed\n") if len(signals) == 1 else ([], ""))
