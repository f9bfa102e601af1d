"""What a valid catalog cannot be used for, and warnings: what is probably not as its author meant it."""

import difflib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from make_jax.catalog import jsonl
from make_jax.catalog.attributes import attributes_of_json, value_kind
from make_jax.catalog.reader import Catalog
from make_jax.catalog.repetitions import add_divided_groups, add_repeated_products
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import NO_SPLIT, SPLITS, Query
from make_jax.catalog.text import normalize_query

if TYPE_CHECKING:  # slow to import
    import pyarrow as pa  # type: ignore[import-untyped]

_QUERIES_AT_ONCE = 4096


def limits(catalog: Catalog) -> list[str]:
    """One line for each thing that a catalog without problems cannot be used for, with what to do about it."""
    return [*_training_limits(catalog), *_evaluation_limits(catalog)]


def _without_splits(catalog: Catalog) -> bool:
    return not (catalog.products.column("split").to_numpy() != NO_SPLIT).any()


def _training_limits(catalog: Catalog) -> Iterator[str]:
    if _without_splits(catalog):
        needed = f'set "split" ({jsonl.SPLIT_CHOICES}) in {jsonl.PRODUCTS}'
        yield f"cannot train: no product has a split, which search does not need; {needed}"
    elif not catalog.split_products("train"):
        yield f'cannot train: no product has "split": "train"; set it in {jsonl.PRODUCTS}'
    elif not catalog.clicks:
        missing = "cannot train on clicks: none on training products"
        yield f"{missing}; write pairs of query and product to {jsonl.CLICKS}, or train with --data.queries derived"
    elif catalog.queries and not catalog.split_queries("val"):
        yield f'training does not validate: no query has "split": "val"; set it in {jsonl.QUERIES}'


def _evaluation_limits(catalog: Catalog) -> Iterator[str]:
    relevant = catalog.info.relevant
    highest = max((grade for query in catalog.queries for grade in query.rel.values()), default=0)
    if not catalog.queries:
        yield f"cannot be evaluated, and training does not validate: no judged queries; write some to {jsonl.QUERIES}"
    elif highest < relevant:
        yield (
            f"cannot be evaluated: no judgement has grade {relevant} or more, the highest is {highest}; "
            f'set "relevant" in {jsonl.INFO}'
        )
    elif catalog.info.pool == "split" and _without_splits(catalog):
        yield f'cannot be evaluated: no product has a split; set it, or "pool": "all" in {jsonl.INFO}'
    elif not catalog.split_queries("test"):
        yield f'eval.py needs --split: no query has "split": "test"; set it in {jsonl.QUERIES}'


def find_warnings(
    catalog: Catalog, keys: set[str], checksums: Int64[np.ndarray, " products"], warnings: Problems
) -> None:
    """Adds to `warnings` what is probably not meant.

    Args:
        catalog: one without problems, or the valid part.
        keys: of products.jsonl, as `reader.read` returned them.
        checksums: of the products' images, as `check.check_images` returned them.
        warnings: receives them. Memory beyond that: about 40 bytes a product, and the judged queries.
    """
    kinds = _attribute_kinds(catalog)
    for text in (*_unused_attributes(catalog, keys, kinds), *_mixed_attributes(kinds), *excluded_by_pool(catalog)):
        warnings.add(jsonl.INFO, text)
    for text in _ignored_keys(catalog, keys):
        warnings.add(jsonl.PRODUCTS, text)
    add_repeated_products(catalog, checksums, warnings)
    add_divided_groups(catalog, warnings)
    _add_unjudged(catalog, warnings)
    _add_repeated_queries(catalog, warnings)


def _attribute_kinds(catalog: Catalog) -> dict[str, Counter[str]]:
    """How many products have a value of each kind, by attribute."""
    kinds: dict[str, Counter[str]] = {key: Counter() for key in catalog.info.attributes}
    for texts in catalog.products.values("attributes"):
        for text, count in Counter(texts).items():  # many products have the same attributes
            for key, value in attributes_of_json(text).items():
                kinds[key][value_kind(value)] += count
    return kinds


def _unused_attributes(catalog: Catalog, keys: set[str], kinds: dict[str, Counter[str]]) -> Iterator[str]:
    for key in catalog.info.attributes:
        if kinds[key] or key in jsonl.NEVER_ATTRIBUTES:
            continue
        if key in keys or key in jsonl.ProductLine.model_fields:
            yield f"attributes: no product has a value of {preview(key)}"
            continue
        nearest = difflib.get_close_matches(key, sorted(keys - set(catalog.info.attributes)), 1)
        hint = f"did you mean {preview(nearest[0])}?" if nearest else "expected a key of products.jsonl"
        yield f"attributes: no product has the key {preview(key)}; {hint}"


def _mixed_attributes(kinds: dict[str, Counter[str]]) -> Iterator[str]:
    """Attributes that are a number in some products and a text in others, such as "19,99"."""
    for key, counts_of in kinds.items():
        if counts_of["number"] and counts_of["text"]:
            counts = f"a number in {counts_of['number']:,} products and text in {counts_of['text']:,}"
            yield f"attributes: {preview(key)} is {counts}; expected one of them"


def excluded_by_pool(catalog: Catalog) -> Iterator[str]:
    """How many judgements and queries evaluation leaves out because they are of other splits, if any; one text."""
    if catalog.info.pool != "split" or _without_splits(catalog):  # so there are products
        return
    splits, relevant = catalog.products.column("split").to_numpy(), catalog.info.relevant
    judgements, queries = 0, 0
    for start in range(0, len(catalog.queries), _QUERIES_AT_ONCE):
        some = list(catalog.queries[start : start + _QUERIES_AT_ONCE])
        rows = catalog.index.positions([id for query in some for id in query.rel])
        split_of = iter(np.where(rows < 0, NO_SPLIT, splits[rows]).tolist())
        for query in some:
            code = SPLITS.index(query.split)
            outside = {id for id in query.rel if next(split_of) != code}
            positive = {id for id, grade in query.rel.items() if grade >= relevant}
            judgements += len(outside)
            queries += bool(positive) and positive <= outside
    if judgements:
        yield (
            f'pool: "split" excludes {judgements:,} judgements of products of other splits, and {queries:,} of '
            f'{len(catalog.queries):,} queries, which keep no relevant product; "all" searches all products'
        )


def _ignored_keys(catalog: Catalog, keys: set[str]) -> Iterator[str]:
    """Keys that look like a misspelled key of the format which no product has."""
    has = {name: _is_used(catalog.products.column(name)) for name in jsonl.ProductLine.model_fields}
    missing = [name for name, used in has.items() if not used and not (name == "title" and catalog.info.hide_title)]
    for key in sorted(keys - set(catalog.info.attributes)):
        if nearest := difflib.get_close_matches(key, missing, 1, cutoff=0.75):
            yield f"{preview(key)} is ignored; did you mean {preview(nearest[0])}?"


def _is_used(column: "pa.ChunkedArray") -> bool:
    """Whether any product has a value: a text or a list that is not empty, a flag that is set, a split."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    if pa.types.is_boolean(column.type):
        used = column
    elif pa.types.is_integer(column.type):
        used = pc.not_equal(column, NO_SPLIT)
    else:
        is_list = pa.types.is_list(column.type)
        used = pc.greater(pc.list_value_length(column) if is_list else pc.binary_length(column), 0)
    return bool(pc.any(used).as_py())


def _add_unjudged(catalog: Catalog, warnings: Problems) -> None:
    relevant = catalog.info.relevant
    for query, number in zip(catalog.queries, _query_lines(catalog), strict=True):
        if not query.rel:
            warnings.add(f"{jsonl.QUERIES}:{number}", "rel: empty, so evaluation leaves the query out")
        elif max(query.rel.values()) < relevant:
            found = f"rel: no grade of {relevant} or more"
            warnings.add(f"{jsonl.QUERIES}:{number}", f"{found}, so evaluation leaves the query out")


def _query_lines(catalog: Catalog) -> Iterator[int]:
    return itertools.chain.from_iterable(catalog.queries.values("line"))


def _add_repeated_queries(catalog: Catalog, warnings: Problems) -> None:
    """Adds queries whose text is that of another, after normalization, if judgements contradict or a split has both."""
    by_text: dict[str, list[tuple[int, Query]]] = defaultdict(list)
    for query, number in zip(catalog.queries, _query_lines(catalog), strict=True):
        by_text[normalize_query(query.text)].append((number, query))
    for same in by_text.values():
        grades: dict[str, tuple[int, int]] = {}  # product -> line and grade of its first judgement
        splits: dict[str, int] = {}  # split -> first line
        for number, query in same:
            for product, grade in query.rel.items():
                line, other = grades.setdefault(product, (number, grade))
                if other != grade:
                    found = f"rel: grade {grade} of {preview(product)}, but {other} in line {line} for the same text"
                    warnings.add(f"{jsonl.QUERIES}:{number}", found)
                    break
            else:
                if (line := splits.setdefault(query.split, number)) != number:
                    found = f"text: the same as in line {line} of the same split"
                    warnings.add(f"{jsonl.QUERIES}:{number}", f"{found}; judge one query per text")
