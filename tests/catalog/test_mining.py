"""Keyword mining on small synthetic catalogs, and the `keywords` command."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.__main__ import main
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from tests.tiny_catalog import write_catalog, write_lines

COLOURS = {"Red": ("red", "红色"), "Blue": ("blue", "蓝色"), "Maroon": ("wine red", "酒红色")}
TYPES = {"Shirts": ("shirt", "衬衫"), "Formal Shoes": ("dress shoes", "皮鞋"), "Dresses": ("dress", "裙子")}
EACH = 8  # products of a colour and a type


def write_shop(folder: Path, clicks: Iterable[tuple[str, str, str]] = (), *, attributes: bool = True) -> Path:
    """Writes products of every color and type, and clicks in two languages with the color first and last.

    Each of the given clicks, (query, color, type) with "" for any, is on all matching products.
    """
    products = [
        {"id": f"{colour}-{kind}-{i}".replace(" ", ""), "title": f"{colour} {kind} no {i}", "split": "train"}
        | {"colour": colour, "category": ["Apparel", kind]}
        for colour in COLOURS
        for kind in TYPES
        for i in range(EACH)
    ]
    queries: list[tuple[str, str, str]] = list(clicks)
    for language in (0, 1):
        gap = " " if language == 0 else ""
        for kind, kinds in TYPES.items():
            queries.append((kinds[language], "", kind))
            for colour, colours in COLOURS.items():
                queries.append((colours[language] + gap + kinds[language], colour, kind))
                queries.append((kinds[language] + (" in " if gap else "") + colours[language], colour, kind))
    rows = [
        {"query": query, "product": product["id"]}
        for query, colour, kind in queries
        for product in products
        if colour in ("", product["colour"]) and kind in ("", product["category"][1])
    ]
    folder.mkdir(parents=True)
    write_lines(folder / "products.jsonl", products)
    write_lines(folder / "clicks.jsonl", rows)
    info = {"attributes": ["colour", "category"]} if attributes else {}
    (folder / "catalog.json").write_text(json.dumps(info))
    return folder


def drop_colours(folder: Path) -> None:
    """Removes the color of every second title and adds other products, so that no word is in most titles."""
    products = [json.loads(line) for line in (folder / "products.jsonl").read_text(encoding="utf-8").splitlines()]
    for product in products[::2]:
        product["title"] = product["title"].removeprefix(product["colour"])
    others = [{"id": f"m{i}", "title": f"Cap no {i}", "category": [], "split": "train"} for i in range(200)]
    write_lines(folder / "products.jsonl", products + others)


def names(folder: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    """Keyword -> its names."""
    return {str(keyword): keyword.names for keyword in mine_keywords(Catalog.load(folder), **options).keywords}


def test_synonyms_and_both_languages_are_found_and_nothing_else(tmp_path: Path) -> None:
    assert names(write_shop(tmp_path / "shop")) == {
        "colour:Red": ("red", "红色"),
        "colour:Blue": ("blue", "蓝色"),
        "colour:Maroon": ("maroon", "wine red", "酒红色"),  # contains "red" in both languages
        "category:Shirts": ("shirt", "shirts", "衬衫"),
        "category:Formal Shoes": ("dress shoes", "formal shoes", "皮鞋"),  # not dresses
        "category:Dresses": ("dress", "dresses", "裙子"),
    }


def test_a_word_is_a_synonym_only_if_nearly_all_clicked_products_have_the_value(tmp_path: Path) -> None:
    clicks = [("scarlet", "Red", ""), ("cheap", "", ""), ("dark", "Blue", ""), ("dark", "Maroon", "")]
    clicks += [("smart", "", "Shirts"), ("smart", "", "Formal Shoes")]
    mined = names(write_shop(tmp_path / "shop", clicks))
    assert mined["colour:Red"] == ("red", "scarlet", "红色")
    assert not {"cheap", "dark", "smart"} & {name for names in mined.values() for name in names}


def test_a_synonym_needs_as_many_products_as_a_keyword(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop", [("scarlet", "Red", "Shirts")])
    assert "scarlet" in names(folder, min_products=EACH)["colour:Red"]
    assert "scarlet" not in names(folder, min_products=EACH + 1)["colour:Red"]


def test_a_compound_with_the_meaning_of_its_parts_is_dropped(tmp_path: Path) -> None:
    clicks = [("evening dress", "", "Dresses"), ("blue shirt for work", "Blue", "Shirts")]
    mined = names(write_shop(tmp_path / "shop", clicks))
    assert mined["category:Dresses"] == ("dress", "dresses", "裙子")
    assert mined["category:Shirts"] == ("shirt", "shirts", "衬衫") and mined["colour:Blue"] == ("blue", "蓝色")


def test_a_compound_with_another_meaning_than_its_parts_is_a_name(tmp_path: Path) -> None:
    clicks = [("shoes", "", "Formal Shoes"), ("shoes", "", "Shirts"), ("shoes in red", "Red", "")]
    mined = names(write_shop(tmp_path / "shop", clicks))
    assert mined["category:Formal Shoes"] == ("dress shoes", "formal shoes", "皮鞋")  # not "shoes": shirts, too
    assert mined["category:Dresses"] == ("dress", "dresses", "裙子")


def test_the_rarest_keywords_are_dropped(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop")
    assert len(names(folder, max_keywords=4)) == 4
    assert names(folder, min_products=3 * EACH + 1) == {}
    for wrong in ({"min_products": 0}, {"max_keywords": 0}):
        with pytest.raises(InputError, match="0, expected 1 or more"):
            names(folder, **wrong)


def test_words_are_found_if_queries_always_have_the_same_order(tmp_path: Path) -> None:
    mined = names(write_catalog(tmp_path / "tiny", products=60))
    assert mined["colour:red"] == ("red", "红色") and mined["category:triangle"] == ("triangle", "三角形")


@pytest.mark.parametrize("attributes", [True, False])
def test_only_training_products_and_clicks_are_read(tmp_path: Path, attributes: bool) -> None:
    folder = write_shop(tmp_path / "shop", attributes=attributes)
    drop_colours(folder)
    before = mine_keywords(Catalog.load(folder))
    others = [
        {"id": f"{split}{i}", "title": f"Blue shirt {i}", "colour": "Blue", "category": ["Hats"], "split": split}
        for split in ("val", "test")
        for i in range(30)
    ]
    with (folder / "products.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in others)
    judged = [{"qid": f"q{i}", "text": "violet hat", "split": "val", "rel": {f"val{i}": 3}} for i in range(30)]
    write_lines(folder / "queries.jsonl", judged)
    assert mine_keywords(Catalog.load(folder)) == before and len(before) > 0


def test_without_attributes_keywords_are_words_shared_by_queries_and_titles(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop")
    drop_colours(folder)
    mined = names(folder, attributes=False)
    assert mined == {"term:blue": ("blue", "蓝色"), "term:red": ("red", "红色")}
    (folder / "catalog.json").write_text("{}")
    assert names(folder) == mined  # no attributes are named


def test_texts_and_lists_of_texts_are_keywords_and_numbers_are_not(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop")
    before = mine_keywords(Catalog.load(folder))
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row |= {"price": 5, "sizes": [38, 39.5], "new": True}
    info = {"attributes": ["colour", "category", "price", "sizes", "new"]}
    write_lines(folder / "products.jsonl", rows)
    (folder / "catalog.json").write_text(json.dumps(info))
    assert mine_keywords(Catalog.load(folder)).to_json() == before.to_json()
    for row in rows:
        row["colour"] = [row["colour"], 5, "Bright"] if row["colour"] == "Red" else row["colour"]
    write_lines(folder / "products.jsonl", rows)
    catalog = Catalog.load(folder)
    mined = mine_keywords(catalog)
    red, bright = ({number for number, k in enumerate(mined.keywords) if k.name == name} for name in ("Red", "Bright"))
    assert red and bright
    product = next(product for product in catalog.products if product.attributes["colour"] == ("Red", 5, "Bright"))
    assert mined.attribute_keywords(product.attributes) >= red | bright


def test_attributes_without_a_text_leave_keywords_to_titles_and_clicks(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop")
    drop_colours(folder)
    mined = names(folder, attributes=False)
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text(encoding="utf-8").splitlines()]
    write_lines(folder / "products.jsonl", [row | {"price": 19.99} for row in rows])
    (folder / "catalog.json").write_text('{"attributes": ["price"]}')
    assert names(folder) == mined != {}


def test_the_vocabulary_does_not_depend_on_line_order_or_hash_seed(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "shop")
    before = mine_keywords(Catalog.load(folder)).to_json()
    for name in ("products.jsonl", "clicks.jsonl"):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        random.shuffle(lines)
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "make_jax.catalog", "keywords", str(folder), "--out", str(tmp_path / "k.json")]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True)
    assert (tmp_path / "k.json").read_text(encoding="utf-8") == before


def test_the_command_writes_the_vocabulary_and_shows_validation_queries_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shop(tmp_path / "shop")
    with (folder / "products.jsonl").open("a", encoding="utf-8") as file:
        rows = [{"id": f"v{i}", "title": f"Blue shirt {i}", "split": "val"} for i in range(3)]
        file.writelines(json.dumps(row) + "\n" for row in rows)
    relevant = {"v0": 3, "v1": 3, "v2": 3}
    judged = [
        {"qid": "a", "text": "warm shirt", "split": "val", "rel": relevant},
        {"qid": "b", "text": "红色|衬衫", "split": "val", "rel": {"v0": 3, "v1": 3}},
        {"qid": "c", "text": "secret", "split": "test", "rel": {}},
    ]
    write_lines(folder / "queries.jsonl", judged)
    out = tmp_path / "made" / "keywords.json"
    assert main(["keywords", str(folder), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"{out}: 6 keywords (category 3, colour 3), 16 names" in text
    assert "| warm shirt | category:Shirts | warm | colour:Blue |" in text
    assert "| 红色/衬衫 | category:Shirts, colour:Red |  |  |" in text
    assert "secret" not in text
    assert KeywordVocabulary.from_json(out.read_text(encoding="utf-8"), "x") == mine_keywords(Catalog.load(folder))
    assert main(["keywords", str(folder), "--no-attributes", "--show", "0", "--out", str(out)]) == 0
    assert "query" not in capsys.readouterr().out
