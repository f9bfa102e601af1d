"""What routes share: the services, settings, metrics, and threads for blocking work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi import Request

from make_jax.catalog.text import shortened
from make_jax.serving.http.clicks import ClickFile
from make_jax.serving.http.errors import ApiError
from make_jax.serving.http.metrics import Metrics
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.search_service import SearchService

Result = TypeVar("Result")


@dataclass
class Context:
    """State of one application, as `app.state.context`."""

    services: Mapping[str, SearchService]  # by the name of the index; the first is the default
    settings: HttpSettings
    metrics: Metrics = field(default_factory=Metrics)
    clicks: ClickFile | None = None
    waiting: int = 0  # requests in `call`

    def __post_init__(self) -> None:
        self._threads = anyio.CapacityLimiter(self.settings.max_threads)
        self._images = anyio.CapacityLimiter(self.settings.max_image_searches)

    def service(self, index: str | None) -> SearchService:
        """The service of an index; None: the first. Raises ApiError for an unknown name."""
        if index is None:
            return next(iter(self.services.values()))
        if index not in self.services:
            names = ", ".join(self.services)
            raise ApiError("index_not_found", f"there is no index {shortened(index, 60)!r}, expected one of {names}")
        return self.services[index]

    async def call(
        self, function: Callable[[SearchService], Result], index: str | None = None, image: bool = False
    ) -> Result:
        """Returns `function` of the service of an index, run in a thread: the event loop never waits for a search.

        Raises ApiError for an unknown index, and if too many requests wait. `image` counts against max_image_searches.
        """
        service = self.service(index)
        if self.waiting >= self.settings.max_waiting:
            raise ApiError("too_many_search_requests", "too many searches wait; try again", {"Retry-After": "1"})

        self.waiting += 1
        limiter = self._images if image else self._threads
        try:
            return await anyio.to_thread.run_sync(function, service, limiter=limiter)
        finally:
            self.waiting -= 1


def context_of(request: Request) -> Context:
    """The context of the application that received a request."""
    context: Context = request.app.state.context
    return context


def index_of(request: Request) -> str | None:
    """The parameter `index` of a query string; None without one."""
    return request.query_params.get("index")
