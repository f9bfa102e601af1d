"""Limits and switches of an HTTP server."""

from dataclasses import dataclass, field
from pathlib import Path

from make_jax.serving.http.api_keys import ApiKeys

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class HttpSettings:
    """Limits and switches; the defaults are those of a server on loopback."""

    keys: ApiKeys = field(default_factory=ApiKeys)  # none: every client may search
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS  # of the Host header; (): any
    allowed_origins: tuple[str, ...] = ()  # other sites whose pages may call the API; (): none
    rate_limit: float = 0.0  # requests a second of each key, or address without keys; 0: no limit
    max_upload_bytes: int = 10 << 20  # of a multipart form
    max_body_bytes: int = 64 << 10  # of another body
    receive_seconds: float = 30.0  # until a body must have arrived
    max_threads: int = 64  # that wait for searches; these share batches
    max_waiting: int = 512  # requests that wait for a thread; further ones are refused
    max_image_searches: int = 2  # at a time: a decoded picture may need 200 MB
    clicks: Path | None = None  # file to which POST /v1/click appends; None: no such address
