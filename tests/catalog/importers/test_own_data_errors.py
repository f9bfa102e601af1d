"""Malformed tables and exports: one line with the place, exit code 2, and nothing left at the target."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import excel, parquet_pages, tables, xml_feed
from make_jax.errors import InputError
from tests.catalog.importers.published import write_parquet

ITEMS = "<item><id>1</id><title>one</title></item><item><id>2</id><title>two</title></item>"
ENTITY = '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


def text(content: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode(encoding))


def feed(items: str, before: str = "") -> Callable[[Path], object]:
    return text(f'<?xml version="1.0"?>{before}<rss><channel>{items}</channel></rss>')


def workbook(*rows: list[object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)

    return write


def workbook_with(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A workbook whose sheet is changed as XML."""

    def write(path: Path) -> None:
        workbook(["id", "title"], [1, "one"])(path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts.items():
                archive.writestr(name, change(data) if name == "xl/worksheets/sheet1.xml" else data)

    return write


def cut_parquet(path: Path) -> None:
    write_parquet(path, [{"id": number, "title": f"t {number}"} for number in range(9)])
    path.write_bytes(path.read_bytes()[:-9])


def two_sheets(path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_sheet("Products")
    book.save(path)


CASES: list[tuple[str, str, Callable[[Path], object], str]] = [
    # wrong encoding
    ("table", "t.csv", text("id,title\n1,Décor\n", "cp1252"), r"t\.csv:2: not UTF-8 at byte 13, expected UTF-8; "
     r"--encoding cp1252 would read 'Décor'; or save it as UTF-8 \(in Excel: CSV UTF-8\)"),
    ("shopify", "t.csv", text("Handle,Title\na,红色靴子\n", "gb18030"),
     r"t\.csv:2: .*--encoding gb18030 would read '红色靴子'"),
    ("table", "t.csv", text("id,title\n1,赤い靴\n", "cp932"), r"t\.csv:2: .*--encoding cp932 would read '赤い靴'"),
    ("woocommerce", "t.csv", text("ID,Type,Name\n1,simple,Cup\n", "utf-16-le"),
     r"t\.csv: UTF-16 without a byte-order mark, expected UTF-8; add --encoding utf-16-le, or save it as UTF-8"),
    ("table", "t.jsonl", text('{"title": "one"}', "utf-16-be"), r"t\.jsonl: UTF-16 .*--encoding utf-16-be"),
    ("table", "t.jsonl", text('{"title": "Café"}', "latin-1"),
     r"t\.jsonl:1: not UTF-8 at byte 15, .*--encoding cp1252"),
    ("google-merchant", "t.xml", lambda path: path.write_bytes(b"<rss><item><id>caf\xe9</id></item></rss>"),
     r"t\.xml: after item 0: not XML \(not well-formed .*line 1, column 18\), expected a complete RSS or Atom feed"),
    ("google-merchant", "t.tsv", text("id\ttitle\n1\tCafé\n", "cp1252"), r"t\.tsv:2: not UTF-8"),
    # missing column
    ("table", "t.csv", text("a,b\n1,2\n"),
     r"t\.csv: no column for title or image among a, b, expected one; name it: --columns title="),
    ("table", "t.csv", text("id,title,title\n1,2,3\n"),
     r"t\.csv: the column 'title' occurs twice, expected each name once"),
    ("table", "t.xlsx", workbook(["a", "b"], [1, 2]), r"t\.xlsx: no column for title or image among a, b"),
    # no product: nothing to resume
    ("shopify", "t.csv", text("Handle,Title,Status\na,Boots,draft\n"), r"t\.csv: no product, .*status draft"),
    ("google-merchant", "t.xml", feed("<item><title>a</title></item>"), r"t\.xml: no product, .*an item without id"),
    # no such format, or another one
    ("shopify", "t", Path.mkdir, r"/t: a folder without \.parquet files, expected a file"),
    ("table", "t.xls", text("x"),
     r"t\.xls: extension '\.xls', expected one of .*; save the old Excel format as \.xlsx"),
    ("table", "t.xlsx", text("id,title\n"),
     r"t\.xlsx: cannot be read \(File is not a zip file\), expected an Excel workbook"),
    ("table", "t.csv", workbook(["id", "title"]), r"t\.csv: no text, expected lines of text in UTF-8"),
    ("table", "t.csv", text(""), r"t\.csv: no columns, expected a header and rows"),
    ("table", "t.xlsx", two_sheets, r"t\.xlsx: the sheet 'Sheet' is empty, expected a header \(option --sheet\)"),
    ("google-merchant", "t.xml", feed(""), r"t\.xml: no <item> or <entry>, expected an RSS or Atom feed"),
    ("google-merchant", "t.xml", feed("<a>" * 60 + "</a>" * 60),
     r"t\.xml: after item 0: not XML \(elements nested more than"),
    ("table", "t.jsonl", text('{"title": "a", "\\ud800": 1}'), r"t\.jsonl: half of a surrogate pair in the column"),
    # truncated
    ("table", "t.parquet", cut_parquet, r"t\.parquet: cannot be read \(.*\), expected a complete Parquet file"),
    ("google-merchant", "t.xml", lambda path: path.write_bytes(b"<rss>" + ITEMS.encode()),
     r"t\.xml: after item 2: not XML \(no element found: line 1, column \d+\), expected a complete RSS or Atom feed"),
    ("table", "t.csv", text('id,title\n1,"one\n2,two\n'), r"t\.csv:2: a quote opens a field and none closes it"),
    ("table", "t.csv", text("id,title\n1,one,more\n2,two\n"), r"t\.csv:2: 3 fields, expected 2"),
    # formula cells
    ("table", "t.xlsx", workbook(["id", "title"], [1, "one"], [2, "=A2&A3"]),
     r"/t\.xlsx: Sheet: row 3: B3: a formula \(=A2&A3\) without a stored value; open it in Excel or LibreOffice"),
    # entity expansion, and parts that unpack to much more
    ("google-merchant", "t.xml", feed(ITEMS, ENTITY),
     r"t\.xml: declares or refers to XML entities \(.*\), expected a feed "),
    ("table", "t.xlsx", workbook_with(lambda data: ENTITY.encode() + data), r"t\.xlsx: declares XML entities"),
    ("table", "t.xlsx", workbook_with(lambda data: data + b" " * (4 << 20)),
     r"t\.xlsx: xl/worksheets/sheet1\.xml unpacks to 4,\d+,\d+ bytes, expected at most"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "name", "write", "expected"), CASES)
def test_the_error_is_one_line_and_nothing_is_left(
    tmp_path: Path, format: str, name: str, write: Callable[[Path], object], expected: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=expected) as caught:
        main(["import", format, str(tmp_path / name), str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


LONG = "x" * 4000


@pytest.mark.parametrize(
    ("format", "name", "write", "expected"),
    [
        ("table", "t.csv", text(f"id,title\n1,{LONG}\n"), r"t\.csv:2: more than 2,000 bytes, expected a shorter line"),
        ("table", "t.csv", text('id,title\n1,"' + "x\n" * 2000 + '"\n'), r"t\.csv:2: .*expected two quotes around"),
        ("table", "t.jsonl", text(f'{{"title": "{LONG}"}}'), r"t\.jsonl:1: more than 2,000 bytes"),
        ("table", "t.parquet", lambda path: parquet.write_table(pyarrow.table({"title": [LONG]}), path),
         r"t\.parquet: column 'title', row 1: a cell of 4,\d+ bytes or more, expected at most 2,000"),
        ("table", "t.xlsx", workbook(["title"], [LONG]),
         r"t\.xlsx: xl/\S+ unpacks to \d+,\d+ bytes, expected at most 2,000"),
        ("table", "t.xlsx", workbook_with(lambda data: data.replace(b"<v>1</v>", b"<v>" + b"1" * (4 << 20) + b"</v>")),
         r"t\.xlsx: xl/worksheets/sheet1\.xml, cell A2 or after it: a text of more than 1,048,576 bytes, expected at"),
        ("google-merchant", "t.xml", feed(f"<item><id>1</id><title>{LONG * 10}</title></item>"),
         r"t\.xml: after item 0: an item of more than 2,000 bytes"),
    ],
)  # fmt: skip
def test_a_huge_cell_is_rejected_before_it_is_in_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    name: str,
    write: Callable[[Path], object],
    expected: str,
) -> None:
    write(tmp_path / name)
    for module, bound in ((tables, "MAX_LINE"), (excel, "MAX_XML"), (xml_feed, "MAX_ITEM")):
        monkeypatch.setattr(module, bound, 2000 if "sheet1" not in expected else getattr(module, bound))
    monkeypatch.setattr(excel, "MAX_RATIO", 1 << 20)
    monkeypatch.setattr(tables, "MAX_LINES", 100)
    monkeypatch.setattr(parquet_pages, "MAX_CELL", 2000)
    with pytest.raises(InputError, match=expected):
        main(["import", format, str(tmp_path / name), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "arguments", "expected"),
    [
        ("table", ["{url}", "out"], r"https://shop\.example/t\.csv is a URL, expected a path \(SOURCE\); download it"),
        ("shopify", ["{url}", "out"], r"https://shop\.example/t\.csv is a URL, .* \(SOURCE\)"),
        ("table", ["t.csv", "out", "--images", "{url}"], r"https://shop\.example/t\.csv is a URL, .* \(--images\)"),
        ("google-merchant", ["t.tsv", "out", "--images", "{url}"], r"https://shop\.example/t\.csv is a URL"),
        ("table", ["t.csv", "{url}"], r"https://shop\.example/t\.csv: unknown scheme https://"),
        ("esci", ["folder", "out", "--images", "{url}"], r"https://shop\.example/t\.csv is a URL"),
    ],
)
def test_a_url_instead_of_a_path_is_rejected_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=expected):
        main(["import", format, *(each.format(url="https://shop.example/t.csv") for each in arguments)])
    assert not list(tmp_path.iterdir())


def test_a_missing_source_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv: not found, expected a file or folder \(SOURCE\)"):
        main(["import", "table", str(tmp_path / "missing.csv"), str(tmp_path / "out")])


def test_stored_values_of_formulas_are_read(tmp_path: Path) -> None:
    def add_formula(data: bytes) -> bytes:
        old = b'<c r="A2" t="n"><v>1</v></c>'
        assert old in data
        return data.replace(old, b'<c r="A2"><f>6*7</f><v>42</v></c>')

    workbook_with(add_formula)(tmp_path / "t.xlsx")
    assert main(["import", "table", str(tmp_path / "t.xlsx"), str(tmp_path / "out")]) == 0
    assert '"id": "42", "title": "one"' in (tmp_path / "out/products.jsonl").read_text(encoding="utf-8")


def test_the_command_exits_with_2_and_allows_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,title\n1,one\n2,two,more\n3,three\n", encoding="utf-8")
    command = [sys.executable, "-m", "make_jax.catalog", "import", "table", tmp_path / "t.csv", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"error: {tmp_path}/t.csv:3: 3 fields, expected 2"
    done = subprocess.run([*command, "--bad-rows", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 products" in done.stdout and "1 rows skipped" in done.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--separator", "||"], r"option --separator: found '\|\|', expected one character such as ; or tab"),
        (
            ["--encoding", "hex"],
            r"option --encoding: found 'hex', expected a known one such as utf-8, gb18030 or cp1252",
        ),
        (["--encoding", "gb18030"], r"t\.csv:2: not GB18030 at byte 13, expected UTF-8"),
        (["--images", "nowhere"], r"nowhere: no folder, expected one of images \(option --images\)"),
    ],
)
def test_wrong_options_are_rejected(tmp_path: Path, options: list[str], expected: str) -> None:
    (tmp_path / "t.csv").write_bytes(b"id,title\n1,d\xff\xff\n")
    with pytest.raises(InputError, match=expected):
        main(["import", "table", str(tmp_path / "t.csv"), str(tmp_path / "out"), *options])


def test_an_error_after_many_rows_states_what_is_kept(tmp_path: Path) -> None:
    lines = [f"{number},t {number}" for number in range(600)] + ["600,a,b"]
    source, out = tmp_path / "t.csv", tmp_path / "out"
    source.write_text("id,title\n" + "\n".join(lines), encoding="utf-8")
    kept = rf"the rows so far are kept in {tmp_path}/\.importing-out: repair the source and run this again, or delete"
    with pytest.raises(InputError, match=rf"t\.csv:602: 3 fields, expected 2; {kept}") as caught:
        main(["import", "table", str(source), str(out)])
    assert "\n" not in str(caught.value) and not out.exists()
    source.write_text("id,title\n" + "\n".join(lines[:-1]), encoding="utf-8")
    assert main(["import", "table", str(source), str(out)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.csv"]


def test_fields_that_excel_does_not_write_are_empty_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,title,color,size\n1,one,red,5\n2,two\n3,three,blue\n", encoding="utf-8")
    assert main(["import", "table", str(tmp_path / "t.csv"), str(tmp_path / "out")]) == 0
    report = (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")
    line = "- changed 2: missing fields at the end of a row are taken as empty (first: t.csv:3; t.csv:4)"
    assert line in report
    products = (tmp_path / "out/products.jsonl").read_text(encoding="utf-8").splitlines()
    assert "color" not in products[1] and '"color": "blue"' in products[2]
