"""The OpenAPI description of the routes, with examples: arguments of FastAPI's route decorators, and the API key."""

from typing import Any

from fastapi import FastAPI

from make_jax.serving.filter_parser import MAX_LENGTH
from make_jax.serving.http.access import OPEN_PATHS
from make_jax.serving.http.answers import ErrorAnswer, SearchAnswer
from make_jax.serving.http.errors import CODES
from make_jax.serving.http.parameters import INDEX_PARAMETER, SearchParameters

_LISTED = {
    "sort": "^[^,]+:(asc|desc)$"
}  # the form of items of lists that are separated by commas, of others than names
_PRODUCT = {
    "id": "1163",
    "title": "Nike Women Red Running Shoes",
    "brand": "Nike",
    "price": 49.9,
    "_image": "/v1/products/1163/thumbnail",
}
_EXAMPLE: dict[str, Any] = {
    "hits": [{**_PRODUCT, "_rankingScore": 0.812}],
    "query": "red running shoes",
    "processingTimeMs": 4,
    "limit": 20,
    "offset": 0,
    "estimatedTotalHits": 318,
    "totalIsExact": True,
    "indexVersion": "v3",
    "facetDistribution": {"brand": {"Nike": 120, "Puma": 71}},
    "facetStats": {"price": {"min": 9.9, "max": 149}},
}


def _error_example(code: str, message: str) -> dict[str, Any]:
    content = {"message": message, "code": code, "type": CODES[code].type, "link": f"/errors#{code}"}
    return {"summary": code, "value": content}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of these statuses, each with its codes; those of every route are added."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({400, 401, 403, 429, 500, 503, *statuses}):
        rows = {code: row for code, row in CODES.items() if row.status == status}
        text = "; ".join(f"`{code}`: {row.meaning}" for code, row in rows.items())
        code = next(iter(rows))
        content = {"application/json": {"examples": {code: _error_example(code, rows[code].meaning)}}}
        responses[status] = {"description": text, "model": ErrorAnswer, "content": content}
    return responses


def _query_parameter(alias: str, schema: dict[str, Any], required: bool = False) -> dict[str, Any]:
    """A parameter of a query string; lists are separated by commas, ids repeat."""
    schema = {key: value for key, value in schema.items() if key not in ("title", "description", "examples")}
    parameter: dict[str, Any] = {"name": alias, "in": "query", "required": required, "schema": schema}
    if schema.get("type") == "array" and alias not in ("like", "unlike"):
        parameter.update(style="form", explode=False)
        schema["items"] = schema["items"] | {"pattern": _LISTED.get(alias, "^[^,]+$")}
    return parameter


def _search_parameters() -> list[dict[str, Any]]:
    properties = SearchParameters.model_json_schema()["properties"]
    parameters = []
    for alias, schema in properties.items():
        given = {"type": "string", "maxLength": MAX_LENGTH} if alias == "filter" else _without_null(schema)
        parameter = _query_parameter(alias, given) | {"description": schema.get("description", "")}
        if schema.get("examples"):
            parameter["example"] = schema["examples"][0]
        parameters.append(parameter)
    return parameters


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that is not null: a query string has no null, a parameter is left out instead."""
    choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    if len(choices) != 1:
        return schema
    return {key: value for key, value in schema.items() if key not in ("anyOf", "default")} | choices[0]


def _body_schema() -> dict[str, Any]:
    """The schema of a JSON body, in which null is the default of every parameter."""
    schema = SearchParameters.model_json_schema()
    for name, given in schema["properties"].items():
        if "anyOf" not in given:
            about = {key: given.pop(key) for key in ("title", "description", "default", "examples") if key in given}
            schema["properties"][name] = {**about, "anyOf": [given, {"type": "null"}]}
    return schema


def _form_schema() -> dict[str, Any]:
    properties = {each["name"]: each["schema"] for each in _search_parameters()}
    image = {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP."}
    return {"type": "object", "properties": {**properties, "image": image}, "additionalProperties": False}


def _results(*statuses: int) -> dict[int | str, Any]:
    content = {"application/json": {"example": _EXAMPLE}}
    return {200: {"description": "Results.", "model": SearchAnswer, "content": content}, **_errors(*statuses)}


def _json(example: Any, *statuses: int) -> dict[int | str, Any]:
    schema = {"schema": {"type": "object"}, "example": example}
    return {200: {"description": "Success.", "content": {"application/json": schema}}, **_errors(*statuses)}


_BODIES = {
    "words and a condition": {"q": "red running shoes", "filter": "gender = Women AND price < 50", "facets": ["brand"]},
    "like and unlike": {"like": ["1163"], "unlike": ["1525"], "limit": 10},
}
_ENCODING = {name: {"style": "form", "explode": False} for name in ("facets", "sort")}
_INDEX = {
    "name": "index",
    "in": "query",
    "required": False,
    "description": INDEX_PARAMETER,
    "schema": {"type": "string"},
}
_ID: dict[str, Any] = {
    "name": "product_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "example": "1163",
}

SEARCH_GET: dict[str, Any] = {
    "tags": ["search"],
    "responses": _results(404),
    "openapi_extra": {"parameters": _search_parameters()},
}
SEARCH_POST: dict[str, Any] = {
    "tags": ["search"],
    "responses": _results(404, 408, 413, 415),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _body_schema(),
                    "examples": {name: {"value": value} for name, value in _BODIES.items()},
                },
                "multipart/form-data": {"schema": _form_schema(), "encoding": _ENCODING},
            },
        }
    },
}
SIMILAR: dict[str, Any] = {
    "tags": ["search"],
    "responses": _results(404),
    "openapi_extra": {"parameters": [_ID, *_search_parameters()]},
}
SUGGEST: dict[str, Any] = {
    "tags": ["search"],
    "responses": _json({"suggestions": ["red running shoes"], "query": "red r", "processingTimeMs": 0}, 404),
    "openapi_extra": {
        "parameters": [
            _query_parameter("q", {"type": "string", "maxLength": 1000}),
            _query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": 20, "default": 8}),
            _INDEX,
        ]
    },
}
INDEX: dict[str, Any] = {
    "tags": ["products"],
    "responses": _json(
        {
            "name": "shop",
            "indexes": ["shop", "shop-v4"],
            "version": "v3",
            "numberOfDocuments": 42203,
            "model": "runs/fashion",
            "catalog": "fashion-full",
            "attributes": {"brand": "text", "price": "number"},
            "acceptsImages": True,
            "acceptsClicks": False,
        },
        404,
    ),
    "openapi_extra": {"parameters": [_INDEX]},
}
PRODUCT: dict[str, Any] = {
    "tags": ["products"],
    "responses": _json({**_PRODUCT, "titleWeight": 0.7, "imageWeight": 0.3}, 404),
    "openapi_extra": {"parameters": [_ID, _INDEX]},
}
THUMBNAIL: dict[str, Any] = {
    "tags": ["products"],
    "responses": {200: {"description": "The picture.", "content": {"image/webp": {}}}, **_errors(404)},
    "openapi_extra": {"parameters": [_ID, _INDEX]},
}
CLICK: dict[str, Any] = {
    "tags": ["products"],
    "responses": {204: {"description": "Stored."}, **_errors(404, 408, 413, 415)},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["query", "product"],
                        "additionalProperties": False,
                        "properties": {
                            "query": {"type": "string", "minLength": 1, "maxLength": 1000, "pattern": "\\S"},
                            "product": {"type": "string", "minLength": 1, "maxLength": 1000},
                            "index": {
                                "type": ["string", "null"],
                                "maxLength": 200,
                                "description": INDEX_PARAMETER,
                            },
                            "lang": {"type": "string", "maxLength": 35, "pattern": "^[A-Za-z0-9-]*$"},
                        },
                    },
                    "example": {"query": "red shoes", "product": "1163", "lang": "en"},
                }
            },
        }
    },
}
HEALTH: dict[str, Any] = {"tags": ["server"], "responses": _json({"status": "available"})}
READY: dict[str, Any] = {"tags": ["server"], "responses": _json({"status": "ready", "versions": {"shop": "v3"}})}
METRICS: dict[str, Any] = {
    "tags": ["server"],
    "responses": {200: {"description": "Metrics.", "content": {"text/plain": {}}}, **_errors()},
}


class DescribedApp(FastAPI):
    """An application whose description says which routes need an API key."""

    needs_keys = False

    def openapi(self) -> dict[str, Any]:
        """The description, made once."""
        if self.openapi_schema is None:
            description = super().openapi()
            if self.needs_keys:
                description["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                for path in description["paths"].keys() - set(OPEN_PATHS):
                    for method in description["paths"][path].values():
                        method["security"] = [{"key": []}]
        return super().openapi()
