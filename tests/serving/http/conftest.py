"""Applications over a service in memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from make_jax.serving.http.app import create_app
from make_jax.serving.http.settings import HttpSettings
from tests.serving.http.memory_service import MemoryService


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture
def client_of(service: MemoryService) -> Callable[..., TestClient]:
    """A function that returns a client of an application with these settings."""

    def client(**settings: Any) -> TestClient:
        app = create_app({"test": service}, dataclasses.replace(HttpSettings(), **settings))
        return TestClient(app, base_url="http://localhost")

    return client


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of()
