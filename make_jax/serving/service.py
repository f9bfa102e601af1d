"""`IndexService`: searches an index on disk with its model and an engine, and follows its changes.

    from make_jax.serving.requests import SearchRequest
    from make_jax.serving.service import IndexService

    with IndexService.open("INDEX") as service:
        response = service.search(SearchRequest("red running shoes", limit=10))

Requests that several threads send at the same time share a batch: their texts are encoded together, and the engine
scores them in one matrix product. `reload`, or a thread that `watch` starts, moves on to what INDEX/current names now
and to new updates; every request is answered by one state of the index.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from make_jax.errors import InputError
from make_jax.serving.answers import Submitted, answer, prepare
from make_jax.serving.batching import Batcher
from make_jax.serving.index.reader import OpenIndex, index_state, open_index
from make_jax.serving.opened import (
    DEFAULTS,
    Log,
    ModelParts,
    Opened,
    OpenOptions,
    attribute_kinds,
    engine_parts,
    engine_state,
    open_engine,
    open_parts,
)
from make_jax.serving.query_encoder import BATCH_SIZES, MAX_BATCH
from make_jax.serving.query_vectors import accepts_images
from make_jax.serving.request_checks import is_unicode
from make_jax.serving.requests import SearchHit, SearchRequest, SearchResponse
from make_jax.serving.search_service import ServiceInfo

_log = logging.getLogger(__name__)


class IndexService:
    """Searches an index. A `SearchService`; all methods are safe to call from several threads."""

    def __init__(self, path: Path, opened: Opened, options: OpenOptions, log: Log) -> None:
        """Use `open`."""
        self._path, self._options, self._write = path, options, log
        self._opened = opened
        self._lock = threading.Lock()  # of the engine with its index: searches, and the switch to another state
        self._reload_lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._failed = ""  # a state that cannot be opened, which is logged once
        self._batcher = Batcher(self._answer, MAX_BATCH, "search")

    @classmethod
    def open(
        cls,
        path: str | Path,
        options: OpenOptions = DEFAULTS,
        log: Log = lambda _: None,
        like: "IndexService | None" = None,
    ) -> "IndexService":
        """The service of an index; `log` gets a line for each choice made at start.

        Shares the model of `like`, another service, if both have the same. Raises InputError for a damaged index, and
        for a model that is missing or has changed.
        """
        index = open_index(path, options.version, read_vectors=True)
        parts = like._opened.parts if like else None
        if parts is None or parts.digest != index.manifest.model.digest:
            parts = open_parts(index, options, log)
        opened = Opened(index, open_engine(index, options), parts, attribute_kinds(index))
        service = cls(Path(path), opened, options, log)
        if options.warm_up:
            service._warm_up()
        return service

    @property
    def info(self) -> ServiceInfo:
        """What is searched."""
        opened = self._opened
        manifest = opened.index.manifest
        return ServiceInfo(
            version=opened.index.version,
            products=manifest.count,
            model=manifest.model.name,
            catalog=manifest.catalog.name,
            attributes=opened.attributes,
            accepts_images=accepts_images(opened.parts.model),
        )

    def search(self, request: SearchRequest) -> SearchResponse:
        """The results of a request; requests of several threads share a batch. `like` products are no results.

        Raises RequestError for an unknown attribute or id, and for an image that cannot be decoded.
        """
        return self.submit(request).result()

    def submit(self, request: SearchRequest) -> "Future[SearchResponse]":
        """The future results of a request; for asyncio: `await asyncio.wrap_future(service.submit(request))`.

        A picture is decoded and encoded before this returns.
        """
        return self._batcher.submit(Submitted(request, self._opened))

    def search_all(self, requests: Sequence[SearchRequest]) -> list[SearchResponse]:
        """The results of each request, in batches. Raises RequestError as `search`, for the first that fails."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    @property
    def waiting(self) -> int:
        """How many requests wait for the current batch to end."""
        return self._batcher.waiting

    def similar(self, product_id: str, limit: int = 20) -> SearchResponse:
        """The products nearest to a product, without it. Raises RequestError for an unknown id."""
        return self.search(SearchRequest(like=(product_id,), limit=limit))

    def product(self, product_id: str) -> SearchHit | None:
        """A product with score 0 and its weights; None if the index has no such id."""
        index = self._opened.index
        row = index.row(product_id) if is_unicode(product_id) else None
        if row is None:
            return None
        product = index.products[row]
        title, image = index.weights[row].tolist()
        has_image = product.image is not None
        return SearchHit(product.id, product.title, product.attributes, has_image, 0.0, None, title, image)

    def thumbnail(self, product_id: str) -> bytes | None:
        """A small WebP picture of a product; None if the index has none."""
        index = self._opened.index
        row = index.row(product_id) if is_unicode(product_id) else None
        return None if row is None else index.thumbnail(row)

    def suggest(self, text: str, limit: int) -> list[str]:
        """Queries that begin like `text` or continue it, best first."""
        return self._opened.suggestions.suggestions.suggest(text, limit)

    def reload(self) -> bool:
        """Moves on to the current version of the index and its updates; whether there was a change.

        Searches go on meanwhile. Raises InputError for a state that cannot be opened; the old one stays in use.
        """
        with self._reload_lock:
            old = self._opened
            if index_state(self._path, self._options.version) == old.index.state:
                return False
            index = open_index(self._path, self._options.version, read_vectors=True, known=old.index)
            parts = old.parts
            if index.manifest.model.digest != parts.digest:
                parts = open_parts(index, self._options, self._write)
                if self._options.warm_up:
                    parts.warm_up()
            self._switch(old, index, parts)
            return True

    def watch(self, seconds: float = 1.0) -> None:
        """Starts a thread that looks for changes every `seconds` and logs them; what cannot be opened, once."""
        self._watcher = threading.Thread(target=self._watch, args=(seconds,), name="index-watcher", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Ends when the submitted requests are answered; releases memory, files and processes."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        self._batcher.close()
        self._opened.engine.close()

    def __enter__(self) -> "IndexService":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, requests: list[Submitted]) -> list[SearchResponse | Exception]:
        """The results of a batch. Where the model is replaced between encoding and search, both are repeated."""
        while True:
            opened = self._opened
            searches = prepare(opened, requests)
            with self._lock:
                if opened.parts is self._opened.parts:
                    return [*answer(self._opened, searches)]

    def _switch(self, old: Opened, index: OpenIndex, parts: ModelParts) -> None:
        """Puts another state in the place of `old`."""
        name = self._options.engine or index.manifest.engine.name
        in_place = index.continues(old.index) and name != "flat"
        engine = old.engine if in_place else open_engine(index, self._options)
        new = Opened(index, engine, parts, attribute_kinds(index), old.suggestions_for(index))
        if old.has_suggestions:
            _ = new.suggestions  # made while searches go on with the old state
        if in_place:
            changes = index.changes(len(old.index.updates))
            rows = index.rows_at(changes.replaced)
            deleted = changes.deleted[changes.deleted < old.index.rows]  # others were added and deleted since
        with self._lock:
            if in_place:  # here, because no search may see the engine's new products with the old index
                engine.update(rows, deleted, engine_state(index), engine_parts(index))
            self._opened = new
        if not in_place:
            old.engine.close()

    def _warm_up(self) -> None:
        self._opened.parts.warm_up()
        _ = self._opened.suggestions
        for size in BATCH_SIZES:
            self._answer([Submitted(SearchRequest("red", limit=1), self._opened)] * size)

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                if self.reload():
                    opened = self._opened.index
                    self._write(f"now searching version {opened.version} with {len(opened.updates)} updates")
            except Exception as error:  # the old state stays in use, whatever is wrong with the new one
                if str(error) != self._failed:
                    self._failed = str(error)
                    known = isinstance(error, InputError | OSError)
                    message = "the index has changed and cannot be opened; the old state is used: %s"
                    _log.error(message, error, exc_info=None if known else error)
