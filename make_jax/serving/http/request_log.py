"""Request ids, one JSON line for each request, metrics, security headers, and 500 for a fault of the server.

A line has no query text, no parameter, no id of a product and no address of a client.
"""

import json
import logging
import re
import sys
import time
import traceback
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from make_jax.errors import InputError
from make_jax.serving.http.errors import ApiError, error_response
from make_jax.serving.http.metrics import Metrics

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_METHODS = ("GET", "HEAD", "POST", "OPTIONS")  # others share a label: a client must not create labels
HEADERS = {
    # The page uses its own files only. blob: shows pictures that were fetched with an API key or dropped on the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `fields` of the record are further members."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(content, ensure_ascii=False)


def log_as_json() -> None:
    """Makes the server and uvicorn log JSON lines on stderr. On a terminal, requests are not logged but for faults."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    # python_multipart warns with bytes that a client sent.
    levels = {"make_jax.serving": logging.INFO, "uvicorn": logging.WARNING, "python_multipart": logging.ERROR}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
    _log.setLevel(logging.WARNING if sys.stderr.isatty() else logging.NOTSET)  # NOTSET: the level above


class RequestLog:
    """The outermost ASGI middleware. No exception leaves it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application, and logs and counts the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "X-Request-Id": request_id}.items():
                    headers.setdefault(name, value)
            await send(message)

        self._metrics.running.inc()
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or 499  # as nginx: the client closed the connection
        except Exception as error:
            known = isinstance(error, InputError)  # a damaged file of the index: its line says all
            event = str(error) if known else "fault"
            _log.error("%s", event, exc_info=None if known else error, extra={"fields": {"request_id": request_id}})
            if not status:
                fault = ApiError("internal", f"the server failed; its log has the cause under request id {request_id}")
                await error_response(fault)(scope, receive, send_with_headers)
        finally:
            self._metrics.running.dec()
            self._record(scope, status, time.perf_counter() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields = {
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "key": scope["state"].get("key_name"),
        }
        _log.info("request", extra={"fields": fields})
