"""`search query INDEX TEXT`: the best products of an index, as a table or JSON. Help and wrong options load no jax."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from make_jax.cli.parsing import parse_options
from make_jax.errors import InputError
from make_jax.serving.engines import EngineName, FolderInUseError
from make_jax.serving.requests import MAX_LIMIT, SearchRequest, SearchResponse, Sort


@dataclass(frozen=True)
class QueryOptions:
    """Options of `search query`."""

    index: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INDEX")]  # folder that `search index` wrote
    text: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")] = ""  # without any: lists products
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10  # products
    offset: int = 0  # products to skip
    filter: str = ""  # condition on attributes: 'gender = Women AND price < 50'
    facets: tuple[str, ...] = ()  # attributes whose values are counted; * for all
    sort: tuple[str, ...] = ()  # order of the relevant products: price:asc
    distinct: str = ""  # attribute of which each value occurs at most --max-per-value times
    max_per_value: int = 1
    image: str = ""  # JPEG, PNG or WebP file to search for
    image_weight: float = 0.5  # of the image where there is a text too, 0 to 1
    like: tuple[str, ...] = ()  # ids of products that results should be like
    unlike: tuple[str, ...] = ()  # ids of products that results should be unlike
    min_score: float | None = None  # least score of results; None: no limit
    lexical_weight: float | None = None  # of BM25 over titles; None: the index's
    rerank: int = 0  # first products that the matching encoder orders
    correct: bool = True  # replace misspelled words; no-correct searches for the text as it is
    explain: bool = False  # add parts of the scores and predicted keywords, and to JSON weights and matched keywords
    json: bool = False  # print JSON instead of a table
    model: str = ""  # folder of the model if it was moved since the index was built
    engine: EngineName | None = None  # None: the one that the index names


def query(argv: Sequence[str], program: str) -> None:
    """Searches an index and prints the results. InputError for wrong options, and as `IndexService.search`."""
    options = parse_options(QueryOptions, argv, program=program, description="Searches an index.")
    request = search_request(options)

    from make_jax.cli.search_results import print_json, print_table

    try:
        response = _search(options, request, options.engine)
    except FolderInUseError:  # by a server
        if options.engine is not None:
            raise
        print("a server has the engine's folder open: compared all vectors instead (--engine flat)", file=sys.stderr)
        response = _search(options, request, "flat")
    if options.json:
        print_json(request, response)
    else:
        print_table(request, response, details=options.explain)


def _search(options: QueryOptions, request: SearchRequest, engine: EngineName | None) -> SearchResponse:
    from make_jax.serving.opened import OpenOptions
    from make_jax.serving.service import IndexService

    opened = OpenOptions(engine, model=options.model, warm_up=False)
    with IndexService.open(options.index, opened) as service:
        return service.search(request)


def search_request(options: QueryOptions) -> SearchRequest:
    """The request that the options state. InputError for a wrong filter or order, and a file that cannot be read."""
    if not 1 <= options.k <= MAX_LIMIT:
        raise InputError(f"-k is {options.k}, expected 1 to {MAX_LIMIT:,} products")
    from make_jax.serving.filter_parser import parse_filter

    return SearchRequest(
        q=options.text,
        image=_image(options.image) if options.image else None,
        image_weight=options.image_weight,
        like=options.like,
        unlike=options.unlike,
        filter=parse_filter(options.filter),
        facets=tuple(dict.fromkeys(options.facets)),
        sort=tuple(map(_sort, options.sort)),
        distinct=options.distinct,
        max_per_value=options.max_per_value,
        min_score=options.min_score,
        lexical_weight=options.lexical_weight,
        rerank=options.rerank,
        limit=options.k,
        offset=options.offset,
        correct=options.correct,
        explain=options.explain or not options.json,  # the table has weights and keywords
    )


def _image(path: str) -> bytes:
    from make_jax.catalog.images import MAX_BYTES, decode

    file = Path(path)
    if not file.is_file():
        raise InputError(f"--image {path}: {'a folder' if file.is_dir() else 'not found'}, expected an image file")
    if file.stat().st_size > MAX_BYTES:
        raise InputError(f"--image {path}: {file.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}")
    data = file.read_bytes()
    decode(data, f"--image {path}")  # for its error
    return data


def _sort(text: str) -> Sort:
    name, _, order = text.rpartition(":")
    if order not in ("asc", "desc") or not name:
        raise InputError(f"--sort {text}: expected ATTRIBUTE:asc or ATTRIBUTE:desc, as in --sort price:asc")
    return Sort(name, "asc" if order == "asc" else "desc")
