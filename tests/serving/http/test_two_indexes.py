"""A server of two indexes: the parameter `index` of every route chooses one; an unknown name is an error."""

import dataclasses

import pytest
from starlette.testclient import TestClient

from make_jax.catalog.reader import Catalog
from make_jax.serving.http.app import create_app
from make_jax.serving.http.settings import HttpSettings
from make_jax.serving.requests import SearchHit
from tests.serving.http.memory_service import PRODUCTS, MemoryService, webp
from tests.serving.http.test_search_routes import error_of

OTHER = [SearchHit("1", "Red shoes, by another model", {"brand": "Nike"}, True, 0.0), PRODUCTS[1]]


@pytest.fixture
def services() -> dict[str, MemoryService]:
    other = MemoryService("v2", OTHER)
    other.info = dataclasses.replace(other.info, model="another")
    other.pictures["1"] = webp("blue")
    return {"shop": MemoryService(), "shop-v2": other}


@pytest.fixture
def client(services, tmp_path) -> TestClient:
    app = create_app(services, HttpSettings(clicks=tmp_path / "clicks.jsonl"))
    return TestClient(app, base_url="http://localhost")


def test_the_indexes_are_listed(client):
    first, second = client.get("/v1/index").json(), client.get("/v1/index?index=shop-v2").json()
    assert (first["name"], first["model"], first["version"], first["numberOfDocuments"]) == ("shop", "memory", "v1", 4)
    assert (second["name"], second["model"], second["version"]) == ("shop-v2", "another", "v2")
    assert first["indexes"] == second["indexes"] == ["shop", "shop-v2"]
    assert client.get("/v1/index?index=shop").json() == first


def test_a_search_of_every_form_is_answered_by_the_index_that_it_names(client, services):
    for name, version, total in ((None, "v1", 4), ("shop", "v1", 4), ("shop-v2", "v2", 2)):
        values = {"q": "red"} if name is None else {"q": "red", "index": name}
        for response in (
            client.get("/v1/search", params=values),
            client.post("/v1/search", json=values),
            client.post("/v1/search", data=values, files={"image": webp()}),
        ):
            content = response.json()
            assert (content["indexVersion"], content["estimatedTotalHits"]) == (version, total)
        similar = client.get("/v1/similar/2", params=values).json()
        assert (similar["indexVersion"], len(similar["hits"])) == (version, total - 1)
    assert [len(service.requests) for service in services.values()] == [8, 4]


def test_a_picture_has_an_address_in_its_index(client):
    hit = client.get("/v1/search?q=red&index=shop-v2").json()["hits"][0]
    assert hit["_image"] == "/v1/products/1/thumbnail?index=shop-v2"
    assert client.get(hit["_image"]).content == webp("blue")
    product = client.get("/v1/products/1?index=shop-v2").json()
    assert (product["title"], product["_image"]) == ("Red shoes, by another model", hit["_image"])
    assert client.get("/v1/search?q=red").json()["hits"][0]["_image"] == "/v1/products/1/thumbnail"
    assert client.get("/v1/products/1/thumbnail").content == webp()


def test_suggestions_and_clicks_are_of_the_index(client, tmp_path):
    assert client.get("/v1/suggest?q=another").json()["suggestions"] == []
    found = client.get("/v1/suggest?q=another&index=shop-v2").json()["suggestions"]
    assert found == ["red shoes, by another model"]
    body = {"query": "red", "product": "4"}
    assert client.post("/v1/click", json=body).status_code == 204
    assert error_of(client.post("/v1/click", json={**body, "index": "shop-v2"}))[0] == "document_not_found"
    assert client.post("/v1/click", json={**body, "product": "2", "index": "shop-v2"}).status_code == 204
    (tmp_path / "products.jsonl").write_text(
        "".join(f'{{"id": "{n}", "title": "Red", "split": "train"}}\n' for n in (2, 4))
    )
    assert [click.product for click in Catalog.load(str(tmp_path)).clicks] == ["4", "2"]


@pytest.mark.parametrize(
    "address",
    ["search", "similar/1", "suggest", "index", "products/1", "products/1/thumbnail"],
)
def test_an_unknown_index_is_an_error_that_lists_them(client, address):
    expected = ("index_not_found", "there is no index 'none', expected one of shop, shop-v2")
    assert error_of(client.get(f"/v1/{address}?index=none")) == expected


def test_an_unknown_index_in_a_body_is_an_error(client, tmp_path):
    message = f"there is no index '{'n' * 57}...', expected one of shop, shop-v2"
    for name, text in (("none", "there is no index 'none', expected one of shop, shop-v2"), ("n" * 99, message)):
        for response in (
            client.post("/v1/search", json={"index": name}),
            client.post("/v1/search", data={"index": name}, files={"image": webp()}),
            client.post("/v1/click", json={"query": "red", "product": "1", "index": name}),
        ):
            assert error_of(response) == ("index_not_found", text)
    assert error_of(client.post("/v1/search", json={"index": 3}))[0] == "invalid_search_index"
    assert (tmp_path / "clicks.jsonl").read_text() == ""


def test_the_server_is_ready_when_both_are(client, services):
    assert client.get("/readyz").json() == {"status": "ready", "versions": {"shop": "v1", "shop-v2": "v2"}}
    services["shop-v2"].closed = True
    assert error_of(client.get("/readyz"))[0] == "not_ready"


def test_metrics_have_both(client):
    text = client.get("/metrics").text
    for name, version, products in (("shop", "v1", 4), ("shop-v2", "v2", 2)):
        assert f'make_jax_index_version{{index="{name}",version="{version}"}} 1.0' in text
        assert f'make_jax_index_products{{index="{name}"}} {products}.0' in text


def test_the_description_has_the_parameter_and_its_error_on_each_route(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("search", "similar/{product_id}", "suggest", "index", "products/{product_id}"):
        method = paths[f"/v1/{path}"]["get"]
        assert "index" in [parameter["name"] for parameter in method["parameters"]]
        assert "`index_not_found`" in method["responses"]["404"]["description"]
    bodies = paths["/v1/search"]["post"]["requestBody"]["content"]
    assert all("index" in body["schema"]["properties"] for body in bodies.values())
