"""Hostile requests over a socket; `benchmarks/robustness/http_fuzz.py` sends 10,000 to a server of a real index."""

import json
import logging

import pytest

from benchmarks.robustness.fuzz_clients import send
from benchmarks.robustness.fuzz_requests import MARKER, FuzzRequest, Target, make_all
from benchmarks.robustness.http_fuzz import problem
from make_jax.serving.http.app import create_app
from make_jax.serving.http.connections import LimitedProtocol
from make_jax.serving.http.settings import HttpSettings
from tests.serving.http.memory_service import PRODUCTS, MemoryService
from tests.serving.http.serving_thread import serving


@pytest.mark.filterwarnings(  # starlette leaves the file of a form that breaks off to the garbage collector
    "ignore:Exception ignored in. <function SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning"
)
def test_no_request_is_a_fault(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitedProtocol, "header_seconds", 0.5)
    app = create_app({"test": MemoryService()}, HttpSettings(receive_seconds=1.0))
    with caplog.at_level(logging.INFO), serving(app) as address:
        host = f"127.0.0.1:{address[1]}"
        target = Target(host, "", [product.id for product in PRODUCTS], ["brand", "price"])
        requests = make_all(0, 300, target, uploads=1)
        kinds = {request.kind for request in requests}
        assert {"filter", "100 MB upload", "malformed HTTP", "pipelined", "wrong key", "path traversal"} <= kinds
        usual = FuzzRequest("usual", f"GET /v1/search?q=shoes HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        before = send(address, usual, 10)
        for request in requests:
            assert not problem(request, send(address, request, 10)), request.data[:500]
        after = send(address, usual, 10)
    contents = [json.loads(outcome.body) | {"processingTimeMs": 0} for outcome in (before, after)]
    assert contents[0] == contents[1] and len(contents[0]["hits"]) == len(PRODUCTS)
    assert MARKER not in caplog.text
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
