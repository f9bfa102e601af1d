"""/v1/index, /v1/products, thumbnails, clicks, health, the page's files, OpenAPI."""

import json
import threading
from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.serving.http import server_routes
from make_jax.serving.http.clicks import ClickFile
from make_jax.serving.http.errors import CODES
from tests.serving.http.memory_service import webp
from tests.serving.http.test_search_routes import error_of


def test_a_product_has_its_attributes_and_the_address_of_its_picture(client):
    assert client.get("/v1/products/1").json() == {
        "brand": "Nike",
        "price": 49.5,
        "sizes": ["S", "M"],
        "id": "1",
        "title": "Red running shoes",
        "_image": "/v1/products/1/thumbnail",
        "titleWeight": None,
        "imageWeight": None,
    }
    content = client.get("/v1/products/a%2Fb%3Fc%23d").json()
    assert content["id"] == "a/b?c#d" and content["_image"] is None


@pytest.mark.parametrize(
    "product_id",
    [
        "9",
        "../../etc/passwd",
        "..%2F..%2Fetc%2Fpasswd",
        "%00",
        "%ff",
        "1%20",
        "'; DROP TABLE products",
        "x" * 5000,
        "1/",
    ],
)
def test_other_ids_are_not_found(client, product_id):
    assert error_of(client.get(f"/v1/products/{product_id}"))[0] in ("document_not_found", "not_found")
    assert error_of(client.get(f"/v1/products/{product_id}/thumbnail"))[0] in ("document_not_found", "not_found")


def test_pictures_are_cached(client):
    response = client.get("/v1/products/1/thumbnail")
    assert response.content == webp() and response.headers["content-type"] == "image/webp"
    assert response.headers["cache-control"] == "private, max-age=300"
    again = client.get("/v1/products/1/thumbnail", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert error_of(client.get("/v1/products/a%2Fb%3Fc%23d/thumbnail"))[0] == "document_not_found"


def test_the_index_is_described(client):
    assert client.get("/v1/index").json() == {
        "name": "test",
        "indexes": ["test"],
        "version": "v1",
        "numberOfDocuments": 4,
        "model": "memory",
        "catalog": "test",
        "attributes": {"brand": "text", "price": "number", "sizes": "list", "sale": "true or false"},
        "acceptsImages": True,
        "acceptsClicks": False,
    }


def test_health_and_readiness(client, service):
    assert client.get("/healthz").json() == {"status": "available"}
    assert client.get("/readyz").json() == {"status": "ready", "versions": {"test": "v1"}}
    service.closed = True
    assert client.get("/healthz").status_code == 200
    assert error_of(client.get("/readyz"))[0] == "not_ready"


def test_clicks_are_off_by_default(client):
    assert error_of(client.post("/v1/click", json={"query": "red", "product": "1"}))[0] == "not_found"


def test_clicks_are_lines_that_the_catalog_reads(client_of, tmp_path):
    client = client_of(clicks=tmp_path / "clicks.jsonl")
    assert client.get("/v1/index").json()["acceptsClicks"] is True
    for body in (
        {"query": " red\n shoes\u200b", "product": "1", "lang": "en"},
        {"query": "<b>👟", "product": "4"},
    ):
        assert client.post("/v1/click", json=body).status_code == 204
    lines = [{"id": "1", "title": "Red"}, {"id": "4", "title": "Shoe"}]
    (tmp_path / "products.jsonl").write_text("".join(json.dumps({**line, "split": "train"}) + "\n" for line in lines))
    clicks = [(click.query, click.product, click.lang) for click in Catalog.load(str(tmp_path)).clicks]
    assert clicks == [("red shoes", "1", "en"), ("<b>👟", "4", "")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"query": "red", "product": "9"}', "document_not_found"),
        (b'{"query": "", "product": "1"}', "invalid_click"),
        (b'{"query": " \\n\\u200b", "product": "1"}', "invalid_click"),
        (b'{"query": "red"}', "invalid_click"),
        (b'{"query": "red", "product": 1}', "invalid_click"),
        (b'{"query": "red", "product": "1", "lang": "e n"}', "invalid_click"),
        (b'{"query": "red", "product": "1", "weight": 3}', "invalid_click"),
        (b'{"query": "' + b"x" * 1001 + b'", "product": "1"}', "invalid_click"),
        (b"[", "invalid_click"),
        (b"", "invalid_click"),
    ],
)
def test_wrong_clicks_store_nothing(client_of, tmp_path, body, code):
    client = client_of(clicks=tmp_path / "clicks.jsonl")
    response = client.post("/v1/click", content=body, headers={"Content-Type": "application/json"})
    assert error_of(response)[0] == code
    response = client.post(
        "/v1/click", content=b'{"query": "red", "product": "1"}', headers={"Content-Type": "text/plain"}
    )
    assert error_of(response)[0] == "invalid_content_type"
    assert (tmp_path / "clicks.jsonl").read_text() == ""


def test_clicks_of_many_threads_are_complete_lines(tmp_path):
    clicks = [ClickFile(tmp_path / "clicks.jsonl") for _ in range(2)]
    threads = [
        threading.Thread(target=lambda n=n: [clicks[n % 2].add("q" * 500, str(n), "") for _ in range(50)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in (tmp_path / "clicks.jsonl").read_text().splitlines()]
    assert len(lines) == 400 and {line["query"] for line in lines} == {"q" * 500}


def test_a_click_that_does_not_fit_on_the_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    import os

    clicks, write = ClickFile(tmp_path / "clicks.jsonl"), os.write
    clicks.add("one", "1", "")
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(OSError, match="no space left for clicks"):
        clicks.add("two", "1", "")
    monkeypatch.undo()
    clicks.add("three", "1", "")
    assert [json.loads(line)["query"] for line in (tmp_path / "clicks.jsonl").read_text().splitlines()] == [
        "one",
        "three",
    ]


def test_a_click_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"--clicks .*none/clicks.jsonl: No such file or directory; expected a file"):
        ClickFile(tmp_path / "none" / "clicks.jsonl")


def test_only_files_of_the_page_are_served(client, monkeypatch):
    file = server_routes.PageFile(b"body {}", "text/css; charset=utf-8", '"tag"')
    monkeypatch.setattr(server_routes, "page_files", lambda: {"style.css": file, "index.html": file})
    response = client.get("/page/style.css")
    assert (response.content, response.headers["content-type"]) == (b"body {}", "text/css; charset=utf-8")
    assert client.get("/").content == b"body {}"
    assert client.get("/page/style.css", headers={"If-None-Match": '"tag"'}).status_code == 304
    for name in (
        "..%2F__init__.py",
        "%2e%2e/app.py",
        "__init__.py",
        "style.css%00",
        "",
        "x" * 9000,
    ):
        assert client.get(f"/page/{name}").status_code == 404, name


def test_unknown_addresses_and_methods_are_errors(client):
    assert error_of(client.get("/v1/nothing"))[0] == "not_found"
    response = client.delete("/v1/products/1")
    assert error_of(response) == ("method_not_allowed", "found DELETE, expected GET")
    assert response.headers["allow"] == "GET"
    assert client.delete("/v1/search").headers["allow"] == "GET, POST"
    assert client.post("/").headers["allow"] == client.post("/page/x.js").headers["allow"] == "GET"
    assert error_of(client.get("/docs"))[0] == "not_found"  # FastAPI's loads scripts of another site


def test_the_description_has_every_route_parameter_and_error_with_examples(client):
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) == {
        "/v1/search", "/v1/similar/{product_id}", "/v1/suggest", "/v1/index", "/v1/products/{product_id}",
        "/v1/products/{product_id}/thumbnail", "/v1/click", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    search = description["paths"]["/v1/search"]
    names = {parameter["name"] for parameter in search["get"]["parameters"]}
    bodies = search["post"]["requestBody"]["content"]
    assert names == set(bodies["application/json"]["schema"]["properties"])
    assert names | {"image"} == set(bodies["multipart/form-data"]["schema"]["properties"])
    assert {"q", "filter", "facets", "limit", "offset", "rankingScoreThreshold"} <= names
    example = search["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert {"hits", "estimatedTotalHits", "facetDistribution", "facetStats", "processingTimeMs"} <= set(example)
    contents = {
        path: set(method["responses"].get("200", {}).get("content", {}))
        for path, methods in description["paths"].items()
        for method in methods.values()
    }
    assert contents["/v1/products/{product_id}/thumbnail"] == {"image/webp"} and contents["/metrics"] == {"text/plain"}
    answer = search["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/SearchAnswer"}
    required = description["components"]["schemas"]["SearchAnswer"]["required"]
    for path in ("/v1/search", "/v1/search?page=2"):
        assert set(required) <= set(client.get(path).json())
    body = bodies["application/json"]["schema"]["properties"].values()
    assert all({"type": "null"} in schema["anyOf"] for schema in body)  # null is the default of each parameter
    sort = next(parameter["schema"] for parameter in search["get"]["parameters"] if parameter["name"] == "sort")
    assert sort["items"]["pattern"] == "^[^,]+:(asc|desc)$"
    text = json.dumps(description)
    assert "HTTPValidationError" not in text  # FastAPI's form of errors, which is not ours
    assert not [code for code, row in CODES.items() if f"`{code}`" not in text and row.status != 405]


def test_each_error_code_is_described_on_a_page(client):
    page = client.get("/errors")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert all(f'id="{code}"' in page.text for code in CODES)
    sources = "".join(path.read_text() for path in Path("make_jax/serving/http").glob("*.py"))
    unused = [code for code in CODES if not code.startswith("invalid_search_") and sources.count(f'"{code}"') < 2]
    assert not unused
