"""uvicorn's HTTP/1.1 with limits that it lacks: how long headers may take, how long a client may leave a response
unread or send the rest of a body that nobody reads, and how many connections there may be, with errors as JSON."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from make_jax.serving.http.errors import ApiError, error_response

HEADER_SECONDS = 10.0  # from the first byte of a connection or a request to the end of its headers
READ_SECONDS = 30.0  # until a client must have read a response that is complete, or the next part of another
MAX_CONNECTIONS = 2000
_CLOSE = {"Connection": "close"}


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol of one connection. Between two requests uvicorn's own limit applies, timeout_keep_alive."""

    header_seconds = HEADER_SECONDS
    read_seconds = READ_SECONDS
    max_connections = MAX_CONNECTIONS  # of the server; further ones get 503

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None  # of the headers, or of what is left after a response
        self._end: Callable[[], None] = self._end_headers  # what happens then
        self._read_deadline: asyncio.TimerHandle | None = None  # of the client, while the buffer is full

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        """Starts the time of the first request; answers 503 where there are too many connections."""
        super().connection_made(transport)
        self._set_deadline(self.header_seconds, self._end_headers)
        if len(self.connections) > self.max_connections:
            self.app = _too_many_connections

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops all times."""
        self._stop_deadline()
        self._stop_read_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stops the time of headers that are complete, and starts that of a further request."""
        super().data_received(data)
        if self._is_answering():
            self._stop_deadline()
        elif self.conn.their_state is h11.IDLE and (self._deadline is None or self._end != self._end_headers):
            self._set_deadline(self.header_seconds, self._end_headers)

    def on_response_complete(self) -> None:
        """Starts the time in which the client must read the response, and send the rest of a body."""
        super().on_response_complete()  # may begin to answer a further request that was sent behind it
        if not self._is_answering():
            self._set_deadline(self.read_seconds, self._end_response)

    def shutdown(self) -> None:
        """Ends the connection after the response that runs, which tells the client so: uvicorn's does not."""
        super().shutdown()
        if self._is_answering():
            self.cycle.scope["headers"] = [*self.cycle.scope["headers"], CLOSE_HEADER]  # as if the client had asked

    def pause_writing(self) -> None:
        """Starts the time in which the client must read: the buffer of the connection is full."""
        super().pause_writing()
        self._stop_read_deadline()
        self._read_deadline = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._stop_read_deadline()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP request, in the form of all errors, and closes the connection."""
        if self._is_answering():  # a damaged body: the application must neither wait for it nor answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # it has begun to answer
            self.transport.abort()
            return
        response = error_response(ApiError("bad_request", "the request is not valid HTTP/1.1", _CLOSE))
        head = h11.Response(status_code=response.status_code, headers=response.raw_headers)
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()
        self._set_deadline(self.read_seconds, self._end_response)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def _set_deadline(self, seconds: float, end: Callable[[], None]) -> None:
        self._stop_deadline()
        self._deadline, self._end = self.loop.call_later(seconds, end), end

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _end_headers(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()

    def _end_response(self) -> None:
        self._deadline = None
        is_left = self.transport.is_closing() or self.transport.get_write_buffer_size() > 0
        if is_left or self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError("too_many_search_requests", "too many connections; try again", {"Retry-After": "1", **_CLOSE})
    await error_response(error)(scope, receive, send)
