"""JSON of responses: keys as Meilisearch's; a hit is the product, with further keys that begin with "_"."""

import math
from typing import Any
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import to_json
from starlette.responses import JSONResponse

from make_jax.catalog.attributes import AttributeValue
from make_jax.serving.http.parameters import SearchParameters
from make_jax.serving.requests import SearchHit, SearchResponse


class JsonResponse(JSONResponse):
    """JSON without escapes of characters that UTF-8 has."""

    def render(self, content: Any) -> bytes:
        """The bytes; null for NaN and infinity, which JSON lacks."""
        return to_json(content, inf_nan_mode="null")  # three times as fast as `json`


class _Described(BaseModel):
    """A description of JSON for OpenAPI."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow")


class Hit(_Described):
    """A product with its attributes as further members, and how it was found."""

    id: str
    title: str
    ranking_score: float = Field(alias="_rankingScore", description="What ranked the product.")
    image: str | None = Field(alias="_image", description="Address of its picture; null without.")
    ranking_score_details: dict[str, Any] | None = Field(
        None,
        alias="_rankingScoreDetails",
        description="With explain: dense (cosine), lexical (BM25, 0 to 1), matching, titleWeight, imageWeight, "
        "matchedKeywords.",
    )
    vectors: list[float] | None = Field(None, alias="_vectors", description="With retrieveVectors.")


class SearchAnswer(_Described):
    """The results of a search. Totals and facets cover all pages."""

    hits: list[Hit]
    query: str
    processing_time_ms: int
    limit: int | None = Field(None, description="With offset.")
    offset: int | None = None
    estimated_total_hits: int | None = Field(None, description="Of all pages, with offset and limit.")
    page: int | None = Field(None, description="With page or hitsPerPage in the request.")
    hits_per_page: int | None = None
    total_hits: int | None = Field(None, description="Of all pages, with page.")
    total_pages: int | None = None
    total_is_exact: bool
    facet_distribution: dict[str, dict[str, int]] | None = None
    facet_stats: dict[str, dict[str, float]] | None = None
    corrected_query: str | None = Field(None, description="What was searched for if a spelling was corrected.")
    predicted_keywords: list[dict[str, Any]] | None = Field(None, description="With explain: name and probability.")
    index_version: str


class ErrorAnswer(_Described):
    """An error."""

    message: str
    code: str
    type: str
    link: str


def product_json(hit: SearchHit, index: str | None) -> dict[str, Any]:
    """A product with its attributes, of the index that the request names.

    Keys that begin with "_" are ours and win over attributes of that name.
    """
    attributes = {name: _attribute(value) for name, value in hit.attributes.items()}
    return {**attributes, "id": hit.id, "title": hit.title, "_image": _picture(hit, index), **_weights(hit)}


def hit_json(hit: SearchHit, parameters: SearchParameters) -> dict[str, Any]:
    """One result."""
    attributes = {name: _attribute(value) for name, value in hit.attributes.items()}
    content = {
        **attributes,
        "id": hit.id,
        "title": hit.title,
        "_image": _picture(hit, parameters.index),
        "_rankingScore": _number(hit.score),
    }
    if parameters.explain:
        scores = hit.scores
        content["_rankingScoreDetails"] = {
            "dense": _number(scores.dense) if scores else None,
            "lexical": _number(scores.lexical) if scores else None,
            "matching": _number(scores.matching) if scores else None,
            **_weights(hit),
            "matchedKeywords": list(hit.matched_keywords),
        }
    if hit.vector is not None:
        content["_vectors"] = _vector(hit.vector)
    return content


def search_json(response: SearchResponse, parameters: SearchParameters, milliseconds: float) -> dict[str, Any]:
    """The results of a search. Optional members are left out where they were not requested, as Meilisearch does."""
    content: dict[str, Any] = {
        "hits": [hit_json(hit, parameters) for hit in response.hits],
        "query": parameters.q,
        "processingTimeMs": round(milliseconds),
        **_paging(response, parameters),
        "totalIsExact": response.total_is_exact,
        "indexVersion": response.version,
    }
    if parameters.facets:
        content["facetDistribution"] = response.facets
        content["facetStats"] = {name: {"min": s.min, "max": s.max} for name, s in response.facet_stats.items()}
    if response.corrected_query:
        content["correctedQuery"] = response.corrected_query
    if parameters.explain:
        pairs = response.predicted_keywords
        content["predictedKeywords"] = [{"keyword": name, "probability": _number(value)} for name, value in pairs]
    if response.vector is not None:
        content["queryVector"] = _vector(response.vector)
    return content


def _paging(response: SearchResponse, parameters: SearchParameters) -> dict[str, int]:
    """Position of the page, in the members that belong to the request's form of paging."""
    if parameters.page is None and parameters.hits_per_page is None:
        return {"limit": parameters.limit, "offset": parameters.offset, "estimatedTotalHits": response.total}
    size = parameters.hits_per_page or parameters.limit
    pages = math.ceil(response.total / size) if size else 0
    return {"page": parameters.page or 1, "hitsPerPage": size, "totalHits": response.total, "totalPages": pages}


def _picture(hit: SearchHit, index: str | None) -> str | None:
    """The address of the picture, in the index that the request names."""
    if not hit.has_image:
        return None
    address = f"/v1/products/{quote(hit.id, safe='')}/thumbnail"
    return address if index is None else f"{address}?index={quote(index, safe='')}"


def _weights(hit: SearchHit) -> dict[str, float | None]:
    return {"titleWeight": _number(hit.title_weight), "imageWeight": _number(hit.image_weight)}


def _attribute(value: AttributeValue) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _vector(vector: np.ndarray) -> list[float]:
    return [float(value) for value in vector]
