"""Parameters of a search, from a query string, a JSON body or a multipart form, as a SearchRequest.

Names follow Meilisearch's; ours are explain, image, imageWeight, lexicalWeight, like, unlike, maxPerValue and rerank.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from make_jax.catalog.text import shortened
from make_jax.errors import InputError
from make_jax.serving.filter_parser import MAX_LENGTH, parse_filter
from make_jax.serving.filters import Filter
from make_jax.serving.http.errors import CODES, ApiError
from make_jax.serving.requests import MAX_LIMIT, MAX_SCORE, SearchRequest, Sort

MAX_QUERY = 1000  # characters
MAX_OFFSET = 1_000_000
INDEX_PARAMETER = "Name of the index, of those that GET /v1/index lists; default: the first."
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Id = Annotated[str, Field(min_length=1, max_length=1000)]
_FilterText = Annotated[str, Field(max_length=MAX_LENGTH)]
_LISTS = ("facets", "sort")  # separated by commas in a query string and a form
_ID_LISTS = ("like", "unlike")  # ids may contain commas: these repeat


class SearchParameters(BaseModel):
    """The parameters of `/v1/search`. null means the default."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, allow_inf_nan=False, frozen=True)

    q: str = Field("", max_length=MAX_QUERY, description="Text to search for; empty: lists products.", examples=["red"])
    filter: _FilterText | list[_FilterText | list[_FilterText]] | None = Field(
        None,
        description="Condition on attributes; in a list all must be met, in a list within it one of them.",
        examples=["gender = Women AND price < 50"],
    )
    facets: list[_Name] = Field(
        [], max_length=100, description='Attributes to count, ["*"] for all.', examples=[["brand", "price"]]
    )
    sort: list[_Name] = Field([], max_length=10, description="Order of the results.", examples=[["price:asc"]])
    limit: int = Field(20, ge=0, le=MAX_LIMIT, description="Results at most.")
    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Results to skip.")
    page: int | None = Field(None, ge=1, le=MAX_OFFSET, description="Page from 1, instead of offset and limit.")
    hits_per_page: int | None = Field(None, ge=1, le=MAX_LIMIT, description="Results of a page.")
    distinct: _Name | None = Field(None, description="Attribute of which each value may occur maxPerValue times.")
    max_per_value: int = Field(1, ge=1, le=MAX_LIMIT, description="Results of each value of `distinct`.")
    ranking_score_threshold: float | None = Field(
        None, ge=-MAX_SCORE, le=MAX_SCORE, description="Least score of results, totals and facets."
    )
    lexical_weight: float | None = Field(None, ge=0, le=100, description="Weight of BM25; default: the index's.")
    image_weight: float = Field(0.5, ge=0, le=1, description="Weight of the picture where there is a text too.")
    like: list[_Id] = Field([], max_length=20, description="Ids of products that results should be like.")
    unlike: list[_Id] = Field([], max_length=20, description="Ids of products that results should be unlike.")
    rerank: int = Field(0, ge=0, le=200, description="First results that the matching encoder orders.")
    correct: bool = Field(True, description="Whether misspelled words are replaced; see correctedQuery.")
    explain: bool = Field(False, description="Adds parts of scores, modal weights and keywords.")
    retrieve_vectors: bool = Field(False, description="Adds the vectors of query and results.")
    index: _Name | None = Field(None, description=INDEX_PARAMETER)


_NAMES = {field.alias or name: name for name, field in SearchParameters.model_fields.items()}


def parameters_of_json(body: bytes) -> SearchParameters:
    """The parameters of a JSON object. Raises ApiError."""
    if not body.strip():
        raise ApiError("missing_payload", "the body is empty, expected a JSON object of parameters")
    try:
        return SearchParameters.model_validate_json(body, strict=True)
    except ValidationError as error:
        without_null = _without_null(body, error)
        if without_null is not None:
            return _validated(without_null, strict=True)
        raise _api_error(error) from None


def parameters_of_pairs(pairs: Iterable[tuple[str, str]], further: Iterable[str] = ()) -> SearchParameters:
    """The parameters of a query string or a form, with names and texts. `further` names are for the caller."""
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in _LISTS:
            values.setdefault(name, []).extend(part.strip() for part in text.split(",") if part.strip())
        elif name in _ID_LISTS:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise ApiError("bad_request", f"the parameter {shortened(name, 60)} occurs twice, expected it once")
        elif name not in further:
            values[name] = text
    return _validated(values, strict=False)


def search_request(
    parameters: SearchParameters, image: bytes | None = None, like: tuple[str, ...] = ()
) -> SearchRequest:
    """The request; `like` are further ids. Raises ApiError for a filter and an order that cannot be parsed."""
    limit, offset = parameters.limit, parameters.offset
    if parameters.page is not None or parameters.hits_per_page is not None:
        limit = parameters.hits_per_page or limit
        offset = ((parameters.page or 1) - 1) * limit
    return SearchRequest(
        q=parameters.q,
        image=image,
        image_weight=parameters.image_weight,
        like=(*like, *parameters.like),
        unlike=tuple(parameters.unlike),
        filter=_filter(parameters.filter),
        facets=tuple(dict.fromkeys(parameters.facets)),
        sort=tuple(_sort(text) for text in parameters.sort),
        distinct=parameters.distinct or "",
        max_per_value=parameters.max_per_value,
        min_score=parameters.ranking_score_threshold,
        lexical_weight=parameters.lexical_weight,
        rerank=parameters.rerank,
        limit=limit,
        offset=offset,
        correct=parameters.correct,
        explain=parameters.explain,
        retrieve_vectors=parameters.retrieve_vectors,
    )


def code_of_parameter(name: str) -> str:
    """The error code of a parameter, by its name in SearchParameters or SearchRequest."""
    code = f"invalid_search_{'ranking_score_threshold' if name == 'min_score' else name}"
    return code if code in CODES else "bad_request"


def _filter(value: str | list[str | list[str]] | None) -> Filter | None:
    try:
        return parse_filter(value or "")
    except InputError as error:
        raise ApiError("invalid_search_filter", str(error)) from None


def _sort(text: str) -> Sort:
    name, _, order = text.rpartition(":")
    if order not in ("asc", "desc") or not name:
        raise ApiError("invalid_search_sort", f"sort is {shortened(text, 60)!r}, expected attribute:asc or :desc")
    return Sort(name, "asc" if order == "asc" else "desc")


def _validated(values: Mapping[str, Any], strict: bool) -> SearchParameters:
    try:
        return SearchParameters.model_validate(dict(values), strict=strict)
    except ValidationError as error:
        raise _api_error(error) from None


def _without_null(body: bytes, error: ValidationError) -> dict[str, Any] | None:
    """A JSON object without parameters that are null; None if the errors have another cause than a null."""
    if not any(each["loc"] and each["input"] is None for each in error.errors(include_url=False)):
        return None
    from pydantic_core import from_json

    values = from_json(body)
    if not isinstance(values, dict):
        return None
    return {name: value for name, value in values.items() if value is not None or name not in _NAMES}


def _api_error(error: ValidationError) -> ApiError:
    """The first of pydantic's errors, with its parameter, in one line."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return ApiError("malformed_payload", f"the body is no JSON object of parameters: {_sentence(first['msg'])}")
    alias = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(alias, _NAMES, n=1, cutoff=0.0)[0]
        return ApiError("bad_request", f"unknown parameter {shortened(alias, 60)!r}; did you mean {nearest}?")
    found = first["input"]
    shown = f", found {shortened(repr(found), 60)}" if isinstance(found, str | int | float | None) else ""
    if isinstance(found, str) and len(found) > 60:
        shown = f", found {len(found):,} characters"
    return ApiError(code_of_parameter(_NAMES.get(alias, alias)), f"{alias}: {_sentence(first['msg'])}{shown}")


def _sentence(message: str) -> str:
    """pydantic's message as the middle of a sentence."""
    message = re.sub(r"^Input should be", "expected", message)
    return message[:1].lower() + message[1:]
