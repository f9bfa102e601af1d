"""Routes of the server: /healthz, /readyz, /metrics, /errors, and the files of the page."""

import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from make_jax.errors import InputError
from make_jax.serving.http import openapi
from make_jax.serving.http.answers import JsonResponse
from make_jax.serving.http.context import context_of
from make_jax.serving.http.errors import PAGE, ApiError, error_page
from make_jax.serving.requests import SearchRequest

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_log = logging.getLogger(__name__)
router = APIRouter()


class PageFile(NamedTuple):
    """A file of the page."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """The files of the page by name. Only these are served: no path of a request reaches the file system."""
    files = {}
    for path in sorted((Path(__file__).parents[1] / "page").iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            files[path.name] = PageFile(content, f"{_TYPES[path.suffix]}; charset=utf-8", etag)
    return files


@router.get("/healthz", **openapi.HEALTH)
async def healthz() -> Response:
    """Whether the process answers."""
    return JsonResponse({"status": "available"})


@router.get("/readyz", **openapi.READY)
async def readyz(request: Request) -> Response:
    """Whether a search of each index succeeds."""
    context = context_of(request)
    versions = {}
    try:
        for name in context.services:
            versions[name] = await context.call(lambda s: s.search(SearchRequest(limit=1)).version, name)
    except ApiError:
        raise
    except Exception as error:
        _log.error("not ready: %s", error, exc_info=None if isinstance(error, InputError) else error)
        raise ApiError("not_ready", "a search failed; the server's log has the cause") from None
    return JsonResponse({"status": "ready", "versions": versions})


@router.get("/metrics", response_class=Response, **openapi.METRICS)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    context = context_of(request)
    context.metrics.set_indexes({name: service.info for name, service in context.services.items()})
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(PAGE, include_in_schema=False)
async def errors() -> Response:
    """A page with the meaning of each error code."""
    return Response(error_page(), media_type="text/html; charset=utf-8")


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@router.get("/page/{name}", include_in_schema=False)
async def page_file(request: Request) -> Response:
    """A file of the page."""
    name = request.path_params["name"]
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise ApiError("not_found", "there is nothing at this address")
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",
    }  # revalidated each time, so that an upgrade shows at once
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
