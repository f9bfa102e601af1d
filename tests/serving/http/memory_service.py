"""A search service over a list of products in memory: what the tests of HTTP and the page need, without a model."""

import io
import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from make_jax.catalog import images
from make_jax.errors import InputError
from make_jax.serving.filters import And, Compare, Exists, Filter, In, Not, Or
from make_jax.serving.requests import FacetStats, Scores, SearchHit, SearchRequest, SearchResponse
from make_jax.serving.search_service import RequestError, ServiceInfo


def webp(color: str = "red", size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, "WEBP")
    return file.getvalue()


PRODUCTS = [
    SearchHit("1", "Red running shoes", {"brand": "Nike", "price": 49.5, "sizes": ("S", "M")}, True, 0.0),
    SearchHit("2", "Blue running shoes", {"brand": "Puma", "price": 39.0}, True, 0.0),
    SearchHit("a/b?c#d", "Red <b>shirt</b>", {"brand": "Nike", "price": 10, "sale": True}, False, 0.0),
    SearchHit("4", "红色的鞋 👟", {"brand": "李宁"}, True, 0.0),
]


class MemoryService:
    """Ranks by the share of query words in the title."""

    def __init__(self, version: str = "v1", products: Sequence[SearchHit] = tuple(PRODUCTS)) -> None:
        self.products = {product.id: product for product in products}
        self.pictures = {product.id: webp() for product in products if product.has_image}
        kinds = {"brand": "text", "price": "number", "sizes": "list", "sale": "true or false"}
        self.info = ServiceInfo(version, len(products), "memory", "test", kinds, True)
        self.requests: list[SearchRequest] = []
        self.closed = False
        self.gate: threading.Event | None = None  # searches wait for it

    def search(self, request: SearchRequest) -> SearchResponse:
        if self.gate is not None:
            self.gate.wait(10)
        if self.closed:
            raise RuntimeError("closed")
        if request.image is not None:
            try:
                images.decode(request.image, "image")
            except InputError as error:
                raise RequestError("image", str(error)) from None
        names = {"facets": request.facets, "sort": [s.attribute for s in request.sort], "distinct": [request.distinct]}
        for parameter, used in names.items():
            for name in set(used) - {"", "*", *self.info.attributes}:
                raise RequestError(parameter, f"{parameter}: no attribute {name!r}")
        self.requests.append(request)
        for name in ("like", "unlike"):
            for product_id in getattr(request, name):
                if product_id not in self.products:
                    raise RequestError(name, f"{name}: the index has no product {product_id!r}")
        words = request.q.lower().split()
        found = [
            (sum(word in product.title.lower() for word in words) / max(1, len(words)), product)
            for product in self.products.values()
            if product.id not in request.like and (request.filter is None or meets(product, request.filter))
        ]
        least = request.min_score if request.min_score is not None else -1.0
        found = [(score, product) for score, product in found if score >= least]
        found.sort(key=lambda pair: -pair[0])
        counted = tuple(self.info.attributes) if "*" in request.facets else request.facets
        facets = {name: facet([product for _, product in found], name) for name in counted}
        prices = [float(p.attributes["price"]) for _, p in found if "price" in p.attributes]  # type: ignore[arg-type]
        stats = {"price": FacetStats(min(prices), max(prices))} if prices and "price" in counted else {}
        page = found[request.offset : request.offset + request.limit]
        return SearchResponse(
            hits=[hit(product, score, request) for score, product in page],
            total=len(found),
            facets=facets,
            facet_stats=stats,
            predicted_keywords=(("shoes", 0.75),) if request.explain else (),
            corrected_query="running" if request.q == "runing" else "",
            version=self.info.version,
            vector=np.zeros(2, np.float32) if request.retrieve_vectors else None,
        )

    def product(self, product_id: str) -> SearchHit | None:
        return self.products.get(product_id)

    def thumbnail(self, product_id: str) -> bytes | None:
        return self.pictures.get(product_id)

    def suggest(self, text: str, limit: int) -> list[str]:
        words = sorted({product.title.lower() for product in self.products.values()})
        return [word for word in words if text.lower() in word][:limit]

    def close(self) -> None:
        self.closed = True


def hit(product: SearchHit, score: float, request: SearchRequest) -> SearchHit:
    words = [word for word in request.q.lower().split() if word in product.title.lower()]
    more = (
        {
            "scores": Scores(score, None),
            "title_weight": 0.75 if product.has_image else 1.0,
            "image_weight": 0.25 if product.has_image else 0.0,
            "matched_keywords": tuple(words),
        }
        if request.explain
        else {}
    )
    vector = np.ones(2, np.float32) if request.retrieve_vectors else None
    return SearchHit(product.id, product.title, product.attributes, product.has_image, score, vector=vector, **more)


def values(product: SearchHit, name: str) -> tuple[object, ...]:
    value = product.attributes.get(name, ())
    return value if isinstance(value, tuple) else (value,)


def facet(products: list[SearchHit], name: str) -> dict[str, int]:
    counts = Counter(
        str(value).lower() if isinstance(value, bool) else str(value)
        for product in products
        for value in values(product, name)
    )
    return dict(counts.most_common())


def meets(product: SearchHit, condition: Filter) -> bool:
    if isinstance(condition, And):
        return all(meets(product, each) for each in condition.conditions)
    if isinstance(condition, Or):
        return any(meets(product, each) for each in condition.conditions)
    if isinstance(condition, Not):
        return not meets(product, condition.condition)
    own = [str(value).lower() for value in values(product, condition.attribute)]
    if isinstance(condition, Exists):
        return bool(own)
    if isinstance(condition, In):
        return any(str(value).lower() in own for value in condition.values)
    assert isinstance(condition, Compare)
    if condition.operator == "=":
        return str(condition.value).lower() in own
    numbers = [float(v) for v in values(product, condition.attribute) if isinstance(v, int | float)]
    limit = float(condition.value)
    tests = {">": limit.__lt__, ">=": limit.__le__, "<": limit.__gt__, "<=": limit.__ge__}
    return any(tests[condition.operator](number) for number in numbers)
