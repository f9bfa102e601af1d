"""Imports of folders of pictures whose names are titles."""

import json
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.__main__ import main
from make_jax.catalog.importers import import_state
from make_jax.catalog.importers.pictures import clean_title
from make_jax.errors import InputError
from tests.catalog.importers.contents import contents
from tests.catalog.importers.imports import imported
from tests.catalog.importers.published import encoded_image


def write_pictures(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded_image(number))
    return folder


def products(out: Path) -> dict[str, dict[str, Any]]:
    lines = (out / "products.jsonl").read_text(encoding="utf-8").splitlines()
    return {product["id"]: product for product in map(json.loads, lines)}


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("red-leather_boots", "red leather boots"),
        ("redLeatherBoots", "red Leather Boots"),
        ("red%20boots+brown", "red boots brown"),
        ("red boots 0012", "red boots"),
        ("Red Boots (2)", "Red Boots"),
        ("Red Boots copy", "Red Boots"),
        ("boots_800x800", "boots"),
        ("boots-3f2a9c8e4d1b", "boots"),
        ("123456_boots", "boots"),
        ("iphone-13", "iphone 13"),
        ("501 jeans", "501 jeans"),
        ("decade dress", "decade dress"),  # hexadecimal letters
        ("红色连衣裙_12345", "红色连衣裙"),
        ("हरी शर्ट", "हरी शर्ट"),
        ("IMG_2041", ""),
        ("DSC00012", ""),
        ("photo", ""),
        ("8f14e45fceea167a5a36dedd4bea2543", ""),
        ("12", ""),
        ("-_-", ""),
    ],
)
def test_titles_of_names(name: str, title: str) -> None:
    assert clean_title(name, keep_numbers=False) == title
    assert not name.startswith("red boots") or clean_title(name, keep_numbers=True) == name


def test_folders_are_categories_and_pictures_of_one_name_share_a_group(tmp_path: Path) -> None:
    names = ["shoes/women_shoes/boots-1.jpg", "shoes/women_shoes/boots-2.jpg", "phones/iphone-13.jpg"]
    names += ["phones/iphone-14.jpg", "phones/IMG_1.JPG", "a,b hat.jpg"]
    source = write_pictures(tmp_path / "pictures", names)
    (source / "notes.txt").write_text("no picture")
    (source / "link.jpg").symlink_to("/etc/hostname")
    catalog = imported(tmp_path / "out", "pictures", source)
    found = products(tmp_path / "out")
    first, second = (found[f"shoes/women_shoes/boots-{n}.jpg"] for n in (1, 2))
    assert first["title"] == second["title"] == "boots" and first["category"] == ["shoes", "women shoes"]
    assert (first["group"], first["split"]) == (second["group"], second["split"])
    assert [found[f"phones/iphone-{n}.jpg"]["title"] for n in (13, 14)] == ["iphone 13", "iphone 14"]
    assert found["phones/IMG_1.JPG"]["title"] == "" and "category" not in found["a,b_hat.jpg"]
    assert catalog.image_bytes(catalog.products[0]) == encoded_image(5) and catalog.info.attributes == ("category",)


def test_options_set_titles_ids_and_categories(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "pictures", ["x/boots-0012.jpg", "x/hat-0013.jpg"])
    imported(tmp_path / "a", "pictures", source, "--keep-numbers", "--no-categories")
    assert [(p["title"], p.get("category")) for p in products(tmp_path / "a").values()] == [
        ("boots 0012", None),
        ("hat 0013", None),
    ]
    imported(tmp_path / "b", "pictures", source, "--pattern", r"(?P<title>.+)-(?P<id>\d+)")
    assert {id: p["title"] for id, p in products(tmp_path / "b").items()} == {"0012": "boots", "0013": "hat"}


def test_folders_named_like_splits_are_splits(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "pictures", ["train/hats/red.jpg", "test/hats/blue.jpg"])
    imported(tmp_path / "out", "pictures", source)
    found = [(p["split"], p["category"]) for p in products(tmp_path / "out").values()]
    assert sorted(found) == [("test", ["hats"]), ("train", ["hats"])]


def test_a_broken_picture_is_reported_and_its_title_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pictures(tmp_path / "pictures", ["red-hat.jpg", "blue-hat.jpg", "IMG_1.jpg"])
    (source / "red-hat.jpg").write_bytes(encoded_image(0)[:100])
    (source / "IMG_1.jpg").write_bytes(b"")
    imported(tmp_path / "out", "pictures", source)
    found = products(tmp_path / "out")
    assert found["red-hat.jpg"]["image"] is None and set(found) == {"red-hat.jpg", "blue-hat.jpg"}
    printed = capsys.readouterr().out
    assert "without image 1: the image cannot be read" in printed and "dropped 1: no title" in printed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--pattern", "("], r"option --pattern: '\(' is no regular expression"),
        (["--pattern", ".+"], "has no group `title` or `id`"),
        (["--pattern", r"(?P<id>\d+)"], r"pictures: hat\.jpg: the name 'hat' does not match --pattern"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(tmp_path: Path, options: list[str], expected: str) -> None:
    source = write_pictures(tmp_path / "pictures", ["hat.jpg"])
    with pytest.raises(InputError, match=expected):
        main(["import", "pictures", str(source), str(tmp_path / "out"), *options])
    assert [each.name for each in tmp_path.iterdir()] == ["pictures"]


def test_no_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for source, expected in ((tmp_path / "pictures", "no picture, expected .jpg"), (Path(__file__), "no folder")):
        with pytest.raises(InputError, match=expected):
            main(["import", "pictures", str(source), str(tmp_path / "out")])


def test_pictures_added_during_an_interruption_start_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pictures(tmp_path / "pictures", [f"hat {name}.jpg" for name in ("red", "blue", "green")])
    monkeypatch.setattr(import_state, "BATCH", 1)
    finish = import_state.ImportState.finish
    monkeypatch.setattr(import_state.ImportState, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["import", "pictures", str(source), str(tmp_path / "out")])
    monkeypatch.setattr(import_state.ImportState, "finish", finish)
    write_pictures(source, ["hat pink.jpg"])
    imported(tmp_path / "out", "pictures", source)
    assert "starting over" in capsys.readouterr().err
    (tmp_path / "again").mkdir()
    imported(tmp_path / "again/out", "pictures", source)
    assert contents(tmp_path / "out") == contents(tmp_path / "again/out")
