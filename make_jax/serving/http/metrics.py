"""Prometheus metrics of a server. No label holds a query, an id or an address."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from make_jax.serving.search_service import ServiceInfo

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)


class Metrics:
    """Counters and histograms of one application, in a separate registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self.requests = Counter("make_jax_http_requests", "Requests answered.", names, registry=self._registry)
        self.seconds = Histogram(
            "make_jax_http_request_seconds",
            "Time of a request, from its headers to the end of the response.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.running = Gauge("make_jax_http_requests_running", "Requests being answered.", registry=self._registry)
        self.no_hits = Counter("make_jax_searches_without_hits", "Searches with 0 results.", registry=self._registry)
        self.products = Gauge("make_jax_index_products", "Products of an index.", ["index"], registry=self._registry)
        self.version = Gauge(
            "make_jax_index_version", "1 for the version in use.", ["index", "version"], registry=self._registry
        )

    def set_indexes(self, infos: Mapping[str, ServiceInfo]) -> None:
        """Records the versions in use, by the names of the indexes."""
        self.version.clear()
        for name, info in infos.items():
            self.version.labels(name, info.version).set(1)
            self.products.labels(name).set(info.products)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
