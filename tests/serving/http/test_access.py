"""Host header, API keys, rate limit, CORS, headers, logs, metrics."""

import io
import json
import logging
import os
import stat
import sys

import pytest

from make_jax.errors import InputError
from make_jax.serving.http import rate_limit
from make_jax.serving.http.api_keys import VARIABLE, ApiKeys, add_key, read_keys
from make_jax.serving.http.rate_limit import RateLimiter
from make_jax.serving.http.request_log import log_as_json
from tests.serving.http.test_search_routes import error_of


@pytest.fixture
def key_and_keys(tmp_path):
    key = add_key(tmp_path / "keys", "shop")
    return key, read_keys(str(tmp_path / "keys"))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_file_holds_hashes_only_and_its_owner_alone_reads_it(tmp_path, key_and_keys):
    key, keys = key_and_keys
    path = tmp_path / "keys"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert key not in text and text.startswith("shop sha256:") and len(keys) == 1
    second = add_key(path, "page")
    keys = read_keys(str(path))
    assert (keys.name(key), keys.name(second), keys.name(key + "x"), keys.name("")) == ("shop", "page", None, None)


def test_keys_come_from_the_environment(monkeypatch, tmp_path, key_and_keys):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not read_keys("")
    line = (tmp_path / "keys").read_text().strip()
    monkeypatch.setenv(VARIABLE, f"{line},other sha256:{'0' * 64}")
    assert read_keys("").name(key_and_keys[0]) == "shop" and len(read_keys("")) == 2


@pytest.mark.parametrize("text", ["shop secret-key", "shop sha256:12", "a b sha256:" + "0" * 64])
def test_a_wrong_line_is_an_error_without_its_text(tmp_path, text):
    path = tmp_path / "keys"
    path.write_text(f"# keys\n\n{text}\n")
    with pytest.raises(InputError, match=r"keys, line 3: expected NAME sha256:HEX") as error:
        read_keys(str(path))
    assert "secret" not in str(error.value)
    path.write_text("# none\n")
    with pytest.raises(InputError, match=r"no key; search.py serve --new-key NAME"):
        read_keys(str(path))
    with pytest.raises(InputError, match="name of the key: 'a b'"):
        add_key(path, "a b")


def test_with_keys_every_address_needs_one_but_the_page_and_health(client_of, key_and_keys):
    key, keys = key_and_keys
    client = client_of(keys=keys)
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/errors", "/page/index.html"):
        assert client.get(path).status_code in (200, 404), path
    closed = ["/v1/search", "/v1/suggest", "/v1/similar/1", "/v1/products/1", "/v1/products/1/thumbnail", "/v1/index"]
    for path in [*closed, "/metrics", "/no/such/path", "/page", "//v1/search", "/v1/search/"]:
        response = client.get(path)
        assert error_of(response)[0] == "missing_authorization_header", path
        assert response.headers["www-authenticate"] == "Bearer"
        assert error_of(client.get(path, headers=bearer("wrong")))[0] == "invalid_api_key"
    for path in [*closed, "/metrics"]:
        assert client.get(path, headers=bearer(key)).status_code == 200, path
    assert client.post("/v1/search", json={}).status_code == 401
    assert client.post("/v1/search", json={}, headers=bearer(key)).status_code == 200
    description = client.get("/openapi.json").json()
    assert description["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    methods = {path: list(methods.values()) for path, methods in description["paths"].items()}
    described = {path for path, found in methods.items() if all(each.get("security") for each in found)}
    assert described == methods.keys() - {"/healthz", "/readyz"}
    assert "security" not in json.dumps(client_of().get("/openapi.json").json())


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer", "missing_authorization_header"),
        ("Bearer ", "missing_authorization_header"),
        ("Basic abc", "missing_authorization_header"),
        ("Bearer " + "x" * 10_000, "invalid_api_key"),
        ("Bearer \xe9\xff", "invalid_api_key"),
        ("bearer x y", "invalid_api_key"),
    ],
)
def test_wrong_authorization_headers(client_of, key_and_keys, header, code):
    response = client_of(keys=key_and_keys[1]).get("/v1/search", headers={"Authorization": header.encode("latin-1")})
    assert error_of(response)[0] == code


def test_the_host_of_another_site_is_refused(client_of):
    client = client_of()
    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"):
        assert client.get("/v1/index", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io:8000", "[::2]"):
        assert error_of(client.get("/v1/index", headers={"Host": host}))[0] == "invalid_host", host
        assert client.get("/", headers={"Host": host}).status_code == 400
    assert client_of(allowed_hosts=()).get("/v1/index", headers={"Host": "shop.example"}).status_code == 200


def test_the_rate_limit_counts_each_key_apart_and_not_the_page(client_of, tmp_path):
    first, second = (add_key(tmp_path / "keys", name) for name in ("a", "b"))
    client = client_of(keys=read_keys(str(tmp_path / "keys")), rate_limit=0.5)
    assert client.get("/v1/search", headers=bearer(first)).status_code == 200
    response = client.get("/v1/search", headers=bearer(first))
    assert error_of(response)[0] == "too_many_requests" and response.headers["retry-after"] == "2"
    assert client.get("/v1/search", headers=bearer(second)).status_code == 200
    assert all(client.get("/healthz").status_code == 200 for _ in range(5))


def test_a_token_bucket_allows_a_burst_and_then_the_rate(monkeypatch):
    now = 0.0
    limiter = RateLimiter(2.0, clock=lambda: now)
    assert [limiter.wait("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    now = 0.5
    assert [limiter.wait("a") for _ in range(2)] == [0, 0.5]
    now = 100.0
    assert [limiter.wait("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 3)
    for number in range(10):
        limiter.wait(str(number))
    assert len(limiter._buckets) == 3
    assert all(RateLimiter(0.0).wait("a") == 0 for _ in range(100))


def test_cors_is_closed_unless_an_origin_is_allowed(client_of, key_and_keys):
    key, keys = key_and_keys
    ask = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    headers = {"Origin": "https://shop.example", **bearer(key)}
    closed = client_of(keys=keys)
    assert "access-control-allow-origin" not in closed.get("/v1/search", headers=headers).headers
    assert closed.options("/v1/search", headers=ask).status_code == 401
    client = client_of(keys=keys, allowed_origins=("https://shop.example",))
    assert client.options("/v1/search", headers=ask).status_code == 200  # browsers send no key with it
    response = client.get("/v1/search", headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
    assert response.headers.get("access-control-allow-credentials") is None
    other = client.get("/v1/search", headers={**bearer(key), "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_every_response_has_security_headers_and_a_request_id(client, service, monkeypatch):
    monkeypatch.setattr(service, "suggest", lambda text, limit: 1 / 0)
    for path in ("/", "/v1/search", "/v1/search?limit=x", "/nothing", "/v1/suggest", "/v1/products/1/thumbnail"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert len(headers["x-request-id"]) == 32
    assert client.get("/healthz", headers={"X-Request-Id": "a-1.b_C"}).headers["x-request-id"] == "a-1.b_C"
    for bad in ("a b", "x" * 65, "a;b", ""):
        assert len(client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"]) == 32


@pytest.fixture
def log(monkeypatch):
    loggers = [logging.getLogger(name) for name in ("make_jax.serving", "uvicorn", "python_multipart")]
    before = [(each.handlers[:], each.propagate, each.level) for each in loggers]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log_as_json()
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger(log_as_json.__module__).setLevel(logging.NOTSET)
    for each, (handlers, propagate, level) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def test_the_log_has_one_json_line_for_each_request_without_what_was_searched(client_of, key_and_keys, log, service):
    key, keys = key_and_keys
    client = client_of(keys=keys)
    client.get("/v1/search?q=secret", headers={**bearer(key), "X-Request-Id": "r1"})
    client.post("/v1/search", json={"q": "secret"}, headers=bearer(key))
    client.get("/v1/products/secret/thumbnail", headers=bearer(key))
    client.get("/secret", headers=bearer("secret-key"))
    client.request("SECRET", "/v1/search", headers=bearer(key))
    damaged = {"Content-Type": "multipart/form-data; boundary=b", **bearer(key)}
    client.post("/v1/search", content=b"--b\r\nsecret\r\n\r\nsecret--b-secret", headers=damaged)
    lines = log()
    assert [(line["method"], line["route"], line["status"], line["key"]) for line in lines] == [
        ("GET", "/v1/search", 200, "shop"),
        ("POST", "/v1/search", 200, "shop"),
        ("GET", "/v1/products/{product_id:path}/thumbnail", 404, "shop"),
        ("GET", "other", 403, None),
        ("other", "/v1/search", 405, "shop"),
        ("POST", "/v1/search", 400, "shop"),
    ]
    assert lines[0]["request_id"] == "r1" and lines[0]["event"] == "request" and lines[0]["ms"] >= 0
    text = json.dumps(lines)
    assert "secret" not in text.lower() and key not in text and "testclient" not in text


def test_on_a_terminal_faults_alone_are_logged(client, service, monkeypatch, log):
    handler = logging.getLogger("make_jax.serving").handlers[0]
    monkeypatch.setattr(handler.stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", handler.stream)
    log_as_json()
    client.get("/v1/search?q=a")
    assert log() == []
    monkeypatch.setattr(service, "search", lambda request: 1 / 0)
    client.get("/v1/search?q=a")
    assert [line["event"] for line in log()] == ["fault"]


def test_a_fault_is_logged_with_its_traceback_and_request_id(client, service, monkeypatch, log):
    monkeypatch.setattr(service, "search", lambda request: 1 / 0)
    response = client.get("/v1/search")
    fault, request = log()
    assert fault["event"] == "fault" and fault["level"] == "error" and "ZeroDivisionError" in fault["traceback"]
    assert fault["request_id"] == request["request_id"] == response.headers["x-request-id"]
    assert request["status"] == 500


def test_a_damaged_file_of_the_index_is_one_line_of_the_log_and_no_part_of_the_answer(
    client, service, monkeypatch, log
):
    def fail(*_: object) -> None:
        raise InputError("INDEX/versions/v1/thumbnails-00000.arrow: damaged")

    monkeypatch.setattr(service, "thumbnail", fail)
    monkeypatch.setattr(service, "search", fail)
    for path, code in (("/v1/products/1/thumbnail", "internal"), ("/v1/search", "internal"), ("/readyz", "not_ready")):
        response = client.get(path)
        assert error_of(response)[0] == code and "INDEX" not in response.text
    faults = [line for line in log() if line["level"] == "error"]
    assert len(faults) == 3 and all("INDEX/versions/v1/thumbnails-00000.arrow: damaged" in f["event"] for f in faults)
    assert not [line for line in faults if "traceback" in line]


def test_metrics_count_requests_by_route_and_status(client):
    client.get("/v1/search?q=a&limit=0")
    client.get("/v1/search?limit=x")
    client.get("/v1/products/1")
    client.request("BREW", "/x" * 100)
    text = client.get("/metrics").text
    assert 'make_jax_http_requests_total{method="GET",route="/v1/search",status="200"} 1.0' in text
    assert 'make_jax_http_requests_total{method="GET",route="/v1/search",status="400"} 1.0' in text
    assert 'make_jax_http_requests_total{method="other",route="other",status="404"} 1.0' in text
    assert "make_jax_searches_without_hits_total 1.0" in text
    assert 'make_jax_http_request_seconds_count{route="/v1/products/{product_id:path}"} 1.0' in text
    assert 'make_jax_index_version{index="test",version="v1"} 1.0' in text
    assert 'make_jax_index_products{index="test"} 4.0' in text


def test_no_keys_and_a_wrong_environment(monkeypatch):
    monkeypatch.setitem(os.environ, VARIABLE, "nonsense")
    with pytest.raises(InputError, match=rf"{VARIABLE}, line 1: expected NAME sha256:HEX"):
        read_keys("")
    assert len(ApiKeys()) == 0
