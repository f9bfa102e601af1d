"""What a search request must fulfil: ranges, and attributes and ids that the index has."""

import difflib
from collections.abc import Collection, Iterator

from make_jax.serving.filters import And, Filter, Not, Or
from make_jax.serving.index.reader import OpenIndex
from make_jax.serving.requests import MAX_LIMIT, MAX_SCORE, SearchRequest
from make_jax.serving.search_service import RequestError

MAX_EXAMPLES = 100  # liked products, and unliked ones
MAX_QUERY = 2000  # characters of a text; the encoder reads fewer


def check_request(request: SearchRequest, attributes: Collection[str]) -> None:
    """Raises RequestError for a number out of its range and for an attribute that no product has."""
    _check_range("limit", request.limit, 0, MAX_LIMIT)
    _check_range("offset", request.offset, 0, 1 << 31)
    _check_range("rerank", request.rerank, 0, MAX_LIMIT)
    _check_range("max_per_value", request.max_per_value, 1, 1 << 31)
    _check_range("image_weight", request.image_weight, 0, 1)
    if request.lexical_weight is not None:
        _check_range("lexical_weight", request.lexical_weight, 0, 1000)
    if request.min_score is not None:
        _check_range("min_score", request.min_score, -MAX_SCORE, MAX_SCORE)
    if len(request.q) > MAX_QUERY:
        raise RequestError("q", f"q has {len(request.q):,} characters, expected at most {MAX_QUERY:,}")
    if not is_unicode(request.q):
        raise RequestError("q", "q has half of a surrogate pair, expected valid Unicode")
    for name, examples in (("like", request.like), ("unlike", request.unlike)):
        if len(examples) > MAX_EXAMPLES:
            raise RequestError(name, f"{name} has {len(examples)} products, expected at most {MAX_EXAMPLES}")
    if request.rerank and request.sort:
        raise RequestError("rerank", "rerank orders by score, so it needs no sort; set one of the two")
    _check_attributes("filter", set(_filtered(request.filter)), attributes)
    _check_attributes("facets", set(request.facets) - {"*"}, attributes)
    _check_attributes("sort", {sort.attribute for sort in request.sort}, attributes)
    _check_attributes("distinct", {request.distinct} - {""}, attributes)


def example_rows(request: SearchRequest, index: OpenIndex) -> tuple[list[int], list[int]]:
    """The rows of the liked and of the unliked products. Raises RequestError for an unknown id."""
    found = []
    for name, ids in (("like", request.like), ("unlike", request.unlike)):
        rows = []
        for id in ids:
            row = index.row(id) if is_unicode(id) else None
            if row is None:
                raise RequestError(name, f"{name}: no product has the id {id[:100]!r}")
            rows.append(row)
        found.append(rows)
    return found[0], found[1]


def is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which JSON can escape and no encoder reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_range(name: str, value: int | float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise RequestError(name, f"{name} is {value}, expected {least:,} to {most:,}")


def _check_attributes(parameter: str, names: Collection[str], known: Collection[str]) -> None:
    for name in sorted(names):
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            advice = f"; did you mean {nearest[0]!r}?" if nearest else ""
            listed = ", ".join(sorted(known)) or "none"
            raise RequestError(parameter, f"{parameter}: no attribute {name[:100]!r}, the index has {listed}{advice}")


def _filtered(condition: Filter | None) -> Iterator[str]:
    """The attributes of a filter."""
    if isinstance(condition, And | Or):
        for part in condition.conditions:
            yield from _filtered(part)
    elif isinstance(condition, Not):
        yield from _filtered(condition.condition)
    elif condition is not None:
        yield condition.attribute
