"""HTTP over a real index: the results of the service, unchanged, and updates without a failed request."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from make_jax.catalog.reader import Catalog
from make_jax.serving.http.app import create_app
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.index.update import update_index
from make_jax.serving.requests import SearchRequest
from make_jax.serving.service import IndexService
from tests.retrieval.fake_encoder import FakeEncoder
from tests.serving.http.memory_service import webp
from tests.serving.http.test_search_routes import error_of
from tests.serving.tiny_service import index_model, service_of
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=40, queries=8))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index") / "index"


@pytest.fixture(scope="module")
def service(index: Path, catalog: Catalog) -> Iterator[IndexService]:
    with service_of(index, FakeEncoder(), catalog) as made:
        yield made


@pytest.fixture
def client(service: IndexService) -> TestClient:
    return TestClient(create_app({"test": service}, HttpSettings()), base_url="http://localhost")


def test_ids_scores_and_totals_are_those_of_the_service(client, service):
    for request in (SearchRequest("red circle", limit=7, explain=True), SearchRequest("blue", offset=3, facets=("*",))):
        parameters = {
            "q": request.q,
            "limit": request.limit,
            "offset": request.offset,
            "facets": ",".join(request.facets),
        }
        content = client.get("/v1/search", params={**parameters, "explain": request.explain}).json()
        expected = service.search(request)
        assert [hit["id"] for hit in content["hits"]] == [hit.id for hit in expected.hits]
        assert [hit["_rankingScore"] for hit in content["hits"]] == [hit.score for hit in expected.hits]
        assert (content["estimatedTotalHits"], content["indexVersion"]) == (expected.total, expected.version)
        assert content.get("facetDistribution", {}) == expected.facets
    details = client.get("/v1/search?q=red&explain=1").json()["hits"][0]["_rankingScoreDetails"]
    assert set(details) == {"dense", "lexical", "matching", "titleWeight", "imageWeight", "matchedKeywords"}


def test_products_pictures_and_similar_products(client, service):
    hit = client.get("/v1/search?q=red").json()["hits"][0]
    product = client.get(f"/v1/products/{hit['id']}").json()
    assert product["title"] == hit["title"] and product["titleWeight"] + product["imageWeight"] == pytest.approx(1)
    picture = client.get(product["_image"])
    assert picture.headers["content-type"] == "image/webp" and picture.content == service.thumbnail(hit["id"])
    similar = client.get(f"/v1/similar/{hit['id']}").json()["hits"]
    assert similar and hit["id"] not in [each["id"] for each in similar]


def test_errors_of_the_service_name_the_parameter(client):
    assert error_of(client.get("/v1/search?like=none"))[0] == "invalid_search_like"
    assert error_of(client.get("/v1/search?facets=none"))[0] == "invalid_search_facets"
    assert error_of(client.get("/v1/search?distinct=none"))[0] == "invalid_search_distinct"
    assert error_of(client.get("/v1/search?sort=none:asc"))[0] == "invalid_search_sort"
    assert error_of(client.get("/v1/search?filter=none=1"))[0] == "invalid_search_filter"
    assert error_of(client.get("/v1/search?rerank=5"))[0] == "invalid_search_rerank"
    assert client.post("/v1/search", files={"image": webp("black", 64)}).status_code == 200
    for data in (b"<svg/>", webp(size=64)[:50]):
        assert error_of(client.post("/v1/search", files={"image": data}))[0] == "invalid_search_image"


def test_searches_during_updates_and_switches_all_succeed(client, service, index, catalog):
    ids = [product.id for product in catalog.products][:6]

    def search(_: int) -> int:
        return client.get("/v1/search?q=red&facets=*&explain=1").status_code

    with client, ThreadPoolExecutor(3) as threads:
        running = [threads.submit(search, number) for number in range(60)]
        for product_id in ids:
            update_index(index, lambda _: index_model(FakeEncoder()), None, [product_id])
            assert service.reload()
        statuses = {each.result() for each in running}
    assert statuses == {200}
    assert client.get("/v1/index").json()["numberOfDocuments"] == 34
    assert error_of(client.get(f"/v1/products/{ids[0]}"))[0] == "document_not_found"
