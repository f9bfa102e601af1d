"""Training pairs from titles, attributes and categories."""

import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.build import build
from make_jax.catalog.derived_queries import LENGTHS, QUERIES_PER_PRODUCT, derive_queries, training_catalog
from make_jax.catalog.keywords import normalize_text
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from tests.tiny_catalog import write_catalog, write_lines

ADJECTIVES, MATERIALS, NOUNS = ("Vintage", "Slim", "Soft"), ("Leather", "Cotton"), ("Boots", "Jacket", "Scarf", "Belt")
COLORS, BRANDS = ("Red", "Navy Blue", "Green", "Black"), ("Zenda", "Olmo")


def shop(path: Path, edit: Callable[[list[dict[str, Any]]], None] = lambda rows: None, **info: Any) -> Path:
    """A catalog of 192 products without clicks; every fourth is in the split val or test, under other nouns."""
    rows = []
    for number in range(192):
        color, brand = COLORS[number % 4], BRANDS[number // 4 % 2]
        adjective, material, noun = ADJECTIVES[number % 3], MATERIALS[number // 8 % 2], NOUNS[number // 16 % 4]
        split = ("train", "train", "train", "val", "train", "train", "train", "test")[number // 4 % 8]
        noun = noun if split == "train" else f"{split}word"
        title = f"{brand} {adjective} {material} {color} {noun} for Women, {number} cm"
        row = {"id": f"p{number}", "title": title, "split": split, "category": ["Fashion", noun]}
        rows.append(row | {"color": color, "brand": brand, "year": "2012", "waterproof": True})
    edit(rows)
    path.mkdir()
    write_lines(path / "products.jsonl", rows)
    info = {"attributes": ["color", "brand", "year", "waterproof", "category"]} | info
    (path / "catalog.json").write_text(json.dumps(info), encoding="utf-8")
    return path


def pairs(path: Path, seed: int = 0) -> list[tuple[str, str]]:
    return [(click.query, click.product) for click in derive_queries(Catalog.load(path), seed)]


def test_queries_are_deterministic_in_the_seed(tmp_path: Path) -> None:
    path = shop(tmp_path / "shop")
    assert pairs(path) == pairs(path)
    assert pairs(path, seed=1) != pairs(path)


def test_queries_of_a_product_do_not_depend_on_the_order(tmp_path: Path) -> None:
    plain, reversed_rows = shop(tmp_path / "a"), shop(tmp_path / "b", lambda rows: rows.reverse())
    assert sorted(pairs(plain)) == sorted(pairs(reversed_rows))


def test_products_of_val_and_test_and_judged_queries_are_not_read(tmp_path: Path) -> None:
    def without_others(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["split"] == "train"]

    path = shop(tmp_path / "all")
    write_lines(path / "queries.jsonl", [{"qid": "q", "text": "xylophone", "split": "test", "rel": {"p28": 3}}])
    found = pairs(path)
    assert found == pairs(shop(tmp_path / "train", without_others))
    split = {product.id: product.split for product in Catalog.load(path).products}
    assert {split[product] for _, product in found} == {"train"}
    assert not any("testword" in query or "valword" in query or "xylo" in query for query, _ in found)


def test_lengths_have_the_documented_proportions(tmp_path: Path) -> None:
    found = pairs(shop(tmp_path / "shop"))
    assert len(found) == 144 * QUERIES_PER_PRODUCT
    counts = Counter(len(query.split()) for query, _ in found)
    assert {length: counts[length] / len(found) for length in LENGTHS} == pytest.approx(LENGTHS, abs=0.02)
    assert sum(LENGTHS.values()) == pytest.approx(1) and set(counts) == set(LENGTHS)


def test_queries_are_nouns_attribute_combinations_and_shortened_spans(tmp_path: Path) -> None:
    path = shop(tmp_path / "shop")
    titles = {product.id: normalize_text(product.title) for product in Catalog.load(path).products}
    found = pairs(path)
    single = Counter(query for query, _ in found if " " not in query)
    assert sum(single[noun.lower()] for noun in NOUNS) / single.total() > 0.4  # one of ten words of a title
    assert {"navy blue boots", "red boots", "zenda boots"} <= {query for query, _ in found}
    inside = [query in titles[product] for query, product in found if len(query.split()) > 2]
    assert 0.1 < sum(inside) / len(inside) < 0.9  # spans of the title, and what is no span of it
    for query, product in found:
        words = set(query.split())
        assert words <= {*titles[product].split(), "fashion"}
        assert query == query.strip() and not words & {"for", "cm,", "2012", "yes"} and not query.isdigit()


def test_lists_of_texts_are_values_and_numbers_are_not(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"color": ["Crimson", 7], "brand": 5.5, "title": "Scarf", "category": []}

    words = {word for query, _ in pairs(shop(tmp_path / "shop", change)) for word in query.split()}
    assert words == {"crimson", "scarf"}


def test_no_query_is_empty_whatever_the_titles(tmp_path: Path) -> None:
    titles = ["", "★", "42", "X", "-", "the", "MTP-1303D", "红色连衣裙", "กางเกงยีนส์", "हरी शर्ट", "A" * 5000, "of the"]

    def change(rows: list[dict[str, Any]]) -> None:
        for row, title in zip(rows, titles, strict=False):
            row["title"], row["split"] = title, "train"
            row["category"], row["color"], row["brand"] = ["Uncategorized", "N/A"], "", "☆"
            row["image"] = "x.png"

    path = tmp_path / "shop"
    with_image = shop(path, change)
    (with_image / "x.png").write_bytes(b"not decoded here")
    found = pairs(with_image)
    assert all(normalize_text(query) for query, _ in found)
    described = {product for _, product in found}
    assert {f"p{number}" for number in (2, 3, 5, 6, 7, 8, 9, 10)} <= described
    assert not described & {"p0", "p1", "p4"}  # nothing to derive from


def test_chinese_queries_are_words_of_titles_without_spaces(tmp_path: Path) -> None:
    colors, kinds = ("红色", "黑色", "白色", "蓝色"), ("连衣裙", "运动鞋", "牛仔裤", "衬衫")

    def change(rows: list[dict[str, Any]]) -> None:
        del rows[32:]
        for number, row in enumerate(rows):
            color, kind = colors[number % 4], kinds[number // 4 % 4]
            row |= {"title": f"{color}{kind} 女士" if number < 16 else f"女士 {kind}{color}", "split": "train"}
            row |= {"color": "", "brand": "", "category": []}

    found = Counter(query for query, _ in pairs(shop(tmp_path / "shop", change)))
    words = {*colors, *kinds, "女士"}
    assert {query for query in found if len(query) <= 3 and " " not in query} <= words
    assert any(color + kind in found for color in colors for kind in kinds)
    assert not any(" " in query for query in found if "女士" not in query)


def test_training_catalog_selects_the_pairs_and_tells_builds_apart(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "tiny")
    clicks, derived, both = (training_catalog(path, queries, 3) for queries in ("clicks", "derived", "both"))
    assert clicks.clicks == Catalog.load(path).clicks
    assert both.clicks == [*clicks.clicks, *derived.clicks] and len(derived.clicks)
    assert clicks.digest == derived.digest == both.digest == Catalog.load(path).digest
    other = training_catalog(path, "derived", 4)
    built = [build(catalog, str(tmp_path / "cache")) for catalog in (clicks, derived, both, other)]
    assert len({each.folder for each in built}) == 1  # products and images are stored once
    for each, catalog in zip(built, (clicks, derived, both, other), strict=True):
        reopened = pickle.loads(pickle.dumps(each))
        assert reopened.clicks == catalog.clicks
        ids = [reopened.split_products("train")[position].id for position in reopened.clicked()]
        assert ids == [click.product for click in catalog.clicks]
    assert built[0].folder.name == f"tiny-{clicks.digest[:16]}"  # as before there were derived queries


def test_nothing_to_derive_from_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        del rows[1:]
        rows[0] = {"id": "1", "image": "x.png", "split": "train"}

    path = shop(tmp_path / "shop", change)
    (path / "x.png").write_bytes(b"not decoded here")
    with pytest.raises(InputError, match=r"data\.queries is 'derived', but nothing to derive queries from; expected"):
        training_catalog(path, "derived", 0)
