"""Imports of WebDataset shards, output of img2dataset and Hugging Face datasets."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import huggingface, webdataset
from make_jax.catalog.importers.img2dataset import Shard
from make_jax.errors import InputError
from tests.catalog.importers.imports import imported
from tests.catalog.importers.published import encoded_image
from tests.catalog.importers.samples import (
    img2dataset_folder,
    records,
    saved_dataset,
    webdataset_shards,
    write_tar,
)


def products(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "products.jsonl").read_text(encoding="utf-8").splitlines()]


def test_webdataset_samples_are_products(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = imported(tmp_path / "out", "webdataset", webdataset_shards(tmp_path / "shards"))
    found = products(tmp_path / "out")
    assert [product["id"] for product in found] == [f"part{s}/{n:04d}" for s in range(2) for n in range(4)]
    assert found[1] == {
        "id": "part0/0001",
        "title": "Red boots 1",
        "image": found[1]["image"],
        "split": found[1]["split"],
        "category": ["boots"],
        "colour": "blue",
        "price": 1.5,
    }
    assert catalog.image_bytes(catalog.products[1]) == encoded_image(1)
    assert "pyd" not in capsys.readouterr().out and not catalog.clicks and not catalog.queries


def test_numbers_as_classes_are_no_categories_and_columns_can_be_chosen(tmp_path: Path) -> None:
    files = [(f"{n}.{name}", data) for n in range(3) for name, data in (("png", encoded_image(n)), ("cls", b"7"))]
    files += [(f"{n}.json", json.dumps({"label": f"Hat {n}"}).encode()) for n in range(3)]
    shard = write_tar(tmp_path / "hats.tar", sorted(files))
    imported(tmp_path / "out", "webdataset", shard, "--columns", "title=label")
    first = products(tmp_path / "out")[0]
    assert (first["title"], first.get("category"), first["cls"]) == ("Hat 0", None, 7)


@pytest.mark.parametrize("layout", ["files", "webdataset", "parquet"])
def test_img2dataset_formats_give_the_same_catalog(tmp_path: Path, layout: str) -> None:
    imported(tmp_path / "out", "img2dataset", img2dataset_folder(tmp_path / "pairs", layout))
    found = products(tmp_path / "out")
    assert [(p["id"], p["title"], p["image"] is None, p["brand"]) for p in found] == [
        (f"{n // 3:05d}{n:04d}", f"Red boots {n}", n == 1, "Acme") for n in range(5)
    ]
    assert not {"width", "url", "status"} & {*found[0]}


def test_huggingface_layouts_give_the_same_catalog(tmp_path: Path) -> None:
    saved = saved_dataset(tmp_path / "saved", ("train", "test"))
    hub = tmp_path / "hub"
    for name in ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"):
        (hub / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(records("train" if "train" in name else "test", 4), hub / name)
    for name, source in (("a", saved), ("b", hub)):
        imported(tmp_path / name, "huggingface", source)
    key = lambda product: product["title"]  # noqa: E731
    first, second = (sorted(products(tmp_path / name), key=key) for name in ("a", "b"))
    assert [{**p, "id": "", "image": ""} for p in first] == [{**p, "id": "", "image": ""} for p in second]
    assert [(p["title"], p["split"], p["kind"]) for p in first[3:5]] == [
        ("Red test boots 3", "test", "hats"),
        ("Red train boots 0", "train", "boots"),
    ]


def test_a_single_split_is_split_by_hash(tmp_path: Path) -> None:
    imported(tmp_path / "out", "huggingface", saved_dataset(tmp_path / "saved", ("train",), count=40))
    assert {product["split"] for product in products(tmp_path / "out")} == {"train", "val", "test"}


def test_what_the_libraries_write_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets (95 MB with pandas): pip install datasets")
    images = [encoded_image(number) for number in range(6)]
    data = datasets.Dataset.from_dict({"image": images, "name": [f"Boots {number}" for number in range(6)]})
    data = data.cast_column("image", datasets.Image()).filter(lambda row: row["name"] != "Boots 2")
    data.save_to_disk(str(tmp_path / "saved"))
    catalog = imported(tmp_path / "out", "huggingface", tmp_path / "saved")
    assert [product.title for product in catalog.products] == ["Boots 0", "Boots 1", "Boots 3", "Boots 4", "Boots 5"]
    assert catalog.image_bytes(catalog.products[2]) == images[3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset closes no file
def test_samples_are_those_of_the_webdataset_library(tmp_path: Path) -> None:
    library = pytest.importorskip("webdataset", reason="needs webdataset: pip install webdataset")
    path = tmp_path / "a.tar"
    with library.TarWriter(str(path)) as writer:
        for number in range(5):
            writer.write({"__key__": f"x/{number}.5", "jpg": encoded_image(number), "txt": f"Boots {number}"})
    theirs = [
        (sample["__key__"], sample["5.jpg"], sample["5.txt"])
        for sample in library.WebDataset(str(path), shardshuffle=False, empty_check=False)
    ]
    assert len(theirs) == 5
    assert [key for key, _, _ in theirs] == [row.values["key"] for row in webdataset.TarShard(path).rows(0)]


@pytest.mark.parametrize(
    "table",
    [
        lambda folder: webdataset.TarShard(webdataset_shards(folder) / "00000.tar"),
        lambda folder: Shard(img2dataset_folder(folder, "webdataset") / "00000.parquet", ("caption",)),
        lambda folder: huggingface._parts(saved_dataset(folder, ("train", "test"), count=200))[0],
    ],
)
def test_rows_start_anywhere(tmp_path: Path, table: Callable[[Path], Any]) -> None:
    opened = table(tmp_path / "data")
    complete = [(row.place, row.values) for row in opened.rows(0)]
    for start in (1, 2, len(complete) // 2, len(complete) - 1, len(complete)):
        assert [(row.place, row.values) for row in opened.rows(start)] == complete[start:]


# --- bad input ---


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def tar_cut_in_a_member(folder: Path) -> tuple[str, Path]:
    source = webdataset_shards(folder / "shards")
    cut(source / "00001.tar", 5000)
    return "webdataset", source


def tar_cut_between_members(folder: Path) -> tuple[str, Path]:
    path = write_tar(folder / "a.tar", [("1.jpg", encoded_image(1)), ("1.txt", b"Boots")])
    with tarfile.open(path) as tar:
        end = [member.offset_data for member in tar][-1] + 512
    cut(path, end)
    return "webdataset", path


def compressed_tar(folder: Path) -> tuple[str, Path]:
    folder.mkdir(exist_ok=True)
    (folder / "a.tar.gz").write_bytes(b"\x1f\x8b")
    return "webdataset", folder


def gzip_named_tar(folder: Path) -> tuple[str, Path]:
    (folder / "a.tar").write_bytes(b"\x1f\x8b" + b"\0" * 600)
    return "webdataset", folder / "a.tar"


def wrong_encoding(folder: Path) -> tuple[str, Path]:
    return "webdataset", write_tar(folder / "a.tar", [("1.txt", "靴子".encode("gb18030")), ("1.jpg", encoded_image(0))])


def huge_text(folder: Path) -> tuple[str, Path]:
    return "webdataset", write_tar(folder / "a.tar", [("1.txt", b"x" * (webdataset.MAX_TEXT + 1))])


def sparse_bomb(folder: Path) -> tuple[str, Path]:
    """A member whose header promises 1 TB."""
    entry = tarfile.TarInfo("1.jpg")
    entry.size = 1 << 40
    (folder / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    return "webdataset", folder / "a.tar"


def broken_json(folder: Path) -> tuple[str, Path]:
    return "webdataset", write_tar(folder / "a.tar", [("1.json", b'{"a": 1'), ("1.jpg", encoded_image(0))])


def no_picture_and_no_text(folder: Path) -> tuple[str, Path]:
    return "webdataset", write_tar(folder / "a.tar", [("1.json", b'{"price": 1}')])


def no_caption(folder: Path) -> tuple[str, Path]:
    source = img2dataset_folder(folder / "pairs", "parquet")
    for path in source.glob("*.parquet"):
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns("caption"), path)
    return "img2dataset", source


def no_shards(folder: Path) -> tuple[str, Path]:
    return "img2dataset", folder


def cut_parquet(folder: Path) -> tuple[str, Path]:
    source = img2dataset_folder(folder / "pairs", "parquet")
    cut(source / "00001.parquet", 300)
    return "img2dataset", source


def cut_arrow(folder: Path) -> tuple[str, Path]:
    source = saved_dataset(folder / "saved")
    cut(source / "data-00001-of-00002.arrow", 900)
    return "huggingface", source


def arrow_outside(folder: Path) -> tuple[str, Path]:
    source = saved_dataset(folder / "saved")
    (source / "data-00000-of-00002.arrow").rename(folder / "secret.arrow")
    (source / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    return "huggingface", source


def missing_arrow(folder: Path) -> tuple[str, Path]:
    source = saved_dataset(folder / "saved")
    (source / "data-00001-of-00002.arrow").unlink()
    return "huggingface", source


def no_dataset(folder: Path) -> tuple[str, Path]:
    (folder / "script.py").write_text("raise SystemExit('executed')")
    return "huggingface", folder


def no_titles(folder: Path) -> tuple[str, Path]:
    (folder / "hub").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"price": [1, 2]}), folder / "hub/train.parquet")
    return "huggingface", folder / "hub"


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (tar_cut_in_a_member, r"00001\.tar: cannot be read \(.*\), expected a complete, uncompressed \.tar"),
        (tar_cut_between_members, r"a\.tar: cannot be read \(it is cut off or damaged after its last readable file\)"),
        (compressed_tar, r"no \.tar, expected one or a folder of them; decompress the shards first"),
        (gzip_named_tar, r"a\.tar: cannot be read \(.*\), expected a complete, uncompressed \.tar"),
        (wrong_encoding, r"a\.tar: 1: 1\.txt: not UTF-8 at byte 3, expected UTF-8"),
        (huge_text, r"1\.txt: 4,194,305 bytes, expected at most 4,194,304"),
        (sparse_bomb, r"a\.tar: cannot be read \(unexpected end of data\)|1\.jpg: 1,099,511,627,776 bytes, expected"),
        (broken_json, r"a\.tar: 1: 1\.json: not JSON \(.*\), expected one object"),
        (no_picture_and_no_text, r"no column for title or image among price, key"),
        (no_caption, r"00000\.parquet: no column 'caption' among .*--columns title=COLUMN"),
        (no_shards, r"no shard like 00000\.parquet, expected the output folder of img2dataset"),
        (cut_parquet, r"00001\.parquet: cannot be read \(.*\), expected a complete Parquet file"),
        (cut_arrow, r"data-00001-of-00002\.arrow: cannot be read \(.*\), expected a complete Arrow file"),
        (arrow_outside, r"state\.json: '\.\./secret\.arrow' is no name of a file in this folder"),
        (missing_arrow, r"data-00001-of-00002\.arrow: not found, expected it because state\.json names it"),
        (no_dataset, r"no Hugging Face dataset, expected a folder written by save_to_disk"),
        (no_titles, r"no column for title or image among price"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, corrupt: Callable[[Path], tuple[str, Path]], expected: str
) -> None:
    (tmp_path / "source").mkdir()
    format, source = corrupt(tmp_path / "source")
    with pytest.raises(InputError, match=expected) as caught:
        main(["import", format, str(source), str(tmp_path / "out")])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["webdataset", "img2dataset", "huggingface", "pictures"])
def test_a_url_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(InputError, match="is a URL, expected a path"):
        main(["import", format, "https://example.com/a.tar", str(tmp_path / "out")])


def test_names_of_members_are_ids_and_never_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../../evil.jpg", "/etc/evil.jpg"):
            entry = tarfile.TarInfo(name)
            entry.size = len(encoded_image(0))
            tar.addfile(entry, io.BytesIO(encoded_image(0)))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (tmp_path / "inside").mkdir()
    imported(tmp_path / "inside/out", "webdataset", path)
    found = products(tmp_path / "inside/out")
    assert [product["id"] for product in found] == ["../../evil", "/etc/evil"]
    assert all(product["image"].startswith("images/") and ".." not in product["image"] for product in found)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tar", "inside"]
