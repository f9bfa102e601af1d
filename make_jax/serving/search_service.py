"""What the HTTP API and the command line need of a search service: `service.py` implements it, tests too."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from make_jax.errors import InputError
from make_jax.serving.requests import SearchHit, SearchRequest, SearchResponse


class RequestError(InputError):
    """A search that cannot be answered as it is; `parameter` names the field of SearchRequest that must change."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class ServiceInfo:
    """What a service searches."""

    version: str  # of the index
    products: int  # without deleted ones
    model: str  # name
    catalog: str  # name
    attributes: dict[str, str]  # name -> kind of its values: "text", "number", "true or false", "list"
    accepts_images: bool  # whether the model encodes the picture of a query


@runtime_checkable
class SearchService(Protocol):
    """Searches one version of an index. All methods block and are safe to call from several threads."""

    @property
    def info(self) -> ServiceInfo:
        """What is searched."""
        ...

    def search(self, request: SearchRequest) -> SearchResponse:
        """The results of a request; requests of several threads share a batch. `like` products are no results.

        Raises RequestError for an unknown attribute or id, and for an image that cannot be decoded.
        """
        ...

    def product(self, product_id: str) -> SearchHit | None:
        """A product with score 0 and its weights; None if the index has no such id."""
        ...

    def thumbnail(self, product_id: str) -> bytes | None:
        """A small WebP picture of a product; None if the index has none."""
        ...

    def suggest(self, text: str, limit: int) -> list[str]:
        """Queries that begin like `text` or continue it, best first."""
        ...

    def close(self) -> None:
        """Releases memory, files and processes. Searches that still run may fail."""
        ...
