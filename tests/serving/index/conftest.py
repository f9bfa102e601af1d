"""A tiny catalog and an index of it, which tests must not change."""

from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.serving.index.writer import build_index
from tests.serving.index.tiny_index import fake_model
from tests.tiny_catalog import write_catalog


@pytest.fixture(scope="package")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """60 products, 8 of 16 queries in val."""
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=60, queries=16))


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    """The index of `catalog`; copy it to change it."""
    out = tmp_path_factory.mktemp("index") / "index"
    assert build_index(out, fake_model(), catalog) == ("v1", True, [])
    return out
