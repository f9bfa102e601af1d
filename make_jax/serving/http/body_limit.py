"""Bounds the size of a request's body and the time it takes to arrive."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from make_jax.serving.http.errors import ApiError
from make_jax.serving.http.settings import HttpSettings

_CLOSE = {"Connection": "close"}


class BodyLimit:
    """ASGI middleware that raises ApiError for a body above its limit or too slow.

    The limit is checked with the Content-Length, before anything is read, and again while the body arrives.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application with a bounded `receive`."""
        await self._app(scope, self._bounded(scope, receive) if scope["type"] == "http" else receive, send)

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
    """The connection stays open: a client that is still sending could not read an error before a reset."""
    return ApiError("payload_too_large", f"the body is larger than {limit:,} bytes")
