"""`build`: atomic, keyed by content, reused, and read back unchanged."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from make_jax.catalog import build as build_module
from make_jax.catalog import cache as cache_module
from make_jax.catalog import line_chunks, shards
from make_jax.catalog.build import MANIFEST, BuiltCatalog, build
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.files import folder_digest
from tests.tiny_catalog import write_catalog, write_lines


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entries(cache: Path) -> list[str]:
    """The names in the cache except lock files."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def child(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("zipped", [False, True])
def test_products_are_read_back_unchanged(tmp_path: Path, cache: Path, zipped: bool) -> None:
    path = write_catalog(tmp_path / "tiny", products=60, zipped=zipped)
    catalog = Catalog.load(path)
    built = build(str(path), str(cache))
    for split in ("train", "val", "test"):
        source = built.products(split)
        expected = catalog.split_products(split)
        assert len(source) == len(expected)
        for record, product in zip(source, expected, strict=True):  # in catalog order
            assert record == {
                "id": product.id,
                "title": product.title,
                "image": catalog.image_bytes(product) or b"",
            }
        assert source.__getitems__([3, 0]) == [source[3], source[0]]
        assert built.split_products(split) == list(expected)


def test_products_are_a_tfds_dataset(tmp_path: Path, cache: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    catalog = Catalog.load(path)
    builder = tfds.builder_from_directory(build(str(path), str(cache)).folder / "products")
    for split in ("train", "val", "test"):
        expected = [(product.id.encode(), product.title.encode()) for product in catalog.split_products(split)]
        records = builder.as_data_source(split=split)
        assert [(record["id"], record["title"]) for record in records] == expected
        images = [catalog.image_bytes(product) or b"" for product in catalog.split_products(split)]
        assert [record["image"] for record in records] == images and any(images)


def test_attributes_are_read_back_as_what_they_are(tmp_path: Path, cache: Path) -> None:
    rows = [
        {"id": split, "title": "x", "split": split, "price": 20.0, "stock": 3, "new": True, "sizes": ["S", 44, 44.5]}
        for split in ("train", "val", "test")
    ]
    write_lines(tmp_path / "products.jsonl", rows)
    (tmp_path / "catalog.json").write_text('{"attributes": ["price", "stock", "new", "sizes"]}')
    built = build(tmp_path, str(cache))
    for split in ("train", "val", "test"):
        values = built.split_products(split)[0].attributes
        assert values == {"price": 20.0, "stock": 3, "new": True, "sizes": ("S", 44, 44.5)}
        assert [type(value) for value in values.values()] == [float, int, bool, tuple]


def test_clicks_contain_positions_in_the_training_split(tmp_path: Path, cache: Path) -> None:
    path = write_catalog(tmp_path / "tiny", products=60)
    catalog, built = Catalog.load(path), build(path, str(cache))
    clicked, source = built.clicked(), built.products("train")
    assert clicked.dtype == np.int32
    assert built.clicks == list(catalog.clicks)
    assert [source[int(i)]["id"] for i in clicked] == [click.product for click in catalog.clicks]


def test_ignored_clicks_are_not_built_and_the_others_keep_their_products(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_chunks, "CHUNK_BYTES", 100)  # several chunks, of which one is all ignored
    path = write_catalog(tmp_path / "tiny", products=20)
    pairs = [(f"query {i}", f"p{i if i < 8 else 3 if i < 16 else i - 16}") for i in range(32)]
    write_lines(path / "clicks.jsonl", [{"query": query, "product": id} for query, id in pairs])
    loaded, built = Catalog.load(path), build(path, str(cache))
    stored = Catalog.load(path, str(cache))
    assert stored.columns is not None and len(list(stored.columns.glob("clicks-*.arrow"))) > 3
    train = [product.id for product in built.split_products("train")]
    expected = [pair for pair in pairs if pair[1] in train]
    assert 0 < len(expected) < len(pairs) - 8
    for catalog in (loaded, stored):
        assert [(click.query, click.product) for click in catalog.clicks] == expected
        assert [catalog.products[at].id for at in catalog.clicked.tolist()] == [id for _, id in expected]
        assert [text for texts in catalog.clicks.distinct("query") for text in texts] == [text for text, _ in expected]
    assert [train[at] for at in built.clicked().tolist()] == [id for _, id in expected]
    assert built.manifest["clicks"] == len(built.clicks) == len(expected)


@pytest.mark.parametrize(("limit", "value"), [("SHARD_BYTES", 3000), ("SHARD_PRODUCTS", 15)])
def test_a_large_catalog_has_several_shards(
    limit: str, value: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, limit, value)
    path = write_catalog(tmp_path / "tiny", products=60)
    built = build(path, str(cache))
    assert len(list((built.folder / "products").glob("*train*array_record*"))) > 2
    source = built.products("train")
    train = Catalog.load(path).split_products("train")
    assert [source[i]["id"] for i in range(len(source))] == [product.id for product in train]


def test_a_catalog_without_clicks_or_of_one_split_is_built(tmp_path: Path, cache: Path) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "鞋", "split": "test"}])
    built = build(tmp_path, str(cache))
    assert built.products("test")[0] == {"id": "a", "title": "鞋", "image": b""}
    assert len(built.clicks) == 0 and built.clicked().shape == (0,)
    with pytest.raises(InputError, match='the split "train" is empty, expected products with "split": "train"'):
        built.products("train")


def test_a_catalog_without_splits_is_not_built(tmp_path: Path, cache: Path) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "鞋"}])
    with pytest.raises(InputError, match='no product has a split, expected "split": "train", "val" or "test"'):
        build(tmp_path, str(cache))
    assert entries(cache) == []


def test_unchanged_content_is_reused_and_changed_content_rebuilt(tmp_path: Path, cache: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    first = build(folder, str(cache)).folder
    stamp = (first / MANIFEST).stat().st_mtime_ns
    os.utime(folder / "products.jsonl")  # touched, not changed
    assert build(folder, str(cache)).folder == first and (first / MANIFEST).stat().st_mtime_ns == stamp
    text = (folder / "products.jsonl").read_text()
    (folder / "products.jsonl").write_text(text.replace("number 0", "number zero"))
    second = build(folder, str(cache))
    assert second.products("train")[0]["title"] == "red circle number zero"
    assert entries(cache) == [second.folder.name]  # the stale build is gone


def test_stale_builds_in_use_and_builds_of_other_catalogs_are_kept(tmp_path: Path, cache: Path) -> None:
    folder, other = write_catalog(tmp_path / "a" / "tiny"), write_catalog(tmp_path / "b" / "tiny", products=30)
    in_use, elsewhere = build(folder, str(cache)), build(other, str(cache))
    (folder / "clicks.jsonl").write_text("")
    newest = build(folder, str(cache))
    assert in_use.products("train")[0]["id"] == "p0"
    assert entries(cache) == sorted(built.folder.name for built in (in_use, elsewhere, newest))
    name = in_use.folder.name
    del in_use
    build(folder, str(cache))
    assert name not in entries(cache)


def test_an_unreadable_image_stops_the_build(tmp_path: Path, cache: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    (folder / "images/p1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"product 'p1': image: images/p1.png: damaged image"):
        build(folder, str(cache))
    assert entries(cache) == []


KILLED = """
import os, signal, sys
from make_jax.catalog import build, shards
shards.write_info = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after the shards
build.build(sys.argv[1], sys.argv[2])
"""


def test_a_killed_build_is_never_read_and_the_next_one_goes_on_to_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    assert child(KILLED, folder, cache).returncode == -signal.SIGKILL
    (partial,) = entries(cache)
    assert partial.startswith(".partial-tiny-")
    written = {path.name: path.stat().st_mtime_ns for path in (cache / partial).rglob("*.a*") if path.is_file()}
    assert {name.split("-")[0] for name in written} == {"products", "queries", "clicks"}
    other = cache / f".partial-tiny-2-{'0' * 16}"  # of another catalog, perhaps in progress
    other.mkdir()
    built = build(folder, str(cache))
    assert len(built.products("train")) == 15
    assert entries(cache) == [other.name, built.folder.name]
    assert written.items() <= {path.name: path.stat().st_mtime_ns for path in built.folder.rglob("*")}.items()
    undisturbed = build(folder, str(tmp_path / "undisturbed"))
    assert folder_digest(undisturbed.folder) == folder_digest(built.folder)


def test_a_killed_build_of_other_files_is_not_continued(tmp_path: Path, cache: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    assert child(KILLED, folder, cache).returncode == -signal.SIGKILL
    text = (folder / "products.jsonl").read_text()
    (folder / "products.jsonl").write_text(text.replace("red circle", "red square"))
    built = build(folder, str(cache))
    assert built.products("train")[0]["title"] == "red square number 0"
    assert entries(cache) == [built.folder.name]


FULL = """
import resource, sys
from make_jax.catalog.__main__ import main
from make_jax.errors import exit_cleanly
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
exit_cleanly(lambda: main(["build", sys.argv[1], "--cache", sys.argv[2]]))
"""


@pytest.mark.parametrize("room", [100, 50_000])  # neither TFDS info nor shards fit; no shard fits
def test_a_full_disk_is_one_error_line_and_leaves_nothing(tmp_path: Path, cache: Path, room: int) -> None:
    folder = write_catalog(tmp_path / "tiny")
    ended = child(FULL, folder, cache, room)
    errors = [line for line in ended.stderr.splitlines() if "━" not in line and not line.startswith("products  ")]
    assert ended.returncode == 2
    assert errors == [
        f"error: {cache}: cannot write the built catalog (File too large); free some space or set data.cache elsewhere"
    ]
    assert entries(cache) == []


@pytest.mark.parametrize("damage", ["shorter shard", "missing file", "no manifest", "earlier format"])
def test_a_damaged_build_is_never_read_and_is_rebuilt(tmp_path: Path, cache: Path, damage: str) -> None:
    folder = write_catalog(tmp_path / "tiny")
    place = build(folder, str(cache)).folder
    shard = next((place / "products").glob("*train*array_record*"))
    if damage == "shorter shard":
        os.truncate(shard, shard.stat().st_size - 1)
    elif damage == "missing file":
        (place / "columns/clicks-00000.arrow").unlink()
    elif damage == "no manifest":
        (place / MANIFEST).unlink()
    else:
        manifest = json.loads((place / MANIFEST).read_text())
        (place / MANIFEST).write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(InputError):
        BuiltCatalog(place)
    built = build(folder, str(cache))
    assert len(built.products("train")) == 15 and entries(cache) == [built.folder.name]


def test_concurrent_builders_build_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_catalog(tmp_path / "tiny")
    builds, built = [], []
    write = build_module._build_in

    def counted(*arguments: object) -> BuiltCatalog:
        builds.append(1)
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(build_module, "_build_in", counted)
    threads = [threading.Thread(target=lambda: built.append(build(folder, str(cache)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len({one.folder for one in built}) == 1 and len(built) == 3


def test_a_process_reports_that_it_waits_for_a_build_only_after_some_time(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def acquire() -> None:
        with cache_module.build_lock(cache, "tiny"):
            pass

    def waited(seconds_held: float) -> str:
        with cache_module.build_lock(cache, "tiny"):
            waiting = threading.Thread(target=acquire)
            waiting.start()
            waiting.join(seconds_held)
            assert waiting.is_alive()
        waiting.join()
        return capsys.readouterr().err

    monkeypatch.setattr(cache_module, "_SECONDS_TO_OPEN", 30.0)
    assert waited(0.2) == ""  # another process has opened its build meanwhile
    monkeypatch.setattr(cache_module, "_SECONDS_TO_OPEN", 0.1)
    assert waited(0.5) == f"waiting for another process that is building tiny in {cache}\n"


INTERRUPTED = """
import sys
from make_jax.catalog import build, shards
def interrupt(*_):
    raise KeyboardInterrupt
shards.write_info = interrupt
build.build(sys.argv[1], sys.argv[2])
"""


def test_an_interrupted_build_in_a_library_call_goes_on_too(tmp_path: Path, cache: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    assert child(INTERRUPTED, folder, cache).returncode == -signal.SIGINT
    (partial,) = entries(cache)
    written = {path.name: path.stat().st_mtime_ns for path in (cache / partial).rglob("*.a*") if path.is_file()}
    built = build(folder, str(cache))
    assert written.items() <= {path.name: path.stat().st_mtime_ns for path in built.folder.rglob("*")}.items()
    assert entries(cache) == [built.folder.name]


def test_pickled_sources_are_small_and_open_in_another_process(tmp_path: Path, cache: Path) -> None:
    built = build(write_catalog(tmp_path / "tiny"), str(cache))
    (tmp_path / "pickled").write_bytes(pickle.dumps((built, built.products("train"))))
    assert (tmp_path / "pickled").stat().st_size < 1000
    code = (
        "import pathlib, pickle, sys\n"
        "built, source = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "assert not {'jax', 'tensorflow'} & set(sys.modules), 'heavy imports'\n"
        "print(source[0]['title'], len(built.clicks))"
    )
    ended = child(code, tmp_path / "pickled")
    assert ended.stdout == "red circle number 0 30\n", ended.stderr


def test_importing_the_catalog_is_light() -> None:
    modules = "reader, build, check, describe, __main__"
    code = f"import sys; from make_jax.catalog import {modules}\n"
    code += "print({'jax', 'tensorflow', 'tensorflow_datasets', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    ended = child(code)
    assert ended.stdout == "set()\n", ended.stderr


def test_the_default_cache_is_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_module.cache_root("") == tmp_path / "make_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_module.cache_root("") == tmp_path / "home" / ".cache" / "make_jax"
    assert cache_module.cache_root("here") == Path("here")


@pytest.mark.parametrize("name", ["../../up", "a/b", "", "中文", "x" * 500])
def test_a_catalog_name_cannot_escape_the_cache(name: str) -> None:
    folder = cache_module.folder_name(name, "0" * 64)
    assert "/" not in folder and not folder.startswith(".") and len(folder) < 100
