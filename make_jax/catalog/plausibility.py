"""What a valid catalog cannot be used for, and warnings: what is probably not as its author meant it."""

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from make_jax.catalog import jsonl
from make_jax.catalog.attributes import value_kind
from make_jax.catalog.reader import Catalog, Lines
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import Product, Query
from make_jax.catalog.text import normalize_query


def limits(catalog: Catalog) -> list[str]:
    """One line for each thing that a catalog without problems cannot be used for, with what to do about it."""
    return [*_training_limits(catalog), *_evaluation_limits(catalog)]


def _without_splits(catalog: Catalog) -> bool:
    return all(product.split is None for product in catalog.products)


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


def find_warnings(catalog: Catalog, lines: Lines, checksums: Sequence[int | None], warnings: Problems) -> None:
    """Adds to `warnings` what is probably not meant. `lines` as `reader.read` returned them; `checksums` are those of
    the products' images, None for a product without a readable one."""
    for text in (*_unused_attributes(catalog, lines), *_mixed_attributes(catalog), *excluded_by_pool(catalog)):
        warnings.add(jsonl.INFO, text)
    for text in _ignored_keys(catalog, lines):
        warnings.add(jsonl.PRODUCTS, text)
    _add_repeated_products(catalog, lines, checksums, warnings)
    _add_divided_groups(catalog, lines, warnings)
    _add_unjudged(catalog, lines, warnings)
    _add_repeated_queries(catalog, lines, warnings)


def _unused_attributes(catalog: Catalog, lines: Lines) -> Iterator[str]:
    used = {key for product in catalog.products for key in product.attributes}
    for key in catalog.info.attributes:
        if key in used or key in jsonl.NEVER_ATTRIBUTES:
            continue
        if key in lines.keys or key in jsonl.ProductLine.model_fields:
            yield f"attributes: no product has a value of {preview(key)}"
            continue
        nearest = difflib.get_close_matches(key, sorted(lines.keys - set(catalog.info.attributes)), 1)
        hint = f"did you mean {preview(nearest[0])}?" if nearest else "expected a key of products.jsonl"
        yield f"attributes: no product has the key {preview(key)}; {hint}"


def _mixed_attributes(catalog: Catalog) -> Iterator[str]:
    """Attributes that are a number in some products and a text in others, such as "19,99"."""
    for key in catalog.info.attributes:
        values = (product.attributes[key] for product in catalog.products if key in product.attributes)
        kinds = Counter(map(value_kind, values))
        if kinds["number"] and kinds["text"]:
            counts = f"a number in {kinds['number']:,} products and text in {kinds['text']:,}"
            yield f"attributes: {preview(key)} is {counts}; expected one of them"


def excluded_by_pool(catalog: Catalog) -> Iterator[str]:
    """How many judgements and queries evaluation leaves out because they are of other splits, if any; one text."""
    if catalog.info.pool != "split" or _without_splits(catalog):
        return
    splits, relevant = {product.id: product.split for product in catalog.products}, catalog.info.relevant
    judgements, queries = 0, 0
    for query in catalog.queries:
        outside = {id for id in query.rel if splits.get(id) != query.split}
        positive = {id for id, grade in query.rel.items() if grade >= relevant}
        judgements += len(outside)
        queries += bool(positive) and positive <= outside
    if judgements:
        yield (
            f'pool: "split" excludes {judgements:,} judgements of products of other splits, and {queries:,} of '
            f'{len(catalog.queries):,} queries, which keep no relevant product; "all" searches all products'
        )


def _ignored_keys(catalog: Catalog, lines: Lines) -> Iterator[str]:
    """Keys that look like a misspelled key of the format which no product has."""
    has = {name: any(getattr(product, name) for product in catalog.products) for name in jsonl.ProductLine.model_fields}
    missing = [name for name, used in has.items() if not used and not (name == "title" and catalog.info.hide_title)]
    for key in sorted(lines.keys - set(catalog.info.attributes)):
        if nearest := difflib.get_close_matches(key, missing, 1, cutoff=0.75):
            yield f"{preview(key)} is ignored; did you mean {preview(nearest[0])}?"


def _add_repeated_products(catalog: Catalog, lines: Lines, checksums: Sequence[int | None], warnings: Problems) -> None:
    first: dict[int, int] = {}  # hash of a product without its id -> position
    pictured: dict[tuple[int, int], int] = {}  # size and checksum of an image -> position
    for position, (product, checksum) in enumerate(zip(catalog.products, checksums, strict=True)):
        place = f"{jsonl.PRODUCTS}:{lines.products[position]}"
        content = (product.title, checksum, product.category, tuple(product.attributes.items()))
        if product.image is not None and checksum is None:
            continue
        other = first.setdefault(hash(content), position)
        if other != position and not _variants(product, catalog.products[other]):
            same = f"the same product as line {lines.products[other]} under another id"
            split = catalog.products[other].split
            same += f', there in the split "{split}", here in "{product.split}"' if split != product.split else ""
            warnings.add(place, same)
        elif product.image is not None and checksum is not None:
            other = pictured.setdefault((catalog.source.sizes[product.image], checksum), position)
            if other != position and not _variants(product, catalog.products[other]):
                warnings.add(place, f"image: the same picture as line {lines.products[other]}")


def _variants(a: Product, b: Product) -> bool:
    return a.group is not None and a.group == b.group


def _add_divided_groups(catalog: Catalog, lines: Lines, warnings: Problems) -> None:
    first: dict[str, Product] = {}
    for product, number in zip(catalog.products, lines.products, strict=True):
        if product.group is not None:
            split = first.setdefault(product.group, product).split
            if split != product.split:
                found = f'group: {preview(product.group)} is in the splits "{split}" and "{product.split}"'
                warnings.add(f"{jsonl.PRODUCTS}:{number}", f"{found}; variants belong in one")


def _add_unjudged(catalog: Catalog, lines: Lines, warnings: Problems) -> None:
    relevant = catalog.info.relevant
    for query, number in zip(catalog.queries, lines.queries, strict=True):
        if not query.rel:
            warnings.add(f"{jsonl.QUERIES}:{number}", "rel: empty, so evaluation leaves the query out")
        elif max(query.rel.values()) < relevant:
            found = f"rel: no grade of {relevant} or more"
            warnings.add(f"{jsonl.QUERIES}:{number}", f"{found}, so evaluation leaves the query out")


def _add_repeated_queries(catalog: Catalog, lines: Lines, warnings: Problems) -> None:
    """Adds queries whose text is that of another, after normalization, if judgements contradict or a split has both."""
    by_text: dict[str, list[tuple[int, Query]]] = defaultdict(list)
    for query, number in zip(catalog.queries, lines.queries, strict=True):
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
