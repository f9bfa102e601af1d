"""What routes share: the service, settings, metrics, and threads for blocking work."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi import Request

from make_jax.serving.http.clicks import ClickFile
from make_jax.serving.http.errors import ApiError
from make_jax.serving.http.metrics import Metrics
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.search_service import SearchService

Result = TypeVar("Result")


@dataclass
class Context:
    """State of one application, as `app.state.context`."""

    service: SearchService
    settings: HttpSettings
    metrics: Metrics = field(default_factory=Metrics)
    clicks: ClickFile | None = None
    waiting: int = 0  # requests in `call`

    def __post_init__(self) -> None:
        self._threads = anyio.CapacityLimiter(self.settings.max_threads)
        self._images = anyio.CapacityLimiter(self.settings.max_image_searches)

    async def call(self, function: Callable[[SearchService], Result], image: bool = False) -> Result:
        """Returns `function` of the service, run in a thread: the event loop never waits for a search.

        Raises ApiError if too many requests wait. `image` counts against max_image_searches.
        """
        if self.waiting >= self.settings.max_waiting:
            raise ApiError("too_many_search_requests", "too many searches wait; try again", {"Retry-After": "1"})

        self.waiting += 1
        limiter = self._images if image else self._threads
        try:
            return await anyio.to_thread.run_sync(function, self.service, limiter=limiter)
        finally:
            self.waiting -= 1


def context_of(request: Request) -> Context:
    """The context of the application that received a request."""
    context: Context = request.app.state.context
    return context
