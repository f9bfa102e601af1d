"""Closes connections whose request line and headers do not arrive in time; uvicorn has no such limit."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # from the first byte of a connection or a request to the end of its headers


class HeaderTimeoutProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a deadline for headers."""

    header_seconds = HEADER_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        """Starts the time of the first request."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the time."""
        self._headers_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Starts the time of a further request, and stops it when the headers are complete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._headers_arrived()
        elif self._deadline is None:
            self._expect_headers()

    def _expect_headers(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._close)

    def _headers_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()
