"""Routes of the index and its products: /v1/index, /v1/products, /v1/click."""

import hashlib
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from make_jax.catalog.text import strip_text
from make_jax.serving.http import openapi
from make_jax.serving.http.answers import JsonResponse, product_json
from make_jax.serving.http.context import context_of, index_of
from make_jax.serving.http.errors import ApiError
from make_jax.serving.http.parameters import INDEX_PARAMETER, MAX_QUERY
from make_jax.serving.search_service import SearchService

_PICTURE_SECONDS = 300  # that a browser shows a picture after an update of the index has replaced it
router = APIRouter()


class ClickBody(BaseModel):
    """One click: a line of clicks.jsonl."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(min_length=1, max_length=MAX_QUERY)
    product: str = Field(min_length=1, max_length=1000)
    index: str | None = Field(None, max_length=200, description=INDEX_PARAMETER)
    lang: str = Field("", max_length=35, pattern=r"^[A-Za-z0-9-]*$", description="Language of the query: en, zh.")


@router.get("/v1/index", **openapi.INDEX)
async def index(request: Request) -> Response:
    """What the server searches: one index, and the names of all."""
    context = context_of(request)
    name = index_of(request)
    info = await context.call(lambda service: service.info, name)
    content = {
        "name": next(iter(context.services)) if name is None else name,
        "indexes": list(context.services),
        "version": info.version,
        "numberOfDocuments": info.products,
        "model": info.model,
        "catalog": info.catalog,
        "attributes": info.attributes,
        "acceptsImages": info.accepts_images,
        "acceptsClicks": context.clicks is not None,
    }
    return JsonResponse(content)


@router.get("/v1/products/{product_id:path}/thumbnail", response_class=Response, **openapi.THUMBNAIL)
async def thumbnail(request: Request) -> Response:
    """The picture of a product, WebP with sides of at most 320 pixels."""
    product_id = request.path_params["product_id"]
    picture = await context_of(request).call(lambda service: service.thumbnail(product_id), index_of(request))
    if picture is None:
        raise ApiError("document_not_found", "the index has no picture of such a product")
    etag = f'"{hashlib.sha256(picture).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": f"private, max-age={_PICTURE_SECONDS}"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(picture, media_type="image/webp", headers=headers)


@router.get("/v1/products/{product_id:path}", **openapi.PRODUCT)
async def product(request: Request) -> Response:
    """A product with its attributes and modal weights."""
    product_id, name = request.path_params["product_id"], index_of(request)

    def find(service: SearchService) -> dict[str, Any] | None:
        hit = service.product(product_id)
        return None if hit is None else product_json(hit, name)

    content = await context_of(request).call(find, name)
    if content is None:
        raise ApiError("document_not_found", "the index has no such product")
    return JsonResponse(content)


@router.post("/v1/click", status_code=204, **openapi.CLICK)
async def click(request: Request) -> Response:
    """Stores that a user opened a product after a query; off unless the server has a file for clicks."""
    context = context_of(request)
    clicks = context.clicks
    if clicks is None:
        raise ApiError("not_found", "the server stores no clicks; search.py serve --clicks FILE does")
    # Another type would let the page of any site send clicks: browsers ask first (CORS) for this one only.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError("invalid_content_type", "the body has another type, expected application/json")
    try:
        body = ClickBody.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise ApiError("invalid_click", f"{where}{first['msg']}"[:200]) from None
    query = strip_text(" ".join(body.query.split()))
    if not query:
        raise ApiError("invalid_click", "query: the text is empty")

    def store(service: SearchService) -> bool:
        found = service.product(body.product) is not None
        if found:
            clicks.add(query, body.product, body.lang)
        return found

    if not await context.call(store, body.index):
        raise ApiError("document_not_found", "the index has no such product")
    return Response(status_code=204)
