"""/v1/search, /v1/similar, /v1/suggest: results, parameters, and an error for each wrong one."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from make_jax.serving.http.errors import CODES
from make_jax.serving.http.parameters import SearchParameters, code_of_parameter
from make_jax.serving.requests import Sort
from tests.serving.http.memory_service import webp


def error_of(response):
    content = response.json()
    assert set(content) == {"message", "code", "type", "link"} and "\n" not in content["message"]
    row = CODES[content["code"]]
    assert (response.status_code, content["type"]) == (row.status, row.type)
    assert content["link"] == f"/errors#{content['code']}"
    return content["code"], content["message"]


def test_a_search_has_the_members_of_meilisearch(client):
    response = client.get("/v1/search", params={"q": "red shoes", "limit": 2, "facets": "brand,price"})
    assert response.status_code == 200
    content = response.json()
    assert content.pop("processingTimeMs") >= 0
    assert content == {
        "hits": [
            {
                "brand": "Nike",
                "price": 49.5,
                "sizes": ["S", "M"],
                "id": "1",
                "title": "Red running shoes",
                "_image": "/v1/products/1/thumbnail",
                "_rankingScore": 1.0,
            },
            {
                "brand": "Puma",
                "price": 39.0,
                "id": "2",
                "title": "Blue running shoes",
                "_image": "/v1/products/2/thumbnail",
                "_rankingScore": 0.5,
            },
        ],
        "query": "red shoes",
        "limit": 2,
        "offset": 0,
        "estimatedTotalHits": 4,
        "totalIsExact": True,
        "indexVersion": "v1",
        "facetDistribution": {"brand": {"Nike": 2, "Puma": 1, "李宁": 1}, "price": {"49.5": 1, "39.0": 1, "10": 1}},
        "facetStats": {"price": {"min": 10.0, "max": 49.5}},
    }


def test_all_parameters_reach_the_service_from_query_string_json_and_form(client, service):
    texts = {
        "q": "red",
        "facets": "brand,price",
        "sort": "price:desc",
        "limit": "5",
        "offset": "1",
        "distinct": "brand",
        "maxPerValue": "2",
        "rankingScoreThreshold": "-0.5",
        "lexicalWeight": "0.25",
        "imageWeight": "0.75",
        "like": ["1", "a/b?c#d"],
        "unlike": ["2"],
        "rerank": "10",
        "explain": "true",
        "retrieveVectors": "true",
    }
    assert client.get("/v1/search", params=texts).status_code == 200
    assert client.post("/v1/search", data=texts, files={"image": b""}).status_code == 200
    values = {
        **{
            name: json.loads(text)
            for name, text in texts.items()
            if name not in ("q", "facets", "sort", "distinct") and isinstance(text, str)
        },
        "q": "red",
        "facets": ["brand", "price"],
        "sort": ["price:desc"],
        "distinct": "brand",
        "like": ["1", "a/b?c#d"],
        "unlike": ["2"],
    }
    assert client.post("/v1/search", json=values).status_code == 200
    first, second, third = service.requests
    assert first == second == third
    assert (first.q, first.facets, first.sort) == ("red", ("brand", "price"), (Sort("price", "desc"),))
    assert (first.limit, first.offset, first.distinct, first.max_per_value) == (5, 1, "brand", 2)
    assert (first.min_score, first.lexical_weight, first.image_weight) == (-0.5, 0.25, 0.75)
    assert (first.like, first.unlike, first.rerank) == (("1", "a/b?c#d"), ("2",), 10)
    assert first.explain and first.retrieve_vectors


def test_null_is_the_default(client, service):
    values = {"q": None, "filter": None, "limit": None, "page": None, "rankingScoreThreshold": None}
    assert client.post("/v1/search", json=values).status_code == 200
    assert client.post("/v1/search", json={}).status_code == 200
    assert service.requests[0] == service.requests[1]


def test_explain_adds_scores_weights_and_keywords(client):
    content = client.get("/v1/search?q=red&explain=true").json()
    assert content["predictedKeywords"] == [{"keyword": "shoes", "probability": 0.75}]
    assert content["hits"][0]["_rankingScoreDetails"] == {
        "dense": 1.0,
        "lexical": None,
        "matching": None,
        "titleWeight": 0.75,
        "imageWeight": 0.25,
        "matchedKeywords": ["red"],
    }
    assert "_rankingScoreDetails" not in client.get("/v1/search?q=red").json()["hits"][0]


def test_vectors_come_on_request(client):
    content = client.get("/v1/search?retrieveVectors=1").json()
    assert content["queryVector"] == [0.0, 0.0] and content["hits"][0]["_vectors"] == [1.0, 1.0]


def test_a_page_has_the_total_and_the_pages(client, service):
    content = client.get("/v1/search?page=2&hitsPerPage=3").json()
    assert [hit["id"] for hit in content["hits"]] == ["4"]
    paging = {name: content[name] for name in ("page", "hitsPerPage", "totalHits", "totalPages")}
    assert paging == {"page": 2, "hitsPerPage": 3, "totalHits": 4, "totalPages": 2}
    assert "limit" not in content and "estimatedTotalHits" not in content


def test_a_corrected_spelling_is_stated(client):
    assert client.get("/v1/search?q=runing").json()["correctedQuery"] == "running"


def test_an_image_is_searched_with_and_without_text(client, service):
    for data in ({}, {"q": "red", "imageWeight": "0.3"}):
        response = client.post("/v1/search", data=data, files={"image": ("x.webp", webp(), "image/webp")})
        assert response.status_code == 200, response.text
    assert [request.image for request in service.requests] == [webp(), webp()]
    assert (service.requests[1].q, service.requests[1].image_weight) == ("red", 0.3)


@pytest.mark.parametrize(
    ("parameters", "code", "message"),
    [
        ("q=" + "x" * 1001, "invalid_search_q", "q: string should have at most 1000 characters, found 1,001 char"),
        ("limit=0x1", "invalid_search_limit", "limit: expected a valid integer"),
        ("limit=1001", "invalid_search_limit", "limit: expected less than or equal to 1000, found '1001'"),
        ("limit=" + "9" * 5000, "invalid_search_limit", "limit: "),
        ("limit=", "invalid_search_limit", "limit: "),
        ("offset=-1", "invalid_search_offset", "offset: expected greater than or equal to 0, found '-1'"),
        ("page=0", "invalid_search_page", "page: "),
        ("hitsPerPage=0", "invalid_search_hits_per_page", "hitsPerPage: "),
        ("imageWeight=nan", "invalid_search_image_weight", "imageWeight: "),
        ("lexicalWeight=inf", "invalid_search_lexical_weight", "lexicalWeight: "),
        ("rankingScoreThreshold=x", "invalid_search_ranking_score_threshold", "rankingScoreThreshold: "),
        ("correct=maybe", "invalid_search_correct", "correct: "),
        ("explain=maybe", "invalid_search_explain", "explain: "),
        ("rerank=201", "invalid_search_rerank", "rerank: "),
        ("facets=brnad", "invalid_search_facets", "facets: no attribute 'brnad'"),
        ("distinct=x", "invalid_search_distinct", "distinct: no attribute 'x'"),
        ("sort=price", "invalid_search_sort", "sort is 'price', expected attribute:asc or :desc"),
        (
            "sort=prise:asc",
            "invalid_search_sort",
            "sort: no attribute 'prise'",
        ),
        ("like=9", "invalid_search_like", "like: the index has no product '9'"),
        ("unlike=9", "invalid_search_unlike", "unlike: the index has no product '9'"),
        ("limt=3", "bad_request", "unknown parameter 'limt'; did you mean limit?"),
        ("limit=3&limit=4", "bad_request", "the parameter limit occurs twice, expected it once"),
        ("min_score=3", "bad_request", "unknown parameter 'min_score'"),
        ("hits_per_page=3", "bad_request", "unknown parameter 'hits_per_page'; did you mean hitsPerPage?"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(client, parameters, code, message):
    found, text = error_of(client.get(f"/v1/search?{parameters}"))
    assert found == code and text.startswith(message), text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "missing_payload"),
        (b"{", "malformed_payload"),
        (b"[]", "malformed_payload"),
        (b"null", "malformed_payload"),
        (b'"q"', "malformed_payload"),
        (b'{"q": 3}', "invalid_search_q"),
        (b'{"q": "\\ud800"}', "malformed_payload"),
        (b'{"q": "\xff"}', "malformed_payload"),
        (b'{"limit": "3"}', "invalid_search_limit"),
        (b'{"limit": 3.5}', "invalid_search_limit"),
        (b'{"limit": true}', "invalid_search_limit"),
        (b'{"limit": null, "offset": "x"}', "invalid_search_offset"),
        (b'{"limit": null, "no": null}', "bad_request"),
        (b'{"lexicalWeight": NaN}', "invalid_search_lexical_weight"),
        (b'{"facets": "brand"}', "invalid_search_facets"),
        (b'{"facets": [null]}', "invalid_search_facets"),
        (b'{"filter": {"a": 1}}', "invalid_search_filter"),
        (b'{"filter": ' + b"[" * 5000 + b"]" * 5000 + b"}", "malformed_payload"),
        (b'{"like": ["' + b"x" * 1001 + b'"]}', "invalid_search_like"),
        (b'{"image": "eA=="}', "bad_request"),
        (b'{"__proto__": 1}', "bad_request"),
    ],
)
def test_a_wrong_body_is_an_error(client, body, code):
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert error_of(response)[0] == code


def test_every_parameter_has_an_error_code():
    for name in SearchParameters.model_fields:
        assert code_of_parameter(name) == f"invalid_search_{name}"


def test_other_types_of_bodies_are_errors(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        response = client.post("/v1/search", content=b'{"q": "red"}', headers={"Content-Type": kind})
        assert error_of(response)[0] == "invalid_content_type"
    for kind, body in (("multipart/form-data", b"x"), ("multipart/form-data; boundary=b", b"no boundary here")):
        response = client.post("/v1/search", content=body, headers={"Content-Type": kind})
        assert error_of(response)[0] == "malformed_payload"


@pytest.mark.parametrize("name", ["html.jpg", "svg.png", "truncated.webp", "gif.gif"])
def test_other_and_damaged_pictures_are_errors(client, service, name):
    data = {
        "html.jpg": b"<html><script>alert(1)</script>",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "truncated.webp": webp(size=64)[:40],
        "gif.gif": b"GIF89a" + bytes(50),
    }[name]
    code, message = error_of(client.post("/v1/search", files={"image": (name, data)}))
    assert code == "invalid_search_image" and message.startswith("image: ")
    assert not service.requests


def test_a_decompression_bomb_is_rejected_before_it_is_decoded(client, service):
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    started = time.perf_counter()
    code, message = error_of(client.post("/v1/search", files={"image": ("b.png", bomb)}))
    assert code == "invalid_search_image" and "60000 x 60000 pixels" in message
    assert time.perf_counter() - started < 1


def test_a_second_file_and_a_file_of_another_name_are_errors(client):
    two = [("image", ("a", webp())), ("image", ("b", webp()))]
    assert error_of(client.post("/v1/search", files=two))[0] == "malformed_payload"
    assert error_of(client.post("/v1/search", files={"picture": ("a", webp())}))[0] == "bad_request"


def test_a_model_without_image_encoder_refuses_pictures(client, service):
    import dataclasses

    service.info = dataclasses.replace(service.info, accepts_images=False)
    response = client.post("/v1/search", files={"image": ("a", webp())})
    assert error_of(response)[0] == "invalid_search_image"


def test_similar_products_exclude_the_product(client, service):
    response = client.get("/v1/similar/1", params={"limit": 2})
    assert [hit["id"] for hit in response.json()["hits"]] == ["2", "a/b?c#d"]
    assert service.requests[-1].like == ("1",)
    assert client.get("/v1/similar/a%2Fb%3Fc%23d").status_code == 200
    assert error_of(client.get("/v1/similar/9"))[0] == "document_not_found"
    assert error_of(client.get("/v1/similar/1?limit=x"))[0] == "invalid_search_limit"


def test_suggestions(client):
    content = client.get("/v1/suggest", params={"q": "running", "limit": 1}).json()
    assert content["suggestions"] == ["blue running shoes"] and content["query"] == "running"
    assert error_of(client.get("/v1/suggest?limit=21"))[0] == "invalid_suggest_limit"
    assert error_of(client.get("/v1/suggest?limit=²"))[0] == "invalid_suggest_limit"
    assert error_of(client.get("/v1/suggest?q=" + "x" * 1001))[0] == "invalid_suggest_q"
    assert error_of(client.get("/v1/suggest?query=x"))[0] == "bad_request"


def test_markup_and_other_scripts_are_returned_as_they_are(client):
    for text in ("<script>alert(1)</script>", "שלום", "\u202eabc", "👟" * 100, "\x00\x07", "红色"):
        assert client.get("/v1/search", params={"q": text}).json()["query"] == text
        assert client.post("/v1/search", json={"q": text}).json()["query"] == text
    response = client.get("/v1/search?q=shirt")
    assert response.json()["hits"][0]["title"] == "Red <b>shirt</b>"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_fault_is_a_500_without_details(client, service, monkeypatch):
    monkeypatch.setattr(service, "search", lambda request: 1 / 0)
    response = client.get("/v1/search?q=secret")
    code, message = error_of(response)
    assert code == "internal" and response.headers["x-request-id"] in message and "zero" not in message


def test_the_event_loop_answers_while_searches_wait_and_too_many_are_refused(client_of, service):
    service.gate = threading.Event()
    with client_of(max_threads=2, max_waiting=3) as client, ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(client.get, "/v1/search") for _ in range(3)]
        context = client.app.state.context
        deadline = time.monotonic() + 10
        while context.waiting < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.get("/healthz").status_code == 200
        response = client.get("/v1/search")
        assert error_of(response)[0] == "too_many_search_requests" and response.headers["retry-after"] == "1"
        service.gate.set()
        assert [each.result().status_code for each in waiting] == [200, 200, 200]
    assert context.waiting == 0


def found(client, expression) -> list[str]:
    response = client.post("/v1/search", json={"filter": expression})
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]


def test_filters_are_texts_and_lists_as_in_meilisearch(client):
    assert found(client, "brand = Nike AND price < 20") == ["a/b?c#d"]
    assert found(client, ["brand = Nike", "price < 20"]) == ["a/b?c#d"]
    assert found(client, [["brand = Nike", "brand = Puma"], "price > 20"]) == ["1", "2"]
    assert found(client, "  ") == found(client, []) == found(client, None) == ["1", "2", "a/b?c#d", "4"]
    response = client.get("/v1/search", params={"filter": 'brand = "李宁"'})
    assert [hit["id"] for hit in response.json()["hits"]] == ["4"]


@pytest.mark.parametrize(
    "expression",
    [
        "brand",
        "brand = ",
        "brand = 'x",
        "a = 1 OR",
        "(" * 3000,
        "NOT " * 3000 + "a = 1",
        "a = 1 OR " * 2000 + "a = 1",
        "'; DROP TABLE products; --",
        "${jndi:ldap://x}",
        "\x00",
        "x" * 20_001,
    ],
)
def test_a_wrong_filter_is_an_error_with_one_line(client, service, expression):
    for send in (
        lambda: client.get("/v1/search", params={"filter": expression}),
        lambda: client.post("/v1/search", json={"filter": expression}),
        lambda: client.post("/v1/search", json={"filter": [[expression]]}),
    ):
        code, message = error_of(send())
        assert code == "invalid_search_filter" and len(message) < 400
    assert not service.requests
