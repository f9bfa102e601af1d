"""The commands `check` and `describe`."""

import json
from pathlib import Path

import pytest
from PIL import Image

from make_jax.catalog.__main__ import main
from make_jax.catalog.check import check
from make_jax.catalog.describe import contact_sheet, describe
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import train_wordpiece
from tests.tiny_catalog import write_catalog, write_lines


def damage_image(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:60])


def test_check_reports_every_problem_with_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_catalog(tmp_path / "tiny", products=60)
    damage_image(folder, "images/p1.png")
    (folder / "images/p9.png").unlink()
    clicks = [{"query": "", "product": "p0"}] * 30
    write_lines(folder / "clicks.jsonl", clicks)
    assert main(["check", str(folder), "--all"]) == 2
    out = capsys.readouterr().out
    assert "products.jsonl:2: image: images/p1.png: damaged image (" in out
    assert 'products.jsonl:10: image: "images/p9.png" is not in the catalog' in out
    assert all(f"clicks.jsonl:{number}: query: " in out for number in range(1, 31))
    assert "60 products (train 36, val 12, test 12)" in out and f"{folder}: 32 problems" in out


def test_check_counts_the_texts_that_the_tokenizer_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_catalog(tmp_path / "tiny", products=60)
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row["title"] = "👟👟👟" if row["split"] == "test" else row["title"]  # no training title has this character
    write_lines(folder / "products.jsonl", rows)
    assert main(["check", str(folder)]) == 0  # a note, no problem
    out = capsys.readouterr().out
    stated = "warning: products.jsonl: 12 of 60 titles are more than half unknown tokens, so that the model can hardly"
    assert stated in out
    assert '"👟👟👟", "👟👟👟", "👟👟👟", ...; use a tokenizer' in out
    assert "queries are more than half" not in out and "warnings" in out
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/tokenizer.json").write_text(train_wordpiece(["👟 -"] * 2, 30).definition, "utf-8")
    assert main(["check", str(folder), "--tokenizer", str(tmp_path / "tokenizer")]) == 0
    out = capsys.readouterr().out
    for name in ("titles", "clicked queries", "judged queries"):
        assert f" {name} are more than half unknown" in out
    assert '"👟👟👟", ' not in out
    with pytest.raises(InputError, match="is no folder"):
        main(["check", str(folder), "--tokenizer", str(tmp_path / "absent")])


def test_check_groups_problems_of_one_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_catalog(tmp_path / "tiny", products=60, missing=False)
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        if number:
            row.pop("split")
        row["image"] = f'images/no "{number}".png' if number < 20 else row["image"]
        row["sensitive"] = number if number > 57 else False
    for number in (30, 31, 32, 33, 34):
        damage_image(folder, f"images/p{number}.png")
    write_lines(folder / "products.jsonl", rows)
    (folder / "queries.jsonl").unlink()
    (folder / "clicks.jsonl").unlink()
    assert main(["check", str(folder)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[:10] == [
        *(
            f'products.jsonl:{n + 1}: image: "images/no \\"{n}\\".png" is not in the catalog, expected a file '
            "inside the catalog"
            for n in (0, 1, 2)
        ),
        "products.jsonl: ... 17 more like these, 20 in all",
        "products.jsonl:59: sensitive: found 58, expected true or false",
        "products.jsonl:60: sensitive: found 59, expected true or false",
        'products.jsonl:2: split: missing, expected one of "train", "val", "test", or no split in any line '
        "(59 lines: 2, 3, 4, ...)",
        lines[7],
        lines[8],
        lines[9],
    ]
    assert "products.jsonl:31: image: images/p30.png: damaged image" in lines[7]
    assert lines[10] == "products.jsonl: ... 2 more like these, 5 in all" and ": 86 problems, " in lines[-1]


def test_check_of_a_valid_catalog_reports_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_catalog(tmp_path / "tiny", zipped=True)
    assert main(["check", str(path)]) == 0
    assert f"{path}: no problems" in capsys.readouterr().out


def test_describe_prints_counts_lengths_coverage_and_unreadable_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_catalog(tmp_path / "tiny", products=24, queries=8)
    damage_image(folder, "images/p1.png")
    (folder / "images/p2.png").unlink()
    out = tmp_path / "sheet.png"
    assert main(["describe", str(folder), "--out", str(out)]) == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "tiny: 24 products (train 15, val 5, test 4)" in text
    assert "train 15 1 2 15" in text  # count, no title, no image, groups
    assert "titles, words 4 4 4 4" in text
    assert "titles, characters 19" in text
    assert "colour 100.0% 2 text" in text
    assert "lang zh 2" in text
    assert "missing or unreadable images: 2" in text and "products.jsonl:2: image: images/p1.png: damaged" in text
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"


def test_an_unreadable_image_is_one_problem(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", missing=False)
    (folder / "images/p0.png").write_bytes(b"")
    damage_image(folder, "images/p1.png")
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text().splitlines()]
    rows[2]["image"] = rows[1]["image"]  # shared
    rows[3]["image"] = "images\\p3.png"
    (folder / "images\\p3.png").write_bytes(b"")
    write_lines(folder / "products.jsonl", rows)
    clicks = [{"query": "a: image: b", "product": ": image: "}]
    write_lines(folder / "clicks.jsonl", clicks)
    catalog, problems, warnings = check(folder)
    assert [place for place, _ in problems.kept if place.startswith("products")] == [
        f"products.jsonl:{line}" for line in (1, 4, 2, 3)
    ]
    text = describe(catalog, problems, warnings)
    assert "missing or unreadable images: 3\n" in text and "other problems: 1;" in text


def test_products_without_the_required_image_are_counted_one_by_one(tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": "x", "image": image, "split": "test"} for i, image in enumerate([None, None, 3, 3])]
    write_lines(tmp_path / "products.jsonl", rows)
    (tmp_path / "catalog.json").write_text('{"hide_title": true}')
    assert "missing or unreadable images: 4\n" in describe(*check(tmp_path))


def test_describe_counts_positives_and_queries_without_one(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=60)
    rows = [{"qid": f"q{i}", "text": "x", "split": "val", "rel": {f"p{k}": 3 for k in range(i)}} for i in range(5)]
    write_lines(folder / "queries.jsonl", [{**rows[0], "rel": {"p0": 2}}, *rows[1:]])  # 2 is not relevant
    text = describe(*check(folder))
    assert "  val                                 5        0        2        3        4      1" in text


def test_describe_counts_what_the_pool_excludes(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=60)
    assert "left out of evaluation" not in describe(*check(folder))
    row = {"qid": "q", "text": "x", "split": "val", "rel": {"p0": 3, "p1": 3, "p4": 1}}  # train, train, test
    write_lines(folder / "queries.jsonl", [row, {**row, "qid": "r", "rel": {"p3": 3}}])
    expected = 'left out of evaluation: pool: "split" excludes 3 judgements of products of other splits, and 1 of 2 '
    assert expected in describe(*check(folder))
    info = json.loads((folder / "catalog.json").read_text())
    (folder / "catalog.json").write_text(json.dumps(info | {"pool": "all"}))
    assert "left out of evaluation" not in describe(*check(folder))


def test_sensitive_products_are_not_in_the_contact_sheet(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny", products=20, missing=False)
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text().splitlines()]
    for row in rows[:15]:
        row["sensitive"] = True
    write_lines(folder / "products.jsonl", rows)
    catalog = Catalog.load(folder)
    assert contact_sheet(catalog, tmp_path / "sheet.png") == 5
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 20) or []}
    assert (255, 0, 0) not in colours  # the first fifteen are red, the others green


def test_a_catalog_without_images_has_no_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "x" * 500, "split": "train"}])
    assert main(["describe", str(tmp_path), "--out", str(tmp_path / "sheet.png")]) == 0
    assert "no contact sheet" in capsys.readouterr().out
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("command", ["describe", "keywords"])
def test_a_url_as_output_is_rejected_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^s3://shop/file is a URL, expected a path \(.*\); copy the file there$"):
        main([command, "--out", "s3://shop/file"])
    assert not list(tmp_path.iterdir())


def test_describe_writes_nothing_unless_a_sheet_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_catalog(tmp_path / "tiny", products=3, missing=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["describe", str(folder)]) == 0
    assert "positives of a judged query" in capsys.readouterr().out
    (folder / "queries.jsonl").unlink()
    assert main(["describe", str(folder)]) == 0
    assert "positives of a judged query" not in capsys.readouterr().out  # not a header without rows
    assert not list((tmp_path / "here").iterdir())


def test_commands_reject_a_missing_catalog(tmp_path: Path) -> None:
    for command in ("check", "describe", "build"):
        with pytest.raises(InputError, match=r"not found, expected a catalog folder or .zip"):
            main([command, str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as caught:
        main(["chekc"])
    assert caught.value.code == 2
