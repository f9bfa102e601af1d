"""Makes the FastAPI application of search services."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

import make_jax
from make_jax.serving.http import product_routes, search_routes, server_routes
from make_jax.serving.http.access import Access
from make_jax.serving.http.answers import JsonResponse
from make_jax.serving.http.body_limit import BodyLimit
from make_jax.serving.http.clicks import ClickFile
from make_jax.serving.http.context import Context
from make_jax.serving.http.errors import ApiError, error_response
from make_jax.serving.http.openapi import DescribedApp
from make_jax.serving.http.request_log import RequestLog
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.search_service import SearchService


def create_app(services: Mapping[str, SearchService], settings: HttpSettings) -> FastAPI:
    """Returns the application of services by the names of their indexes; the first is the default.

    InputError if the file of clicks cannot be opened.
    """
    app = DescribedApp(
        title="make_jax search",
        version=make_jax.__version__,
        description="Product search. Names follow Meilisearch's. Errors: message, code, type, link.",
        docs_url=None,  # its page loads scripts of another site
        redoc_url=None,
        default_response_class=JsonResponse,
        redirect_slashes=False,
    )
    app.needs_keys = bool(settings.keys)
    clicks = ClickFile(settings.clicks) if settings.clicks else None
    app.state.context = context = Context(services, settings, clicks=clicks)
    for routes in (search_routes, product_routes, server_routes):
        app.include_router(routes.router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(Access, settings=settings)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["Retry-After", "X-Request-Id"],
            max_age=600,
        )
    app.add_middleware(RequestLog, metrics=context.metrics)
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Errors of the router: no route, or another method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        path = getattr(request.scope.get("route"), "path_format", "")
        described = request.app.openapi()["paths"].get(path, {"get": {}})  # a route knows its own method only
        allowed = ", ".join(sorted(method.upper() for method in described))
        text = f"found {request.method[:20]}, expected {allowed}"
        return error_response(ApiError("method_not_allowed", text, {"Allow": allowed}))
    if error.status_code == 404:
        return error_response(ApiError("not_found", "there is nothing at this address"))
    return error_response(ApiError("bad_request", str(error.detail)))
