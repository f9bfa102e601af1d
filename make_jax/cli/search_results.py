"""Results of a search on the terminal: a table, or JSON with the names of the HTTP API."""

import json
from typing import Any

from rich.table import Table
from rich.text import Text

from make_jax.catalog.attributes import AttributeValue, format_attributes
from make_jax.console import LiteralConsole
from make_jax.serving.requests import SearchHit, SearchRequest, SearchResponse

_BAR = 10  # characters of the bar of w_title and w_image
_FACET_VALUES = 10  # that the table shows of an attribute


def print_table(request: SearchRequest, response: SearchResponse, details: bool) -> None:
    """Prints the hits with score, attributes, modal weights and matched keywords, and facets below.

    With `details` also the parts of each score, and the keywords that the model predicts for the query.
    """
    console = LiteralConsole()
    if response.corrected_query:
        console.print(f"searched for: {response.corrected_query}")
    if response.predicted_keywords and details:
        listed = ", ".join(f"{name} {probability:.2f}" for name, probability in response.predicted_keywords)
        console.print(f"predicted keywords: {listed}", soft_wrap=True)
    if response.hits:
        console.print(_table(request, response, details))
    about = "" if response.total_is_exact else "about "
    shown = f"{request.offset + 1:,} to {request.offset + len(response.hits):,}" if response.hits else "none"
    console.print(f"{shown} of {about}{response.total:,} products, index version {response.version}")
    for name, counts in response.facets.items():
        values = [f"{value} {count:,}" for value, count in list(counts.items())[:_FACET_VALUES]]
        more = [f"{len(counts) - _FACET_VALUES:,} more"] if len(counts) > _FACET_VALUES else []
        stats = response.facet_stats.get(name)
        between = f" ({stats.min:g} to {stats.max:g})" if stats else ""
        console.print(f"{name}{between}: {', '.join([*values, *more]) or 'none'}", soft_wrap=True)


def print_json(request: SearchRequest, response: SearchResponse) -> None:
    """Prints the response as one JSON object: members as those of the HTTP API, numbers unrounded."""
    content: dict[str, Any] = {
        "hits": [_hit(hit, request.explain) for hit in response.hits],
        "query": request.q,
        "limit": request.limit,
        "offset": request.offset,
        "estimatedTotalHits": response.total,
        "totalIsExact": response.total_is_exact,
        "indexVersion": response.version,
    }
    if request.facets:
        content["facetDistribution"] = response.facets
        content["facetStats"] = {name: stats._asdict() for name, stats in response.facet_stats.items()}
    if response.corrected_query:
        content["correctedQuery"] = response.corrected_query
    if request.explain:
        pairs = response.predicted_keywords
        content["predictedKeywords"] = [{"keyword": name, "probability": value} for name, value in pairs]
    print(json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False))


def _table(request: SearchRequest, response: SearchResponse, details: bool) -> Table:
    """The product is last and wraps, so that 80 columns are enough."""
    parts = _score_parts(response) if details else []
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("#", "score", *(name for name, _ in parts)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("title | picture", no_wrap=True)
    table.add_column("product", overflow="fold", ratio=1)
    for place, hit in enumerate(response.hits, start=request.offset + 1):
        scores = [f"{hit.score:.4f}", *(_number(getattr(hit.scores, member, None)) for _, member in parts)]
        table.add_row(str(place), *scores, _weights(hit), _product(hit))
    return table


def _score_parts(response: SearchResponse) -> list[tuple[str, str]]:
    """The columns of the parts of a score, and their members of `Scores`: those that a product has."""
    columns = [("cosine", "dense"), ("BM25", "lexical"), ("matching", "matching")]
    return [
        (name, member)
        for name, member in columns
        if any(getattr(hit.scores, member, None) is not None for hit in response.hits)
    ]


def _product(hit: SearchHit) -> Text:
    """Title and id, then attributes and matched keywords, each on a line."""
    product = Text(f"{hit.title or '(no title)'} ").append(hit.id, "dim")
    if hit.attributes:
        product.append(f"\n{format_attributes(hit.attributes)}", "dim")
    if hit.matched_keywords:
        product.append(f"\nmatched: {', '.join(hit.matched_keywords)}", "dim")
    return product


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _weights(hit: SearchHit) -> str:
    """w_title and w_image as numbers and a bar."""
    title, image = hit.title_weight or 0.0, hit.image_weight or 0.0
    if not title and not image:
        return "-"
    of_title = round(_BAR * title / (title + image))
    return f"{title:.2f} {'█' * of_title}{'░' * (_BAR - of_title)} {image:.2f}"


def _hit(hit: SearchHit, explain: bool) -> dict[str, Any]:
    content: dict[str, Any] = {name: _attribute(value) for name, value in hit.attributes.items()}
    content |= {"id": hit.id, "title": hit.title, "_rankingScore": hit.score}
    if explain:
        scores = hit.scores._asdict() if hit.scores else {}
        weights = {"titleWeight": hit.title_weight, "imageWeight": hit.image_weight}
        content["_rankingScoreDetails"] = scores | weights | {"matchedKeywords": list(hit.matched_keywords)}
    return content


def _attribute(value: AttributeValue) -> Any:
    return list(value) if isinstance(value, tuple) else value
