"""Untrusted zips and folders: no access outside the catalog, no unbounded reads."""

import json
import stat
import struct
import unicodedata
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from make_jax.catalog import source as source_module
from make_jax.catalog.reader import Catalog
from make_jax.catalog.source import open_source, unsafe_name
from make_jax.errors import InputError
from tests.tiny_catalog import write_catalog


def rejected(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        Catalog.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "tiny", zipped=True)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil.txt", "images/../../evil.txt", "a\\..\\evil.txt", "C:/evil"]
)
def test_a_zip_with_a_path_outside_it_is_rejected(archive: Path, name: str) -> None:
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(name, "x")
    assert "expected a path inside the zip" in rejected(archive)


def test_a_zip_with_a_symbolic_link_is_rejected(archive: Path) -> None:
    link = zipfile.ZipInfo("images/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, "/etc/passwd")
    assert "is a symbolic link" in rejected(archive)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # raised while the test writes the invalid zip
def test_a_zip_with_a_name_twice_is_rejected(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("products.jsonl", "")
    assert "products.jsonl: duplicate name in the zip" in rejected(archive)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_truncated_zip_is_rejected(archive: Path, keep: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    assert "damaged .zip" in rejected(archive)


def test_a_zip_with_damaged_bytes_is_rejected(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        entry = opened.getinfo("queries.jsonl")
    data = bytearray(archive.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename) + 4
    data[start : start + 8] = b"\xff" * 8
    archive.write_bytes(bytes(data))
    assert "queries.jsonl: cannot be read" in rejected(archive)


def test_a_zip_with_an_extreme_compression_ratio_is_rejected(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("images/bomb.png", bytes(20 << 20))
    assert "times its size, expected at most" in rejected(archive)


def test_an_encrypted_zip_is_rejected(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the list of files
    struct.pack_into("<H", data, at + 8, 1)
    archive.write_bytes(bytes(data))
    assert "is encrypted" in rejected(archive)


@pytest.mark.parametrize(
    ("bound", "value", "text"),
    [("MAX_FILES", 3, "entries"), ("MAX_TOTAL_BYTES", 100, "uncompressed"), ("MAX_FILE_BYTES", 10, "uncompressed")],
)
def test_sizes_of_a_zip_are_bounded(
    archive: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, text: str
) -> None:
    monkeypatch.setattr(source_module, bound, value)
    assert f"expected at most {value}" in rejected(archive) and text in rejected(archive)


@pytest.mark.parametrize("zipped", [False, True])
def test_reading_is_bounded(tmp_path: Path, zipped: bool) -> None:
    source = open_source(write_catalog(tmp_path / "tiny", zipped=zipped))
    size = source.sizes["images/p0.png"]
    assert len(source.read("images/p0.png", size)) == size
    with pytest.raises(InputError, match=f"images/p0.png: more than {size - 1:,} bytes"):
        source.read("images/p0.png", size - 1)
    with pytest.raises(InputError, match="not in the catalog"):
        source.read("images/none.png", size)


@pytest.mark.parametrize("of", ["file", "folder"])
def test_symbolic_links_in_a_folder_are_not_followed(tmp_path: Path, of: str) -> None:
    folder = write_catalog(tmp_path / "tiny")
    outside = tmp_path / "outside"
    if of == "folder":
        (folder / "images").rename(outside)
        (folder / "images").symlink_to(outside)
    else:
        (folder / "images/p0.png").rename(outside)
        (folder / "images/p0.png").symlink_to(outside)
    with pytest.raises(InputError, match=r'products.jsonl:1: image: "images/p0.png" goes through a symbolic link'):
        Catalog.load(folder)


def test_ordinary_names_are_safe() -> None:
    for name in ("a.png", "images/a b.png", "images/中文.webp", "..a/b..c"):
        assert unsafe_name(name) is None


NAMES = ("images/caf\u00e9.png", "images/\u7ea2\u8272.png", "images/\u30d1\u30fc\u30c9.png", "images/\ud55c.png")


class MacEntry(zipfile.ZipInfo):
    """An entry whose name is UTF-8 without the flag that says so, as macOS writes it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  # of zipfile
        return self.filename.encode("utf-8"), self.flag_bits & ~0x800


@pytest.mark.parametrize("named", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("top", ["", "Caf\u00e9/"])
def test_names_of_a_zip_written_on_a_mac_are_found(
    tmp_path: Path, named: Literal["NFC", "NFD"], stored: Literal["NFC", "NFD"], top: str
) -> None:
    image = (write_catalog(tmp_path / "tiny") / "images/p0.png").read_bytes()
    rows = [
        {"id": str(i), "image": unicodedata.normalize(named, name), "split": "test"} for i, name in enumerate(NAMES)
    ]
    top = unicodedata.normalize(stored, top)
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        archive.writestr(MacEntry(f"{top}products.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
        for name in NAMES:
            archive.writestr(MacEntry(top + unicodedata.normalize(stored, name)), image)
            archive.writestr(MacEntry(f"__MACOSX/{top}._{name[7:]}"), b"")
    catalog = Catalog.load(tmp_path / "mac.zip")
    assert [catalog.image_bytes(product) for product in catalog.products] == [image] * len(NAMES)
    assert len(catalog.digest) == 64


def test_decomposed_names_of_a_folder_are_found(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    (folder / "images/p0.png").rename(folder / unicodedata.normalize("NFD", NAMES[0]))
    text = (folder / "products.jsonl").read_text(encoding="utf-8")
    (folder / "products.jsonl").write_text(text.replace("images/p0.png", NAMES[0]), encoding="utf-8")
    catalog = Catalog.load(folder)
    assert catalog.image_bytes(catalog.products[0])


@pytest.mark.parametrize(("name", "stored"), [("P0.png", "p0.png"), ("p0.PNG", "p0.png"), ("p\uff10.png", "p0.png")])
def test_a_similar_name_is_in_the_message(tmp_path: Path, name: str, stored: str) -> None:
    folder = write_catalog(tmp_path / "tiny")
    text = (folder / "products.jsonl").read_text(encoding="utf-8")
    (folder / "products.jsonl").write_text(text.replace("images/p0.png", f"images/{name}"), encoding="utf-8")
    with pytest.raises(InputError, match=rf'"images/{name}" is not in the catalog, which has "images/{stored}", expec'):
        Catalog.load(folder)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            "styles.csv",
            b"id,gender\n",
            "a .csv file: import it (python -m make_jax.catalog import fashion FOLDER",
        ),
        ("label.tsv", b"id\tx\n", "a .tsv file: import it (python -m make_jax.catalog import table FILE OUT)"),
        ("shop.xlsx", b"PK\x03\x04", "an .xlsx file: import it (python -m make_jax.catalog import table FILE OUT)"),
        ("feed.xml", b"<rss>", "an .xml file: import it (python -m make_jax.catalog import google-merchant FILE OUT)"),
        ("a.tar", b"x" * 600, "a .tar archive: unpack it and give the folder"),
        ("a.tar.gz", b"\x1f\x8b\x08", "a gzip file: unpack it"),
        ("a.zip", b"Rar!\x1a\x07", "a rar archive: unpack it"),
        ("a.parquet", b"PAR1", "a Parquet file: import it"),
        ("products.jsonl", b"{}", "a .jsonl file: give its folder, or import it"),
        ("catalog.json", b"{}", "no .zip; expected"),
    ],
)
def test_another_file_is_named_as_what_it_is(tmp_path: Path, name: str, data: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(data)
    text = rejected(tmp_path / name)
    assert text.startswith(f"{tmp_path / name}: {expected}") and "expected a catalog folder or .zip" in text
    assert "damaged" not in text and "again" not in text


@pytest.mark.parametrize("image", ["https://x/a.jpg", "HTTP://x", "s3://b/a.png", "data:image/png;base64,AA", "//b"])
def test_an_image_that_is_a_url_is_named_so(tmp_path: Path, image: str) -> None:
    (tmp_path / "products.jsonl").write_text(json.dumps({"id": "a", "image": image, "split": "test"}))
    assert "URL, expected a path inside the catalog; save the image there" in rejected(tmp_path)
