"""Who may send a request: checks the Host header, the API key and the rate limit before a body is read."""

import math

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from make_jax.serving.http.errors import PAGE, ApiError, error_response
from make_jax.serving.http.rate_limit import RateLimiter
from make_jax.serving.http.settings import HttpSettings

OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json", PAGE)  # without a key; the page has no data
_OPEN_FOLDER = "/page/"


class Access:
    """ASGI middleware that rejects requests of other hosts, without a valid key, and above the rate limit.

    Every path needs a key unless it is listed as open. The Host header is checked because the page of another site can
    otherwise reach a server on loopback under its own name (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app, self._keys, self._hosts = app, settings.keys, settings.allowed_hosts
        self._limiter = RateLimiter(settings.rate_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes an allowed request on; answers others with an error."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        path: str = scope["path"]
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts and path != "/healthz":
            raise ApiError(
                "invalid_host", f"the Host header is not one of {', '.join(self._hosts)}; add it with --allowed-host"
            )
        client = (scope.get("client") or ("", 0))[0]
        if path in OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return
        if self._keys:
            client = self._key_name(headers)
            scope["state"]["key_name"] = client
        wait = self._limiter.wait(client)
        if wait:
            seconds = math.ceil(wait)
            raise ApiError(
                "too_many_requests", f"too many requests; try again in {seconds} s", {"Retry-After": str(seconds)}
            )

    def _key_name(self, headers: Headers) -> str:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                "missing_authorization_header",
                "the server needs an API key, expected the header Authorization: Bearer KEY",
                {"WWW-Authenticate": "Bearer"},
            )
        name = self._keys.name(key.strip())
        if name is None:
            raise ApiError("invalid_api_key", "the API key is wrong")
        return name


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
