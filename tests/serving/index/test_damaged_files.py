"""A damaged, cut or missing file of an index is named by `check_index` and by whoever would read it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.serving.index.check import check_index
from make_jax.serving.index.reader import open_index
from make_jax.serving.index.update import update_index
from make_jax.serving.index.writer import IndexSettings, build_index
from tests.serving.index.tiny_index import fake_model
from tests.tiny_catalog import write_catalog

FILES = [
    "current",
    "versions/v1/index.json",
    "versions/v1/products-*.arrow",
    "versions/v1/thumbnails-*.arrow",
    "versions/v1/tuning.json",
    "versions/v1/vectors/*.parquet",
    "versions/v1/vectors/vectors.json",
    "versions/v1/updates/1/products-*.arrow",
    "versions/v1/updates/1/thumbnails-*.arrow",
    "versions/v1/updates/1/rows.npy",
    "versions/v1/updates/1/embedded.npy",
    "versions/v1/updates/1/deleted.npy",
    "versions/v1/updates/1/vectors/*.parquet",
    "versions/v1/updates/1/vectors/vectors.json",
]


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: list[Callable[[Path], None]] = [
    flip_a_bit,
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    lambda path: path.write_bytes(b""),
    Path.unlink,
]


@pytest.fixture(scope="module")
def updated(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index with an update that replaces, adds and deletes."""
    index = shutil.copytree(built, tmp_path_factory.mktemp("updated") / "index")
    path = write_catalog(tmp_path_factory.mktemp("more") / "more", products=62, queries=2)
    assert update_index(index, lambda _: fake_model(), Catalog.load(path)) is not None
    assert update_index(index, lambda _: fake_model(), None, ["p3"]) is not None
    return index


def read_all(index: Path) -> None:
    """Reads what searches, the page and updates read."""
    opened = open_index(index, read_vectors=True)
    for row in range(opened.rows):
        opened.thumbnail(row)


@pytest.mark.parametrize("pattern", FILES)
def test_every_kind_of_file(updated: Path, tmp_path: Path, pattern: str) -> None:
    for number, damage in enumerate(DAMAGES):
        index = shutil.copytree(updated, tmp_path / str(number))
        (path,) = index.glob(pattern)
        damage(path)
        where = str(index if path.name == "current" and not path.exists() else path)
        (problem,) = check_index(index).problems
        assert problem.startswith(f"{where}: "), problem
        with pytest.raises(InputError) as error:
            read_all(index)
        assert str(error.value).startswith(f"{where}: ") and "\n" not in str(error.value)


def test_no_kind_of_file_is_missing_above(updated: Path) -> None:
    found = {path for path in updated.rglob("*") if path.is_file() and path.name != "lock" and "/2/" not in str(path)}
    assert found == {path for pattern in FILES for path in updated.glob(pattern)}


def test_a_damaged_picture_is_named_when_it_is_read_and_other_files_of_pictures_are_not_affected(updated: Path) -> None:
    index = open_index(updated)
    (path,) = updated.glob(FILES[8])
    content = path.read_bytes()
    added = index.row("p61")
    assert added is not None
    try:
        flip_a_bit(path)
        opened = open_index(updated, read_vectors=True)
        assert opened.thumbnail(0) == index.thumbnail(0)
        with pytest.raises(InputError, match=f"{path}: damaged"):
            opened.thumbnail(added)
    finally:
        path.write_bytes(content)


def test_files_of_an_earlier_state_are_not_read_again(updated: Path, tmp_path: Path) -> None:
    index = shutil.copytree(updated, tmp_path / "index")
    opened = open_index(index)
    (index / "versions/v1/tuning.json").write_bytes(bytes((index / "versions/v1/tuning.json").stat().st_size))
    assert open_index(index, known=opened).rows == opened.rows
    with pytest.raises(InputError, match=r"tuning\.json: damaged"):
        open_index(index)


def test_index_builds_a_damaged_version_again_and_takes_no_file_of_it(tmp_path: Path, catalog: Catalog) -> None:
    index, lines = tmp_path / "index", list[str]()
    build_index(index, fake_model(), catalog)
    (products,) = index.glob("versions/v1/products-*.arrow")
    intact = products.read_bytes()
    flip_a_bit(products)
    assert build_index(index, fake_model(), catalog, log=lines.append) == ("v2", True, [])
    assert lines[0].startswith(f"warning: {products}: damaged") and lines[0].endswith("v1 is not used")
    other = IndexSettings(lexical_weight=0.3, switch=False)
    assert build_index(index, fake_model(), catalog, other) == ("v3", True, [])  # by links to v2
    assert (index / "versions/v3" / products.name).read_bytes() == intact
    assert [problem.split(":")[0] for problem in check_index(index).problems] == [str(products)]
