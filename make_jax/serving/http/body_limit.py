"""Bounds the size of a request's body and the time it takes to arrive, and the time a client takes to read."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from make_jax.serving.http.errors import ApiError
from make_jax.serving.http.settings import HttpSettings

_CLOSE = {"Connection": "close"}  # the rest of the body is not read: the connection cannot carry another request


class ClientTooSlowError(Exception):
    """A client did not read its response in time; the connection is closed."""


class BodyLimit:
    """ASGI middleware that raises ApiError for a body above its limit or too slow, and ends slow responses.

    The limit is checked with the Content-Length, before anything is read, and again while the body arrives.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application with bounded `receive` and `send`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def bounded_send(message: Message) -> None:
            try:
                await asyncio.wait_for(send(message), self._settings.send_seconds)
            except TimeoutError:
                raise ClientTooSlowError from None

        await self._app(scope, self._bounded(scope, receive), bounded_send)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        headers, settings = Headers(scope=scope), self._settings
        form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = settings.max_upload_bytes if form else settings.max_body_bytes
        length = headers.get("content-length", "")
        declared = int(length) if length.isdecimal() else 0
        loop = asyncio.get_running_loop()
        deadline, received, complete = loop.time() + settings.receive_seconds, 0, False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:  # only a disconnect can follow
                return await receive()
            if declared > limit:
                raise _too_large(limit)
            try:
                message = await asyncio.wait_for(receive(), deadline - loop.time())
            except TimeoutError:
                text = f"the body did not arrive within {settings.receive_seconds:g} s"
                raise ApiError("request_timeout", text, _CLOSE) from None
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            complete = not message.get("more_body", False)
            return message

        return bounded_receive


def _too_large(limit: int) -> ApiError:
    return ApiError("payload_too_large", f"the body is larger than {limit:,} bytes", _CLOSE)
