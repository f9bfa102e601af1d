"""Two services side by side: another index, or another version of the same one."""

from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.serving.compare import open_services
from make_jax.serving.index.model import open_index_model
from make_jax.serving.index.update import update_index
from make_jax.serving.index.versions import set_current
from make_jax.serving.index.writer import IndexSettings, build_index
from make_jax.serving.opened import OpenOptions
from make_jax.serving.requests import SearchRequest
from tests.cli.test_search_index import MODEL
from tests.serving.tiny_service import COLD
from tests.tiny_catalog import write_catalog

RED = SearchRequest("red circle", limit=3, explain=True)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return Catalog.load(write_catalog(tmp_path_factory.mktemp("catalog") / "tiny", products=20, queries=4))


@pytest.fixture
def index(tmp_path: Path, catalog: Catalog) -> str:
    """An index with version v1 of the cosine alone, and v2 with BM25, which is not the current one."""
    for weight in (0.0, 1.0):
        settings = IndexSettings(lexical_weight=weight, switch=weight == 0)
        build_index(tmp_path / "shop", open_index_model(MODEL), catalog, settings)
    return str(tmp_path / "shop")


def opened(index: str, other: str, log=lambda line: None, options: OpenOptions = COLD):
    return open_services(index, other, options, "", log)


def test_without_another_index_there_is_one_service(index):
    services = opened(index, "")
    assert [(name, service.info.version) for name, service in services.items()] == [("shop", "v1")]
    services["shop"].close()


def test_a_version_is_searched_with_its_settings_by_the_same_model(index):
    lines: list[str] = []
    services = opened(index, "v2", lines.append)
    assert lines[-1] == "comparing shop (encoder_file, v1) with shop-v2 (encoder_file, v2)"
    first, second = services["shop"], services["shop-v2"]
    assert (first.info.version, second.info.version) == ("v1", "v2")
    assert second._opened.parts is first._opened.parts  # loaded and compiled once
    one, two = (service.search(RED).hits[0] for service in services.values())
    assert one.score == one.scores.dense and two.score == pytest.approx(two.scores.dense + two.scores.lexical)
    for service in services.values():
        service.close()


def test_the_compared_version_stays_when_the_index_switches_and_takes_its_updates(index, catalog):
    services = opened(index, "v2")
    set_current(Path(index), "v2")
    assert services["shop"].reload() and not services["shop-v2"].reload()
    set_current(Path(index), "v1")
    assert services["shop"].reload() and not services["shop-v2"].reload()
    assert [service.info.version for service in services.values()] == ["v1", "v2"]
    removed = catalog.products[0].id
    update_index(Path(index), lambda _: open_index_model(MODEL), None, [removed])
    assert services["shop"].reload() and not services["shop-v2"].reload()
    assert services["shop"].product(removed) is None and services["shop-v2"].product(removed) is not None
    for service in services.values():
        service.close()


def test_another_index_has_the_name_of_its_folder(index, tmp_path, catalog):
    for folder, name in (("other", "other"), ("beside/shop", "shop-2")):
        build_index(tmp_path / folder, open_index_model(MODEL), catalog, IndexSettings(lexical_weight=0.5))
        services = opened(index, str(tmp_path / folder))
        assert list(services) == ["shop", name]
        assert services[name].search(RED).version == "v1"
        for service in services.values():
            service.close()


def test_what_cannot_be_compared_is_an_error(index, tmp_path, catalog):
    for other, message in (
        ("v1", f"--compare v1: the current version of {index}, expected another one"),
        ("v7", f"{index}: no version 'v7', expected one of v1, v2"),
        (
            f"{index}/../shop",
            f"--compare {index}/../shop: the same index, expected another one, or a version such as v2",
        ),
        ("none", "none: not an index, expected a folder that `search.py index` wrote"),
    ):
        with pytest.raises(InputError) as error:
            opened(index, other)
        assert str(error.value) == message
    build_index(tmp_path / "beside" / "shop", open_index_model(MODEL), catalog, IndexSettings(engine="cluster"))
    with pytest.raises(InputError, match=r"beside/shop: engine cluster needs another folder name than .*; rename one"):
        opened(index, str(tmp_path / "beside" / "shop"))
