"""Requests a second of each client: a token bucket for each, bounded in number."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000  # the longest idle bucket goes first
BURST_SECONDS = 2.0  # requests of this time may come at once


class RateLimiter:
    """Computes how long a client must wait. For one thread, the event loop's."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate` is in requests a second; 0 is no limit."""
        self._rate, self._clock = rate, clock
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens and when they were counted

    def wait(self, client: str) -> float:
        """Counts a request; returns 0, or the seconds after which the client may send it again."""
        if self._rate <= 0:
            return 0.0
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate
