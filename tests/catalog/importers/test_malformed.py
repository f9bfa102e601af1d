"""Malformed source files: one error line with the row, and no catalog at the target."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from make_jax.catalog.importers import tables
from make_jax.errors import InputError
from tests.catalog.importers import published
from tests.catalog.importers.imports import imported

Corruption = Callable[[Path], Any]


def replace(path: str, old: str, new: str, count: int = -1) -> Corruption:
    """Replaces text in a file, decoded as Latin-1 so that any byte can be written."""

    def corrupt(source: Path) -> None:
        text = (source / path).read_text(encoding="latin-1")
        assert old in text
        (source / path).write_text(text.replace(old, new, count), encoding="latin-1", newline="")

    return corrupt


def rewrite(path: str, change: Callable[[list[dict[str, Any]]], Any]) -> Corruption:
    """Changes the rows of a Parquet file."""

    def corrupt(source: Path) -> None:
        rows = parquet.read_table(source / path).to_pylist()
        change(rows)
        published.write_parquet(source / path, rows)

    return corrupt


def drop(path: str, column: str) -> Corruption:
    return rewrite(path, lambda rows: [row.pop(column) for row in rows])


def bytes_of_image(path: str, number: int, data: bytes | None) -> Corruption:
    return rewrite(path, lambda rows: rows[number].update(image=published.hugging_face(data)))


def encoding_of_parquet(path: str) -> Corruption:
    """Makes one title of a Parquet file Latin-1, uncompressed so that its bytes can be found."""

    def corrupt(source: Path) -> None:
        table = parquet.read_table(source / path)
        parquet.write_table(table, source / path, compression="none", use_dictionary=False, write_statistics=False)
        data = (source / path).read_bytes()
        assert data.count(b"Lamp 1 ...") == 2
        (source / path).write_bytes(data.replace(b"Lamp 1 ...", b"L\xe4mp 1 ...", 1))

    return corrupt


DATA, EXAMPLES = (
    "data/data-00000-of-00002.parquet",
    "shopping_queries_dataset/shopping_queries_dataset_examples.parquet",
)
PRODUCTS = "shopping_queries_dataset/shopping_queries_dataset_products.parquet"
JPEG = base64.b64encode(published.encoded_image(1)).decode()
GIF = base64.b64encode(b"GIF89a" + bytes(20)).decode()
CUT = base64.b64encode(published.encoded_image(1)[:-40]).decode()

CASES: list[tuple[str, Callable[[Path], Path], Corruption, str]] = [
    # missing column
    (
        "fashion",
        published.kaggle_fashion,
        replace("styles.csv", "articleType", "type"),
        r"styles\.csv:1: no column 'articleType' among id, gender, .*productDisplayName",
    ),
    (
        "wands",
        published.wands,
        replace("dataset/label.csv", "label\n", "grade\n"),
        r"label\.csv:1: no column 'label' among id, query_id, product_id, grade",
    ),
    (
        "google-shopping",
        published.marqo_eval,
        drop(DATA, "title"),
        r"data-00000-of-00002\.parquet: no column 'title' among image, item_ID, query, position",
    ),
    ("esci", published.esci, drop(EXAMPLES, "esci_label"), r"examples\.parquet: no column 'esci_label' among .*"),
    (
        "muge",
        published.muge,
        replace("train_texts.jsonl", '"image_ids": [1003]', '"images": [1003]'),
        r"train_texts\.jsonl:4: image_ids: found null, expected a list of image ids",
    ),
    # wrong encoding
    (
        "fashion",
        published.kaggle_fashion,
        replace("styles.csv", "Style 5", "St\xffle 5"),
        r"styles\.csv:7: not UTF-8 at byte \d+, expected UTF-8",
    ),
    (
        "wands",
        published.wands,
        replace("dataset/query.csv", "d\xc3\xa9cor", "d\xe9cor"),
        r"query\.csv:3: not UTF-8 at byte 4, expected UTF-8",
    ),
    (
        "muge",
        published.muge,
        replace("valid_texts.jsonl", "5002", "\xff5002", 1),
        r"valid_texts\.jsonl:3: not UTF-8 at byte \d+, expected UTF-8",
    ),
    (
        "google-shopping",
        published.marqo_eval,
        encoding_of_parquet(DATA),
        r"data-00000-of-00002\.parquet: row [34]: not UTF-8 \(.*\), expected UTF-8",
    ),
    # invalid base64
    (
        "muge",
        published.muge,
        replace("train_imgs.tsv", JPEG, JPEG[:-3] + "*=="),
        r"train_imgs\.tsv:2: product 1001: invalid base64 \(.*\), expected the base64 of an image",
    ),
    (
        "muge",
        published.muge,
        replace("train_imgs.tsv", "1001\t", "1001 "),
        r"train_imgs\.tsv:2: no image, expected an image id, a tab and base64",
    ),
    # images
    (
        "muge",
        published.muge,
        replace("train_imgs.tsv", JPEG, GIF),
        r"train_imgs\.tsv:2: product 1001: not a JPEG, PNG or WebP image",
    ),
    (
        "muge",
        published.muge,
        replace("train_imgs.tsv", JPEG, CUT),
        r"train_imgs\.tsv:2: product 1001: damaged image \(.*\)",
    ),
    (
        "google-shopping",
        published.marqo_eval,
        bytes_of_image(DATA, 2, b"<html>"),
        r"data-00000-of-00002\.parquet: row 3: product id-2: not a JPEG, PNG or WebP image",
    ),
    (
        "google-shopping",
        published.marqo_eval,
        bytes_of_image(DATA, 2, None),
        r"data-00000-of-00002\.parquet: row 3: image: found null, expected an image",
    ),
    (
        "fashion",
        published.kaggle_fashion,
        lambda source: (source / "images/1004.jpg").write_bytes(b"<html>"),
        r"styles\.csv:6: product 1004: not a JPEG, PNG or WebP image",
    ),
    # duplicate ids
    (
        "fashion",
        published.kaggle_fashion,
        replace("styles.csv", "\n1007,", "\n1001,"),
        r"styles\.csv:9: product 1001 occurs at styles\.csv:3 too, expected unique ids",
    ),
    (
        "wands",
        published.wands,
        replace("dataset/query.csv", "\n1\t", "\n0\t"),
        r"query\.csv:3: query 0 occurs at query\.csv:2 too, expected unique ids",
    ),
    (
        "google-shopping",
        published.marqo_eval,
        rewrite(DATA, lambda rows: rows[4].update(item_ID="id-1")),
        r"data-00000-of-00002\.parquet: row 5: product id-1 occurs at data-0.*: row 2 too, expected unique ids",
    ),
    (
        "esci",
        published.esci,
        rewrite(PRODUCTS, lambda rows: rows[3].update(product_id="B002")),
        r"products\.parquet: row 4: product B002 occurs at .*products\.parquet: row 3 too, expected unique ids",
    ),
    (
        "muge",
        published.muge,
        replace("train_imgs.tsv", "1001\t", "1000\t"),
        r"train_imgs\.tsv:2: product 1000 occurs at train_imgs\.tsv:1 too, expected unique ids",
    ),
    # others
    (
        "fashion",
        published.kaggle_fashion,
        replace("styles.csv", "1005,Women,", "1005,"),
        r"styles\.csv:7: 9 fields, expected 10",
    ),
    (
        "fashion",
        published.kaggle_fashion,
        replace("styles/1000.json", "}}", "}"),
        r"styles\.csv:2: styles/1000\.json: not JSON \(.*\), expected one object",
    ),
    (
        "wands",
        published.wands,
        replace("dataset/label.csv", "\t3\t", "\t99\t"),
        r"label\.csv:2: judges the unknown product 99",
    ),
    (
        "wands",
        published.wands,
        replace("dataset/label.csv", "3\t1\t0\tExact", "3\t1\t5\tPartial"),
        r"label\.csv:5: query 1 judges product 5 1, expected 2 as at label\.csv:4",
    ),
    (
        "esci",
        published.esci,
        rewrite(EXAMPLES, lambda rows: rows[8].update(esci_label="X")),
        r'examples\.parquet: row 9: esci_label: found "X", expected one of E, S, C, I',
    ),
    (
        "esci",
        published.esci,
        lambda source: (source / PRODUCTS).write_bytes(b"PAR1"),
        r"products\.parquet: cannot be read \(.*\), expected a complete Parquet file",
    ),
    (
        "esci",
        published.esci,
        lambda source: (source / PRODUCTS).unlink(),
        r"products\.parquet: not found, expected it as published \(SOURCE\)",
    ),
    (
        "muge",
        published.muge,
        replace("train_texts.jsonl", '"image_ids": [1003]', '"image_ids": ["\\ud800"]'),
        r"train_texts\.jsonl:4: image_ids: half of a surrogate pair, expected valid Unicode",
    ),
    (
        "muge",
        published.muge,
        replace("valid_texts.jsonl", '{"text_id": 5001', '"text_id": 5001'),
        r"valid_texts\.jsonl:2: not JSON \(.*\), expected one object",
    ),
    (
        "muge",
        published.muge,
        replace("train_texts.jsonl", '"image_ids": [1003]', '"image_ids": [1003], "image_ids": [1001]'),
        r'train_texts\.jsonl:4: "image_ids" occurs twice in one object, expected each key once',
    ),
    (
        "fashion",
        published.kaggle_fashion,
        replace("styles/1000.json", '"brandName"', '"brandName": "x", "brandName"'),
        r'styles\.csv:2: styles/1000\.json: "brandName" occurs twice in one object, expected each key once',
    ),
]


@pytest.mark.parametrize(("name", "publish", "corrupt", "expected"), CASES)
def test_the_error_is_one_line_with_the_row(
    tmp_path: Path, name: str, publish: Callable[[Path], Path], corrupt: Corruption, expected: str
) -> None:
    source = publish(tmp_path / "source")
    corrupt(source)
    with pytest.raises(InputError) as caught:
        imported(tmp_path / "out", name, source)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(source))
    assert re.search(
        f"(/|: ){'' if expected.startswith('data') else '[a-z_]*'}{expected}(?:; the rows so far are kept in .*)?$",
        message,
    ), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            '"1002"',
            '"1001"',
            'corpus_1.json: "1001": product 1001 occurs at corpus_1.json: "1001" too, expected unique',
        ),
        ('"1002": {', '"1002" {', "corpus_1.json: not JSON (a member without key), expected one object"),
        (
            '"title"',
            '"title": "", "title"',
            'corpus_1.json: "title" occurs twice in one object, expected each key once',
        ),
        ("\\u00e4", "\xe4", "corpus_1.json: not UTF-8 (invalid continuation byte), expected UTF-8"),
        ("}}", "}", "corpus_1.json: not JSON (it ends too early), expected one object"),
    ],
)
@pytest.mark.parametrize("block", [1 << 20, 7])
def test_malformed_corpus_files_of_marqo_gs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, expected: str, block: int
) -> None:
    monkeypatch.setattr(tables, "_BLOCK", block)
    source, images = published.marqo_gs_files(tmp_path)
    replace("corpus_1.json", old, new)(source)
    with pytest.raises(InputError) as caught:
        imported(tmp_path / "out", "marqo-gs", source, "--images", images)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (lambda folder: (folder / "00000.parquet").unlink(), "no shard like 00000.parquet, expected the output of"),
        (lambda folder: (folder / "00000.tar").write_bytes(b"x" * 512), "00000.tar: cannot be read"),
        (drop("00000.parquet", "product_id"), "00000.parquet: no column 'product_id' among url, key"),
        (
            rewrite("00000.parquet", lambda rows: rows[0].update(key="../1")),
            "row 1: key: found '../1', expected digits",
        ),
        (
            rewrite("00000.parquet", lambda rows: rows[2].update(product_id="B000")),
            "row 3: product B000: a second imag",
        ),
    ],
)
def test_malformed_output_of_img2dataset(tmp_path: Path, corrupt: Corruption, expected: str) -> None:
    images = published.img2dataset_output(tmp_path / "sqid", "webdataset", ["B000", "B001", "B002"])
    corrupt(images)
    with pytest.raises(InputError) as caught:
        imported(tmp_path / "out", "esci", published.esci(tmp_path / "esci-data"), "--images", images)
    assert expected in str(caught.value)


def test_allowed_bad_rows_are_skipped_and_listed(tmp_path: Path) -> None:
    source = published.wands(tmp_path / "WANDS")
    replace("dataset/label.csv", "Partial", "partial")(source)
    replace("dataset/product.csv", "\n4\t", "\n3\t")(source)
    with pytest.raises(InputError, match=r'label\.csv:3: label: found "partial"'):
        imported(tmp_path / "out", "wands", source, "--bad-rows", "1")
    catalog = imported(tmp_path / "out", "wands", source, "--bad-rows", "2")
    assert len(catalog.products) == 5 and catalog.queries[0].rel == {"3": 0}
    provenance = (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")
    assert "2 rows were invalid and are skipped" in provenance and "- product.csv:7: product 3 occurs at" in provenance


def test_the_command_exits_with_2_and_one_line(tmp_path: Path) -> None:
    source = published.wands(tmp_path / "WANDS")
    replace("dataset/label.csv", "Partial", "partial")(source)
    command = [sys.executable, "-m", "make_jax.catalog", "import", "wands", source, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    expected = f'error: {source}: label.csv:3: label: found "partial", expected one of Exact, Partial, Irrelevant'
    assert last.startswith(f"{expected}; the rows so far are kept in {tmp_path}/.importing-out: ")


def test_the_summary_counts_rows_skipped_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = published.wands(tmp_path / "WANDS")
    replace("dataset/label.csv", "\t3\t", "\t99\t")(source)
    catalog = imported(tmp_path / "out", "wands", source, "--bad-rows", "1")
    judgements = sum(len(query.rel) for query in catalog.queries)
    assert f"{judgements} judgements, 0 clicks; 1 rows skipped" in capsys.readouterr().out


def test_members_of_a_large_object_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"k{n}": {"text": 'a "b" {c} \u4e2d' * n, "n": n, "list": [n, {"x": None}]} for n in range(40)}
    (tmp_path / "large.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    for block in (3, 64, 1 << 20):
        monkeypatch.setattr(tables, "_BLOCK", block)
        rows = list(tables.JsonMembers(tmp_path / "large.json").rows(0))
        assert {row.values.pop("key"): row.values for row in rows} == values
