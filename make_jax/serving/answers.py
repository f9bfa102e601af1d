"""From search requests to responses: vectors, the engine's query, re-ranking, and what each hit shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from make_jax.catalog.text import strip_text
from make_jax.errors import InputError
from make_jax.serving.engines import EngineQuery, EngineResult
from make_jax.serving.opened import Opened
from make_jax.serving.query_vectors import combine, encode_image
from make_jax.serving.request_checks import check_request, example_rows
from make_jax.serving.requests import Scores, SearchHit, SearchRequest, SearchResponse
from make_jax.serving.reranking import rerank
from make_jax.serving.search_service import RequestError

# A sort by an attribute orders this many best products of the search, so that cheap ones that have nothing to do with
# the query are not first; `min_score` sets another limit.
SORTED_PRODUCTS = 200


@dataclass(eq=False)
class Search:
    """A request on its way to a response."""

    request: SearchRequest
    text: str = ""  # what is searched for
    corrected: bool = False  # whether the text was
    text_vector: Float32[np.ndarray, " D"] | None = None
    image_vector: Float32[np.ndarray, " D"] | None = None
    query: EngineQuery | None = None
    predicted_keywords: tuple[tuple[str, float], ...] = ()
    response: SearchResponse | InputError | None = None  # an error: the request cannot be answered


class Submitted:
    """A request, and the vector of its picture, made by the thread that submits it: no batch waits for a picture."""

    def __init__(self, request: SearchRequest, opened: Opened) -> None:
        self.request = request
        self._parts = opened.parts
        self._image: Float32[np.ndarray, " D"] | InputError | None = None
        if request.image is not None:
            try:
                self._image = encode_image(opened.parts.encoder, request.image)
            except InputError as error:
                self._image = error

    def image_vector(self, opened: Opened) -> Float32[np.ndarray, " D"] | None:
        """The vector by the model of `opened`. Raises RequestError for a picture that cannot be encoded."""
        if self.request.image is not None and self._parts is not opened.parts:
            return encode_image(opened.parts.encoder, self.request.image)
        if isinstance(self._image, InputError):
            raise self._image
        return self._image


def prepare(opened: Opened, submitted: Sequence[Submitted]) -> list[Search]:
    """The requests, checked, with their texts encoded together."""
    searches = []
    for each in submitted:
        search, request = Search(each.request), each.request
        try:
            check_request(request, opened.attributes)
            search.text = strip_text(request.q)
            if request.correct and (corrected := opened.spelling.correct(search.text)):
                search.text, search.corrected = corrected, True
            search.image_vector = each.image_vector(opened)
        except InputError as error:
            search.response = error
        searches.append(search)
    with_text = [search for search in searches if search.text and search.response is None]
    if with_text:
        vectors = opened.parts.encoder.encode([search.text for search in with_text])
        for search, vector in zip(with_text, vectors, strict=True):
            search.text_vector = vector
    return searches


def answer(opened: Opened, searches: Sequence[Search]) -> list[SearchResponse | InputError]:
    """The response to each request, or the error of one that cannot be answered."""
    for search in searches:
        if search.response is None:
            try:
                search.query = _engine_query(opened, search)
            except InputError as error:
                search.response = error
    valid = [search for search in searches if search.query is not None]
    queries = _limit_sorted(opened, [search.query for search in valid if search.query is not None])
    explained = [search for search in valid if search.request.explain]
    predicted = opened.parts.explainer.start_predicting([search.text for search in explained]) if explained else None
    results = opened.engine.search(queries)
    for search, keywords in zip(explained, predicted.result() if predicted else [], strict=True):
        search.predicted_keywords = keywords
    for search, result in zip(valid, results, strict=True):
        try:
            search.response = _response(opened, search, result)
        except InputError as error:
            search.response = error
    return [search.response for search in searches if search.response is not None]


def _engine_query(opened: Opened, search: Search) -> EngineQuery:
    """The query to the engine. Raises RequestError for an example that is unknown or has no vector."""
    request, index = search.request, opened.index
    liked, unliked = example_rows(request, index)
    examples = index.vectors[liked], index.vectors[unliked]
    for name, vectors in zip(("like", "unlike"), examples, strict=True):
        if not vectors.any(axis=1).all():
            raise RequestError(name, f"{name}: a product without vector, because the model reads nothing of it")
    vector = combine(search.text_vector, search.image_vector, request.image_weight, *examples)
    weight = index.manifest.lexical_weight if request.lexical_weight is None else request.lexical_weight
    first, end = request.offset, request.offset + request.limit
    if request.rerank:
        first, end = 0, max(request.rerank, end)
    return EngineQuery(
        vector,
        search.text if weight > 0 or vector is None else "",
        weight,
        filter=request.filter,
        min_score=request.min_score,
        sort=request.sort,
        distinct=request.distinct,
        max_per_value=request.max_per_value,
        facets=request.facets,
        exclude=(*liked, *unliked),
        limit=end - first,
        offset=first,
    )


def _limit_sorted(opened: Opened, queries: list[EngineQuery]) -> list[EngineQuery]:
    """The queries, sorted ones with the score of their SORTED_PRODUCTS-th product as the least."""
    found = [
        i
        for i, query in enumerate(queries)
        if query.sort and query.min_score is None and (query.vector is not None or query.text)
    ]
    last = [replace(queries[i], sort=(), distinct="", facets=(), limit=1, offset=SORTED_PRODUCTS - 1) for i in found]
    for i, result in zip(found, opened.engine.search(last) if last else [], strict=True):
        if len(result.scores):
            queries[i] = replace(queries[i], min_score=float(result.scores[0]))
    return queries


def _response(opened: Opened, search: Search, result: EngineResult) -> SearchResponse:
    """What the user gets of the engine's result. Raises RequestError for a model that cannot re-rank."""
    request, parts = search.request, opened.parts
    logits = None
    if request.rerank:
        result, logits = rerank(parts.model, opened.index, search.text, result, request.rerank)
        page = slice(request.offset, request.offset + request.limit)
        logits = logits[page]
        result = replace(
            result,
            rows=result.rows[page],
            scores=result.scores[page],
            dense=result.dense[page],
            lexical=result.lexical[page],
        )
    assert search.query is not None
    return SearchResponse(
        _hits(opened, search, result, logits),
        result.total,
        result.total_is_exact,
        result.facets,
        result.facet_stats,
        search.predicted_keywords,
        corrected_query=search.text if search.corrected else "",
        version=opened.index.version,
        vector=search.query.vector if request.retrieve_vectors else None,
    )


def _hits(
    opened: Opened, search: Search, result: EngineResult, logits: Float32[np.ndarray, " n"] | None
) -> list[SearchHit]:
    request, index = search.request, opened.index
    products = list(index.products.select(result.rows))
    hits = [
        SearchHit(product.id, product.title, product.attributes, product.image is not None, score)
        for product, score in zip(products, result.scores.tolist(), strict=True)
    ]
    if request.explain:
        unknown = np.full(len(hits), np.nan, np.float32)
        parts = np.stack([result.dense, result.lexical, unknown if logits is None else logits], axis=1)
        explanations = zip(
            parts.tolist(),
            index.weights[result.rows].tolist(),
            opened.parts.explainer.matched(search.text, products),
            strict=True,
        )
        hits = [
            replace(
                hit,
                scores=Scores(*(None if math.isnan(score) else score for score in scores)),
                title_weight=title_weight,
                image_weight=image_weight,
                matched_keywords=keywords,
            )
            for hit, (scores, (title_weight, image_weight), keywords) in zip(hits, explanations, strict=True)
        ]
    if request.retrieve_vectors:
        hits = [replace(hit, vector=index.vectors[row]) for hit, row in zip(hits, result.rows.tolist(), strict=True)]
    return hits
