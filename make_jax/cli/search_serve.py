"""`search serve INDEX`: the HTTP API and the page of an index."""

import ipaddress
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from make_jax.cli.parsing import parse_options
from make_jax.errors import InputError
from make_jax.extras import import_optional

if TYPE_CHECKING:
    from make_jax.serving.http.settings import HttpSettings
    from make_jax.serving.service import IndexService

_DESCRIPTION = """\
Answers searches over HTTP and shows the page.

On another address than loopback the server needs API keys: --new-key NAME --api-keys FILE adds one and prints it."""
_RATE_WITH_KEYS = 100.0


@dataclass(frozen=True)
class ServeOptions:
    """Options of `search serve`."""

    index: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INDEX")]  # folder that search.py index wrote
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0: all of the machine
    port: int = 8000  # 0: a free one
    api_keys: str = ""  # file of hashed API keys; "": the environment variable MAKE_JAX_API_KEYS
    new_key: str = ""  # name of a key to add to --api-keys; the key is printed once, and no server starts
    # Name in the Host header, such as search.example.com. Without keys only loopback is accepted, with keys any.
    allowed_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    allowed_origin: tyro.conf.UseAppendAction[tuple[str, ...]] = ()  # site whose pages may call the API, https://...
    rate_limit: float | None = None  # requests a second of each key; 0: none; None: 100 with keys, none without
    max_upload_mb: float = 10.0  # largest picture that may be searched for
    clicks: str = ""  # file in the format of clicks.jsonl to which POST /v1/click appends; "": off
    compare: str = ""  # a second index, or another version of INDEX such as v2, beside the first; "": none
    compare_model: str = ""  # folder of its model if it was moved since it was built
    engine: Literal["flat", "edge", "cluster"] | None = None  # None: the one that the index names
    model: str = ""  # folder of the model if it was moved since the index was built
    onnx: str = ""  # folder of `convert.py export --to onnx` of the model, used where it encodes queries faster
    reload_seconds: float = 1.0  # between looks for a new version of the index


def serve(argv: Sequence[str], program: str) -> None:
    """Answers searches until a signal: raises Terminated or KeyboardInterrupt. InputError for wrong options."""
    options = parse_options(ServeOptions, argv, program=program, description=_DESCRIPTION)
    if options.new_key:
        _add_key(options)
        return
    _check(options)
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        import_optional(module, "serve", program)
    _serve(options)


def _serve(options: ServeOptions) -> None:
    """Answers requests until a signal."""
    from make_jax.serving.compare import open_services
    from make_jax.serving.http import server
    from make_jax.serving.http.app import create_app
    from make_jax.serving.http.request_log import log_as_json
    from make_jax.serving.opened import OpenOptions

    settings = settings_of(options)
    listener = server.listen(options.host, options.port)  # before the model is read, which takes longer
    with listener:
        _print(f"opening {options.index} and compiling its model for queries")
        opened = OpenOptions(options.engine, model=options.model, onnx=options.onnx)
        services = open_services(options.index, options.compare, opened, options.compare_model, _print)
        app = create_app(services, settings)
        for service in services.values():
            service.watch(options.reload_seconds)
        log_as_json()
        host, port = listener.getsockname()[:2]
        line = f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops)"
        server.run(app, listener, on_start=lambda: _print(line), on_stop=lambda: _close(services.values()))


def settings_of(options: ServeOptions) -> "HttpSettings":
    """The settings of the server. InputError for an address that others reach, without keys."""
    from make_jax.serving.http.api_keys import read_keys
    from make_jax.serving.http.settings import LOOPBACK_HOSTS, HttpSettings

    keys = read_keys(options.api_keys)
    if not keys and not is_loopback(options.host):
        raise InputError(
            f"--host is {options.host}, which other machines reach, and there are no API keys; "
            "add one: search.py serve INDEX --new-key NAME --api-keys FILE, or listen on 127.0.0.1"
        )
    own = () if keys and not options.allowed_host else LOOPBACK_HOSTS
    return HttpSettings(
        keys=keys,
        allowed_hosts=(*own, *options.allowed_host),
        allowed_origins=options.allowed_origin,
        rate_limit=(_RATE_WITH_KEYS if keys else 0.0) if options.rate_limit is None else options.rate_limit,
        max_upload_bytes=int(options.max_upload_mb * 1e6),
        clicks=Path(options.clicks) if options.clicks else None,
    )


def _close(services: Iterable["IndexService"]) -> None:
    for service in services:
        service.close()


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _add_key(options: ServeOptions) -> None:
    from make_jax.serving.http.api_keys import add_key

    if not options.api_keys:
        raise InputError("--new-key needs --api-keys, the file that the key's hash is added to")
    key = add_key(Path(options.api_keys), options.new_key)
    print(key)
    print(f"added {options.new_key} to {options.api_keys}, as a hash; the key is not shown again", file=sys.stderr)


def _check(options: ServeOptions) -> None:
    if not 0 <= options.port <= 65535:
        raise InputError(f"--port is {options.port}, expected 0 to 65535")
    for name, value, least in (
        ("--max-upload-mb", options.max_upload_mb, 0.1),
        ("--reload-seconds", options.reload_seconds, 0.05),
        ("--rate-limit", options.rate_limit or 0.0, 0.0),
    ):
        if not least <= value <= 1e6:
            raise InputError(f"{name} is {value:g}, expected {least:g} to 1,000,000")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
