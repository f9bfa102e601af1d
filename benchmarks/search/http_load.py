"""Load generator of `http_latency.py`: a process that sends searches over HTTP and prints what it measured as JSON.

    python benchmarks/search/http_load.py < JOB.json

Each client has one connection and sends its next request when the response to the last one is complete. Responses are
not decoded, so that the generator, which shares the cores with the server, needs little time of its own.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Load:
    """Requests that are left, and the measurements of the others."""

    def __init__(self, requests: Iterator[bytes], deadline: float) -> None:
        self._requests, self._deadline = requests, deadline
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.bytes = 0
        self.last = b""  # body of the last response

    def next_request(self) -> bytes | None:
        """The next request; None after the last one and after the deadline."""
        return next(self._requests, None) if time.perf_counter() < self._deadline else None


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = bytearray()
        self._end = 0  # of the response, once its headers are complete
        self._started = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Sends the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Sends the next request when the response is complete."""
        self._received += data
        if not self._end:
            headers = self._received.find(b"\r\n\r\n") + 4
            if headers < 4:
                return
            length = _LENGTH.search(self._received, 0, headers)
            self._body = headers
            self._end = headers + (int(length[1]) if length else 0)
        if len(self._received) >= self._end:
            self._load.seconds.append(time.perf_counter() - self._started)
            self._check()
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Counts an error if a response is missing."""
        if not self.done.done():
            self._load.errors.append(f"connection lost: {error}")
            self.done.set_result(None)

    def _check(self) -> None:
        load, body = self._load, bytes(self._received[self._body :])
        load.bytes += len(body)
        if self._received.startswith(b"HTTP/1.1 200 ") and b'"hits":[' in body:
            load.last = body
        else:
            load.errors.append(body[:200].decode("utf-8", "replace"))

    def _send(self) -> None:
        request = self._load.next_request()
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._received, self._end = bytearray(), 0
        self._started = time.perf_counter()
        self._transport.write(request)


def http_request(port: int, body: str) -> bytes:
    """The bytes of a search."""
    content = body.encode()
    head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def run(port: int, bodies: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """Measures requests of `clients` connections until the bodies or the seconds have run out."""
    requests = [http_request(port, body) for body in bodies]
    processor, started = time.process_time(), time.perf_counter()
    load = Load(iter(requests), started + seconds)
    loop = asyncio.get_running_loop()
    connected = [await loop.create_connection(lambda: Client(load), "127.0.0.1", port) for _ in range(clients)]
    await asyncio.gather(*(client.done for _, client in connected))
    return {
        "elapsed": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
        "seconds": load.seconds,
        "errors": load.errors,
        "bytes": load.bytes,
        "last": load.last.decode(),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(**json.load(sys.stdin)))))
