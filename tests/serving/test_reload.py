"""A service follows its index: new versions, other models and updates take over without a failed request."""

import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.serving.index.model import open_index_model
from make_jax.serving.index.update import update_index
from make_jax.serving.index.versions import set_current
from make_jax.serving.index.writer import IndexSettings, build_index
from make_jax.serving.opened import OpenOptions
from make_jax.serving.requests import SearchRequest
from make_jax.serving.service import IndexService
from tests.serving.tiny_service import COLD
from tests.tiny_catalog import write_catalog

ENCODER = "from tests.retrieval.fake_encoder import FakeEncoder\nencoder = FakeEncoder()\n"
WIDER = """
import numpy as np
from make_jax.retrieval.vector_index import ProductEmbeddings
from tests.retrieval.fake_encoder import FakeEncoder

class Wider(FakeEncoder):
    digest = "wider"

    def encode_queries(self, texts):
        return np.pad(super().encode_queries(texts), [(0, 0), (0, 1)])

    def encode_products(self, titles, images):
        vectors, weights = (lambda made: (made.vectors, made.weights))(super().encode_products(titles, images))
        return ProductEmbeddings(np.pad(vectors, [(0, 0), (0, 1)]), weights)

encoder = Wider()
"""


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> list[Catalog]:
    folder = tmp_path_factory.mktemp("catalogs")
    return [Catalog.load(write_catalog(folder / f"tiny{n}", products=n, queries=4)) for n in (30, 40)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "encoder.py").write_text(ENCODER)
    return tmp_path / "encoder.py"


@pytest.fixture
def index(tmp_path: Path, model: Path, catalogs: list[Catalog]) -> Path:
    build_index(tmp_path / "index", open_index_model(model), catalogs[0])
    return tmp_path / "index"


@contextmanager
def searching(service: IndexService):
    """Searches from several threads while the block runs; yields the totals by version. No search may fail."""
    seen: set[tuple[str, int, int]] = set()
    errors: list[Exception] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            try:
                response = service.search(SearchRequest("red circle", limit=50, explain=True))
                seen.add((response.version, response.total, len(response.hits)))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert errors == []


def test_a_new_version_is_searched_after_reload_and_the_old_one_after_the_way_back(index, model, catalogs):
    with IndexService.open(index, COLD) as service, searching(service) as seen:
        assert not service.reload() and service.info.version == "v1"
        build_index(index, open_index_model(model), catalogs[1])
        assert service.info.version == "v1" and service.reload()
        assert (service.info.version, service.info.products) == ("v2", 40)
        assert service.search(SearchRequest()).total == 40 and service.product("p39") is not None
        set_current(index, "v1")
        assert service.reload() and service.search(SearchRequest()).total == 30 and service.product("p39") is None
    assert seen <= {("v1", 30, 30), ("v2", 40, 40)} and ("v1", 30, 30) in seen


def test_a_version_of_another_model_brings_its_encoder(index, tmp_path, catalogs):
    (tmp_path / "wider.py").write_text(WIDER)
    with IndexService.open(index, COLD) as service, searching(service):
        before = service.search(SearchRequest("red circle", retrieve_vectors=True))
        build_index(index, open_index_model(tmp_path / "wider.py"), catalogs[0])
        assert service.reload()
        after = service.search(SearchRequest("red circle", retrieve_vectors=True))
        assert (before.vector.shape, after.vector.shape) == ((8,), (9,))
        assert [hit.id for hit in before.hits] == [hit.id for hit in after.hits]


def test_a_version_that_cannot_be_opened_leaves_the_old_one_in_use(index, model, catalogs):
    with IndexService.open(index, COLD) as service, searching(service):
        build_index(index, open_index_model(model), catalogs[1], IndexSettings(switch=False))
        manifest = index / "versions" / "v2" / "index.json"
        content = manifest.read_bytes()
        set_current(index, "v2")
        manifest.write_bytes(content.replace(b"tiny40", b"tiny41"))
        with pytest.raises(InputError, match=r"index.json: damaged, its checksum differs"):
            service.reload()
        assert service.info.version == "v1" and service.search(SearchRequest()).total == 30
        manifest.write_bytes(content)
        assert service.reload() and service.info.version == "v2"


@pytest.mark.parametrize("engine", [None, "edge"])
def test_updates_are_searched_after_reload(index, model, tmp_path, engine):
    """By a new flat engine, and by an engine that is changed in place, which is opened later without being built."""
    more = Catalog.load(write_catalog(tmp_path / "more", products=35, queries=4))
    options = OpenOptions(engine, warm_up=False)
    with IndexService.open(index, options) as service, searching(service) as seen:
        first = service._opened.engine
        assert service.suggest("red", 1) == ["red"]
        suggestions = service._opened.suggestions
        update_index(index, lambda manifest: open_index_model(model), more)
        update_index(index, lambda manifest: open_index_model(model), None, ["p0", "p34"])
        assert service.reload() and not service.reload()
        assert (service._opened.engine is first) == (engine == "edge")
        assert service.info.products == 33 and service.search(SearchRequest()).total == 33
        assert service.product("p33") is not None and service.product("p0") is None
        listed = {hit.id for hit in service.search(SearchRequest("red circle", limit=50)).hits}
        assert listed == {f"p{i}" for i in range(1, 34)}
        assert service._opened.suggestions is not suggestions  # 7 of 35 products changed
        suggestions = service._opened.suggestions
        update_index(index, lambda manifest: open_index_model(model), None, ["p1"])
        assert service.reload() and service._opened.suggestions is suggestions  # 1 of 35
    assert seen <= {("v1", 30, 30), ("v1", 33, 33), ("v1", 32, 32)} and ("v1", 33, 33) in seen
    if engine == "edge":
        shard = index / "versions" / "v1" / "edge" / "shard"
        built = shard.stat().st_ino
        for total in (32, 31):  # without changes, and with those of an update while no server was running
            with IndexService.open(index, options) as service:
                assert service.search(SearchRequest()).total == total and shard.stat().st_ino == built
            update_index(index, lambda manifest: open_index_model(model), None, ["p33"])


@pytest.mark.parametrize("engine", [None, "edge"])
def test_an_index_that_was_deleted_and_built_again_is_searched_although_its_version_is_v1_again(
    index, model, catalogs, engine
):
    with IndexService.open(index, OpenOptions(engine, warm_up=False)) as service, searching(service) as seen:
        update_index(index, lambda manifest: open_index_model(model), None, ["p0"])
        assert service.reload() and service.suggest("red", 1) == ["red"]
        suggestions = service._opened.suggestions
        shutil.rmtree(index)
        with pytest.raises(InputError, match="not an index"):
            service.reload()
        assert service.search(SearchRequest("red circle")).total == 29
        build_index(index, open_index_model(model), catalogs[1])
        update_index(index, lambda manifest: open_index_model(model), None, ["p1"])
        assert service.reload() and not service.reload()
        assert service._opened.suggestions is not suggestions
        assert (service.info.version, service.search(SearchRequest("red circle")).total) == ("v1", 39)
        assert service.product("p0") is not None and service.product("p1") is None
        update_index(index, lambda manifest: open_index_model(model), None, ["p2"])
        assert service.reload() and service.search(SearchRequest("red circle")).total == 38
    assert seen <= {("v1", 30, 30), ("v1", 29, 29), ("v1", 39, 39), ("v1", 38, 38)}


def test_the_same_index_built_again_with_another_update_is_not_taken_for_the_old_one(index, model, catalogs):
    with IndexService.open(index, OpenOptions("edge", warm_up=False)) as service:
        update_index(index, lambda manifest: open_index_model(model), None, ["p0"])
        assert service.reload()
        shutil.rmtree(index)
        build_index(index, open_index_model(model), catalogs[0])
        update_index(index, lambda manifest: open_index_model(model), None, ["p1"])
        assert service.reload() and service.product("p0") is not None and service.product("p1") is None
        listed = {hit.id for hit in service.search(SearchRequest("red circle", limit=50)).hits}
        assert "p0" in listed and "p1" not in listed


def test_watch_reloads_logs_what_cannot_be_opened_once_and_ends_with_the_service(index, model, catalogs, caplog):
    lines: list[str] = []
    with IndexService.open(index, COLD, lines.append) as service:
        service.watch(0.02)
        pointer = (index / "current").read_bytes()
        (index / "current").write_bytes(b"{}")
        wait_until(lambda: caplog.records)
        time.sleep(0.1)
        assert len(caplog.records) == 1 and "the old state is used" in caplog.text
        (index / "current").write_bytes(pointer)
        build_index(index, open_index_model(model), catalogs[1])
        wait_until(lambda: service.info.version == "v2")
        wait_until(lambda: lines)
        assert lines == ["now searching version v2 with 0 updates"]
    assert not [thread for thread in threading.enumerate() if thread.name in ("index-watcher", "search")]


def wait_until(met) -> None:
    end = time.monotonic() + 30
    while not met():
        assert time.monotonic() < end, "not met within 30 s"
        time.sleep(0.01)
