"""Routes of searches: /v1/search, /v1/similar, /v1/suggest."""

import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from make_jax.serving.http import openapi
from make_jax.serving.http.answers import JsonResponse, search_json
from make_jax.serving.http.context import Context, context_of, index_of
from make_jax.serving.http.errors import ApiError
from make_jax.serving.http.parameters import (
    MAX_QUERY,
    SearchParameters,
    code_of_parameter,
    parameters_of_json,
    parameters_of_pairs,
    search_request,
)
from make_jax.serving.search_service import RequestError, SearchService

MAX_SUGGESTIONS = 20
_FORM_FIELDS = 200  # in a multipart form; `like` and `unlike` repeat
_FORM_FIELD_BYTES = 64 << 10
router = APIRouter()


@router.get("/v1/search", **openapi.SEARCH_GET)
async def search_by_query_string(request: Request) -> Response:
    """The products that are most similar to the query."""
    return await _answer(context_of(request), parameters_of_pairs(request.query_params.multi_items()))


@router.post("/v1/search", **openapi.SEARCH_POST)
async def search_by_body(request: Request) -> Response:
    """The same search, with its parameters in a JSON object, or in a multipart form with the picture `image`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await _answer(context_of(request), parameters_of_json(await request.body()))
    if kind != "multipart/form-data":
        raise ApiError(
            "invalid_content_type", "the body has another type, expected application/json or multipart/form-data"
        )
    pairs, image = await _form(request)
    return await _answer(context_of(request), parameters_of_pairs(pairs), image)


@router.get("/v1/similar/{product_id:path}", **openapi.SIMILAR)
async def similar(request: Request) -> Response:
    """The products that are most similar to a product, without itself."""
    product_id = request.path_params["product_id"]
    parameters = parameters_of_pairs(request.query_params.multi_items())
    context = context_of(request)
    if await context.call(lambda service: service.product(product_id), parameters.index) is None:
        raise ApiError("document_not_found", "the index has no such product")
    return await _answer(context, parameters, like=(product_id,))


@router.get("/v1/suggest", **openapi.SUGGEST)
async def suggest(request: Request) -> Response:
    """Queries that begin with the text or continue it."""
    values = dict(request.query_params)
    unknown = sorted(values.keys() - {"q", "limit", "index"})
    if unknown:
        raise ApiError("bad_request", f"unknown parameter {unknown[0][:60]!r}, expected q, limit and index")
    text, limit = values.get("q", ""), values.get("limit", "8")
    if len(text) > MAX_QUERY:
        raise ApiError("invalid_suggest_q", f"q has {len(text):,} characters, expected at most {MAX_QUERY:,}")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= MAX_SUGGESTIONS):
        raise ApiError("invalid_suggest_limit", f"limit is {limit[:60]!r}, expected 1 to {MAX_SUGGESTIONS}")
    started = time.perf_counter()
    context = context_of(request)
    suggestions = await context.call(lambda service: service.suggest(text, int(limit)), index_of(request))
    milliseconds = round((time.perf_counter() - started) * 1000)
    return JsonResponse({"suggestions": suggestions, "query": text, "processingTimeMs": milliseconds})


async def _form(request: Request) -> tuple[list[tuple[str, str]], bytes | None]:
    """The texts of a multipart form, and its picture."""
    pairs: list[tuple[str, str]] = []
    image: bytes | None = None
    try:
        async with request.form(max_files=1, max_fields=_FORM_FIELDS, max_part_size=_FORM_FIELD_BYTES) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    pairs.append((name, value))
                elif name == "image":
                    image = await value.read()
                else:
                    raise ApiError("bad_request", f"unknown file {name[:60]!r}, expected image")
    except HTTPException as error:  # the parser's
        raise ApiError("malformed_payload", f"the multipart form is damaged: {error.detail}") from None
    return pairs, image or None  # a form without a chosen file has an empty one


async def _answer(
    context: Context, parameters: SearchParameters, image: bytes | None = None, like: tuple[str, ...] = ()
) -> Response:
    run = partial(_search, parameters=parameters, image=image, like=like)
    content = await context.call(run, parameters.index, image=image is not None)
    if not content["hits"]:
        context.metrics.no_hits.inc()
    return JsonResponse(content)


def _search(
    service: SearchService, parameters: SearchParameters, image: bytes | None, like: tuple[str, ...]
) -> dict[str, Any]:
    """Runs in a thread, JSON included."""
    started = time.perf_counter()
    if image is not None and not service.info.accepts_images:
        raise ApiError("invalid_search_image", "the model of the index does not encode pictures of queries")
    request = search_request(parameters, image, like)
    try:
        response = service.search(request)
    except RequestError as error:
        raise ApiError(code_of_parameter(error.parameter), str(error)) from None
    return search_json(response, parameters, (time.perf_counter() - started) * 1000)
