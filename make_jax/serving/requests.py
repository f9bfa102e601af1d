"""Request and response of a search: the same types for the command line, HTTP and Python.

Names follow Meilisearch's where it has one.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.attributes import AttributeValue
from make_jax.serving.filters import Filter

MAX_LIMIT = 1000  # of results a page
MAX_SCORE = 10_000  # beyond that of any product


class Sort(NamedTuple):
    """An order by the values of an attribute; products without it come last."""

    attribute: str
    order: Literal["asc", "desc"]


@dataclass(frozen=True)
class SearchRequest:
    """One search. Without text, image and `like` it lists the filtered products in the order of the index."""

    q: str = ""
    image: bytes | None = None  # of a JPEG, PNG or WebP file
    image_weight: float = 0.5  # of the image, 0 to 1, where there is a text too
    like: tuple[str, ...] = ()  # ids of products whose vectors are added to the query's
    unlike: tuple[str, ...] = ()  # ids of products whose vectors are subtracted
    filter: Filter | None = None
    facets: tuple[str, ...] = ()  # attributes whose values are counted; ("*",): all
    sort: tuple[Sort, ...] = ()  # of the relevant products; () is by score
    distinct: str = ""  # at most `max_per_value` products of each value of this attribute; "": no limit
    max_per_value: int = 1
    min_score: float | None = None  # least score of results, totals and facets; None: no limit
    lexical_weight: float | None = None  # of BM25; None: the index's
    rerank: int = 0  # first products that the matching encoder orders
    limit: int = 20  # at most MAX_LIMIT
    offset: int = 0
    correct: bool = True  # whether misspelled words are replaced
    explain: bool = False  # whether hits have `scores`, weights and keywords
    retrieve_vectors: bool = False


class Scores(NamedTuple):
    """The parts of a score; None where a source was not used."""

    dense: float | None  # cosine of query and product
    lexical: float | None  # BM25 divided by the best of the query, 0 to 1
    matching: float | None = None  # logit of the matching encoder


@dataclass(frozen=True)
class SearchHit:
    """One result. The last fields are set with `explain` or `retrieve_vectors`."""

    id: str
    title: str
    attributes: dict[str, AttributeValue]
    has_image: bool
    score: float  # what ranked it
    scores: Scores | None = None
    title_weight: float | None = None  # w_title; w_title and w_image sum to 1
    image_weight: float | None = None
    matched_keywords: tuple[str, ...] = ()  # of the query, that the product's title or attributes have
    vector: Float32[np.ndarray, " D"] | None = None


class FacetStats(NamedTuple):
    """The range of a number attribute in the results."""

    min: float
    max: float


@dataclass(frozen=True)
class SearchResponse:
    """The results of one search. Totals and facets cover all pages: all products that `filter` and `min_score` keep."""

    hits: list[SearchHit]
    total: int
    total_is_exact: bool = True
    facets: dict[str, dict[str, int]] = field(default_factory=dict)  # attribute -> value -> products, descending
    facet_stats: dict[str, FacetStats] = field(default_factory=dict)  # of attributes that are numbers
    predicted_keywords: tuple[tuple[str, float], ...] = ()  # with `explain`: name and probability
    corrected_query: str = ""  # what was searched for if a spelling was corrected
    version: str = ""  # of the index
    vector: Float32[np.ndarray, " D"] | None = None  # of the query, with `retrieve_vectors`
