"""Imports of tables of any format, with guessed and given columns."""

import csv
import json
import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from make_jax.catalog.__main__ import main
from make_jax.catalog.check import check
from make_jax.errors import InputError
from tests.catalog.importers.published import encoded_image, write_parquet

HEADER = ["SKU", "商品标题", "Colour", "Price", "In stock", "Tags", "Body", "Picture", "Weight", "Category"]


def rows_of(count: int) -> list[list[Any]]:
    colours = ("red", "blue", "green")
    rows: list[list[Any]] = []
    for n in range(count):
        price, stock = f"€{n * 400 + 1:,}.50", ("yes", "no")[n % 2]
        rows.append([f"A{n}", f"Boots no. {n}", colours[n % 3], price, stock, "a, b", "long " * 40])
        rows[-1] += [f"img/{n}.jpg", f"{n},5", "Shoes > Boots"]
    return rows


def write_table(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = HEADER) -> Path:
    """A table in the format of its extension, and the images img/<n>.jpg next to it, without 7; 8 is damaged."""
    (path.parent / "img").mkdir(parents=True, exist_ok=True)
    for number in range(len(rows)):
        data = b"damaged" if number == 8 else encoded_image(number)
        if number != 7:
            (path.parent / f"img/{number}.jpg").write_bytes(data)
    objects = [dict(zip(header, row, strict=True)) for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    elif path.suffix == ".parquet":
        write_parquet(path, objects)
    elif path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in [header, *rows]:
            book.active.append(list(row))
        book.save(path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ";").writerows([header, *rows])
    return path


def import_table(source: Path, *options: str | Path, name: str = "out", format: str = "table") -> list[dict[str, Any]]:
    """The lines of products.jsonl of an import, checked to have no problems."""
    out = source.parent / name
    assert main(["import", format, str(source), str(out), *map(str, options)]) == 0
    assert check(out)[1].messages == []
    return [json.loads(line) for line in (out / "products.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"])
def test_every_format_gives_the_same_products(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    products = import_table(write_table(tmp_path / f"shop{suffix}", rows_of(12)))
    assert products[3] == {
        "id": "A3",
        "title": "Boots no. 3",
        "image": products[3]["image"],
        "split": products[3]["split"],
        "category": ["Shoes", "Boots"],
        "description": ("long " * 40).strip(),
        "colour": "red",
        "in_stock": False,
        "tags": ["a", "b"],
        "weight": 3.5,
        "price": 1201.5,
        "currency": "EUR",
    }
    assert [product["id"] for product in products] == [f"A{n}" for n in range(12)]
    assert (tmp_path / "out" / products[3]["image"]).read_bytes() == encoded_image(3)
    info = json.loads((tmp_path / "out/catalog.json").read_text(encoding="utf-8"))
    assert info["attributes"] == ["category", "colour", "currency", "in_stock", "price", "tags", "weight"]
    printed = capsys.readouterr().out
    assert (
        re.search(r"商品标题 +title +name \"商品标题\" +Boots no. 0\n", printed) and "number, decimal comma" in printed
    )
    assert "12 products (10 with an image, 2 without)" in printed
    assert "without image 1: the image's file is not next to the table (option --images)" in printed
    assert "without image 1: the image cannot be read" in printed and "not a JPEG, PNG or WebP image" in printed
    assert "taken 12: prices in EUR" in printed
    provenance = (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")
    reported = [line.strip() for line in printed.splitlines() if line.startswith(("  taken", "  without", "  noted"))]
    assert len(reported) == 5 and all(f"\n- {line}\n" in provenance for line in reported)


def test_columns_may_be_given(tmp_path: Path) -> None:
    header = ["a", "b", "c", "d"]
    source = write_table(tmp_path / "t.csv", [[str(n), f"Lamp {n}", f"{n % 2}", "007"] for n in range(4)], header)
    with pytest.raises(
        InputError, match=r"no column for title or image among a, b, c, d, expected one; name it: --columns title="
    ):
        import_table(source)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    products = import_table(source, "--columns", "title=b", "boolean=c")
    assert [product["id"] for product in products] == ["1", "2", "3", "4"]  # row numbers
    assert (products[1]["c"], products[1]["d"], products[1]["a"]) == (True, "007", 1)
    products = import_table(source, "--columns", "title=b", "id=a", "attributes=d", name="other")
    assert set(products[1]) == {"id", "title", "image", "split", "d"} and products[1]["id"] == "1"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("name=b", r"option --columns: found 'name=b', expected ROLE=COLUMN, a role being one of id, title, image"),
        ("title=x", r"option --columns: no column 'x', expected one of a, b"),
        ("title=a,b", "option --columns: title has 2 columns, expected one"),
        ("text=a,a", "option --columns: the column 'a' has two roles, expected one"),
    ],
)
def test_wrong_columns_are_rejected(tmp_path: Path, columns: str, expected: str) -> None:
    source = write_table(tmp_path / "t.csv", [["1", "x"]], ["a", "b"])
    with pytest.raises(InputError, match=expected):
        import_table(source, "--columns", columns)


def test_rows_without_a_usable_product_are_dropped_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["'1", "one", "img/0.jpg"], ["1", "again", "img/1.jpg"], ["3", "", "img/x.jpg"], ["4 a", "", "img/3.jpg"]]
    products = import_table(write_table(tmp_path / "t.csv", rows, ["id", "title", "image"]))
    assert [(product["id"], product["title"]) for product in products] == [("1", "one"), ("4_a", "")]
    printed = capsys.readouterr().out
    assert "dropped 1: its id is that of an earlier product (first: t.csv:3: 1 again)" in printed
    assert "dropped 1: no title, and the image's file is not next to the table" in printed
    assert "changed 1: the apostrophe before an id is removed (first: t.csv:2: '1)" in printed
    with pytest.raises(InputError, match=r"no product, expected at least one; dropped 1: no title, and the image's"):
        import_table(write_table(tmp_path / "u.csv", rows[2:3], ["id", "title", "image"]), name="empty")


def test_groups_and_given_splits_decide_the_split(tmp_path: Path) -> None:
    rows = [[str(n), f"t {n}", f"g{n // 3}", "wrong"] for n in range(60)]
    products = import_table(write_table(tmp_path / "t.csv", rows, ["id", "title", "group", "split"]))
    splits = {product["group"]: {other["split"] for other in products if other["group"] == product["group"]}
              for product in products}  # fmt: skip
    assert all(len(found) == 1 for found in splits.values()) and len({str(found) for found in splits.values()}) > 1
    assert products[0]["split_value"] == "wrong"  # no split, so an attribute
    rows = [[str(n), f"t {n}", ("train", "validation", "test")[n % 3]] for n in range(6)]
    products = import_table(write_table(tmp_path / "u.csv", rows, ["id", "title", "split"]), name="given")
    assert [product["split"] for product in products[:3]] == ["train", "val", "test"]


def test_urls_are_not_downloaded_but_listed_for_curl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = ["https://s.example/1/a.jpg?v=2", "https://s.example/2/b.jpg", "https://s.example/3/b.jpg", "//s.example/c"]
    source = write_table(tmp_path / "t.csv", [[f"t{n}", url] for n, url in enumerate(urls)], ["title", "image"])
    import_table(source)
    printed = capsys.readouterr().out
    assert "without image 4: the image is a URL, and nothing is downloaded" in printed
    assert "4 images are URLs and not downloaded" in printed
    assert f"curl --output-dir IMAGES --config {tmp_path / 'out'}/fetch-images.curl" in printed
    config = (tmp_path / "out/fetch-images.curl").read_text(encoding="utf-8")
    assert 'url = "https://s.example/c"\noutput = "c"' in config and "globoff" in config
    names = [line.split('"')[1] for line in config.splitlines() if line.startswith("output")]
    assert names[0] == "a.jpg" and len(set(names)) == 4 and all(name.startswith("b-") for name in names[1:3])
    (tmp_path / "saved").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "saved" / name).write_bytes(encoded_image(number))
    products = import_table(source, "--images", tmp_path / "saved", name="again")
    found = [(tmp_path / "again" / product["image"]).read_bytes() for product in products]
    assert found == [encoded_image(number) for number in range(4)]
    assert not (tmp_path / "again/fetch-images.curl").exists()


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "img/../../secret.jpg", "file:///etc/passwd"])
def test_images_outside_the_folder_are_not_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded_image(1))
    source = write_table(tmp_path / "shop/t.csv", [["one", path]], ["title", "image"])
    assert import_table(source)[0]["image"] is None


def test_values_of_other_kinds_are_left_out_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[list[Any]] = [[f"t{n}", n, True] for n in range(1200)]
    rows[1100][1:] = ["unknown", "perhaps"]
    products = import_table(write_table(tmp_path / "t.jsonl", rows, ["title", "size", "new"]))
    assert products[0]["size"] == 0 and products[0]["new"] is True
    assert "size" not in products[1100] and "new" not in products[1100]
    assert (
        'changed 1: size: no number, left out (first: t.jsonl:1101: size: found "unknown")' in capsys.readouterr().out
    )


def test_decimals_and_times_of_parquet_are_numbers_and_texts(tmp_path: Path) -> None:
    row = {"id": Decimal("1.00"), "title": "a", "weight": Decimal("1.50"), "day": date(2020, 1, 2)}
    write_parquet(tmp_path / "t.parquet", [{**row, "at": datetime(2020, 1, 2, 3, 4)}])
    (product,) = import_table(tmp_path / "t.parquet")
    assert (product["id"], product["weight"]) == ("1", 1.5)
    assert (product["day"], product["at"]) == ("2020-01-02", "2020-01-02 03:04:00")


def test_values_that_are_no_unicode_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"title": "a", "tags": ["b"], "color": "red"}\n{"title": "c", "tags": ["\\ud800"], "color": "\\ud800"}\n'
    (tmp_path / "t.jsonl").write_text(text, encoding="utf-8")
    products = import_table(tmp_path / "t.jsonl")
    assert set(products[1]) == {"id", "title", "image", "split"} and products[0]["tags"] == ["b"]
    assert 'changed 1: tags: no list, left out (first: t.jsonl:2: tags: found ["\\ud800"])' in capsys.readouterr().out
