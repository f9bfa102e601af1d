"""Imports of prepared TFDS data sets, without TensorFlow and without any code of a data set."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import import_state, tfds_dataset
from make_jax.errors import InputError
from tests.catalog.importers.contents import contents
from tests.catalog.importers.imports import imported
from tests.catalog.importers.published import encoded_image
from tests.catalog.importers.tfds_samples import NAME, tfds_folder

COLUMNS = ("--columns", "query=search", "title=caption", "image=photo")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_tfrecord(folder: Path) -> Path:
    """The same data set in TFRecord, with checksums of zero, which the reader ignores."""
    for path in sorted(folder.glob("*.array_record-*")):
        records = [bytes(record) for record in tfds_dataset._array_records(path, 0)]
        framed = b"".join(struct.pack("<QI", len(each), 0) + each + bytes(4) for each in records)
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(framed)
        path.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    return folder


def test_features_become_columns_and_images_keep_their_bytes(tmp_path: Path) -> None:
    tfds_folder(tmp_path / "clicked/1.0.0")
    catalog = imported(tmp_path / "out", "tfds", tmp_path / "clicked", *COLUMNS)
    assert [(product.title, product.split) for product in catalog.products] == [
        (f"Red {split} boots {number}", split) for split in ("train", "test") for number in range(3)
    ]
    assert [catalog.image_bytes(product) for product in catalog.products[:3]] == [encoded_image(n) for n in range(3)]
    second = lines(tmp_path / "out/products.jsonl")[1]
    assert (second["kind"], second["price"], second["tags"]) == ("hats", 1.5, ["new"])
    assert "box" not in second
    ids = [product.id for product in catalog.products]
    assert [(click["query"], click["product"]) for click in lines(tmp_path / "out/clicks.jsonl")] == [
        (f"query train {number}", ids[number // 2]) for number in range(6)
    ]
    assert "code_of_the_data_set" not in sys.modules and "tensorflow" not in sys.modules


def test_all_file_formats_give_the_same_products(tmp_path: Path) -> None:
    folders = [tfds_folder(tmp_path / name, count=4, file_format=name) for name in ("array_record", "parquet")]
    folders.append(as_tfrecord(tfds_folder(tmp_path / "tfrecord", count=4)))
    found = []
    for folder in folders:
        imported(tmp_path / f"out-{folder.name}", "tfds", folder, *COLUMNS)
        found.append([lines(tmp_path / f"out-{folder.name}" / name) for name in ("products.jsonl", "clicks.jsonl")])
    assert found[0] == found[1] == found[2]


def test_rows_start_anywhere(tmp_path: Path) -> None:
    for file_format in ("array_record", "parquet", "tfrecord"):
        folder = tmp_path / file_format
        tfds_folder(folder, ("train",), 8, "parquet" if file_format == "parquet" else "array_record")
        folder = as_tfrecord(folder) if file_format == "tfrecord" else folder
        info = tfds_dataset._open(folder)
        table = tfds_dataset._tables(folder, info, lambda record: {"record": bytes(record)})[0]
        complete = [(row.place, row.values) for row in table.rows(0)]
        assert len({values["record"] for _, values in complete}) == 8
        for start in (1, 3, 4, 5, 8):
            assert [(row.place, row.values) for row in table.rows(start)] == complete[start:]


def test_an_interrupted_import_resumes_byte_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_state, "BATCH", 2)
    source = tfds_folder(tmp_path / "clicked")
    imported(tmp_path / "complete/out", "tfds", source, *COLUMNS)
    handle = import_state.ImportState._handle
    for record in ("train.array_record-00001-of-00002 record 1", "test.array_record-00001-of-00002 record 2"):

        def stop(state: Any, row: Any, action: Any, record: str = record) -> None:
            if row.place.endswith(record):
                raise KeyboardInterrupt
            handle(state, row, action)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(import_state.ImportState, "_handle", stop)
            imported(tmp_path / "out", "tfds", source, *COLUMNS)
    imported(tmp_path / "out", "tfds", source, *COLUMNS)
    assert contents(tmp_path / "out") == contents(tmp_path / "complete/out")


# --- bad input ---


def cut_shard(folder: Path) -> None:
    path = folder / f"{NAME}-test.array_record-00001-of-00002"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_parquet(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    tfds_folder(folder, file_format="parquet")
    path = folder / f"{NAME}-train.parquet-00001-of-00002"
    path.write_bytes(path.read_bytes()[:200])


def cut_tfrecord(folder: Path) -> None:
    path = as_tfrecord(folder) / f"{NAME}-train.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-9])


def short_tfrecord(folder: Path) -> None:
    """Cut between two records."""
    path = as_tfrecord(folder) / f"{NAME}-train.tfrecord-00001-of-00002"
    data = path.read_bytes()
    path.write_bytes(data[: 16 + struct.unpack("<Q", data[:8])[0]])


def huge_tfrecord(folder: Path) -> None:
    """A second record of 1.9 GB, most of which is a hole in the file."""
    path = as_tfrecord(folder) / f"{NAME}-train.tfrecord-00001-of-00002"
    data = path.read_bytes()
    first = 16 + struct.unpack("<Q", data[:8])[0]
    with path.open("wb") as file:
        file.write(data[:first] + struct.pack("<Q", 1_900_000_000))
        file.truncate(first + 16 + 1_900_000_000)


def removed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def changed(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


IMAGE = '"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"'
CODE = '"pythonClassName": "evil_features.Photo"'
OLD_FORM = {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
OLD_FORM["content"] = json.dumps({"features": {"photo": json.loads("{" + CODE + "}")}})
CASES: list[tuple[Callable[[Path], object], str]] = [
    (cut_shard, r"test\.array_record-00001-of-00002: cannot be read \(.*\), expected a complete array_record file"),
    (cut_parquet, r"train\.parquet-00001-of-00002: cannot be read \(.*\), expected a complete parquet file"),
    (cut_tfrecord, r"train\.tfrecord-00001-of-00002: cannot be read \(after record 2: Not a valid TFRecord"),
    (huge_tfrecord, r"00001-of-00002: .*record 2 has 1,900,000,000 bytes, expected at most 100,663,296"),
    (short_tfrecord, r"\(1 records, dataset_info\.json states 3\), expected a complete tfrecord file"),
    (removed(f"{NAME}-train.array_record-00000-of-00002"), "states 2 shards of train"),
    (removed("features.json"), r"features\.json: cannot be read \(No such file"),
    (written("features.json", "{"), r"features\.json: not JSON"),
    (written("features.json", "{}"), r"expected dataset_info\.json and features\.json as"),
    (removed("dataset_info.json"), "no TFDS data set, expected the folder of a prepared"),
    (written("dataset_info.json", "[]"), r"dataset_info\.json: not an object"),
    (
        changed("dataset_info.json", '"array_record"', '"riegeli"'),
        "file format riegeli .*; convert it: tfds convert_",
    ),
    (changed("dataset_info.json", "{DATASET}-", "../{DATASET}-"), "is not in this folder"),
    (changed("features.json", IMAGE, CODE), "'evil_features.Photo' is a feature defined outside of TFDS"),
    (written("features.json", json.dumps(OLD_FORM)), "'evil_features.Photo' is a feature defined outside of TFDS"),
]


@pytest.mark.parametrize(("corrupt", "expected"), CASES)
def test_malformed_data_sets(
    tmp_path: Path, corrupt: Callable[[Path], object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_features.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tfds_folder(tmp_path / "clicked")
    corrupt(source)
    with pytest.raises(InputError, match=expected) as caught:
        main(["import", "tfds", str(source), str(tmp_path / "out"), *COLUMNS])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_wrong_sources_and_columns(tmp_path: Path) -> None:
    tfds_folder(tmp_path / "two/1.0.0", ("train",), 2)
    tfds_folder(tmp_path / "two/2.0.0", ("train",), 2)
    for source, columns, expected in (
        ("https://example.com/clicked", COLUMNS, "is a URL, expected a path"),
        (str(tmp_path / "two"), COLUMNS, r"several data sets \(1\.0\.0, 2\.0\.0\), expected the folder of one"),
        (str(tmp_path / "two/1.0.0/features.json"), COLUMNS, "no TFDS data set"),
        (str(tmp_path / "two/1.0.0"), ("--columns", "title=name"), "no column 'name', expected one of box, caption"),
    ):
        with pytest.raises(InputError, match=expected):
            main(["import", "tfds", source, str(tmp_path / "out"), *columns])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two"]
