"""Attributes of products: which keys, which values, and how results show them."""

import json
from pathlib import Path
from typing import Any

import pytest

from make_jax.catalog.attributes import attribute_texts, format_attributes, value_kind
from make_jax.catalog.reader import Catalog
from make_jax.errors import InputError
from tests.tiny_catalog import write_catalog, write_lines


def set_info(folder: Path, **values: Any) -> None:
    (folder / "catalog.json").write_text(json.dumps(values), encoding="utf-8")


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        Catalog.load(path)
    return str(caught.value)


def test_attributes_are_the_named_keys_of_all_products(tmp_path: Path) -> None:
    folder = write_catalog(tmp_path / "tiny")
    rows = [json.loads(line) for line in (folder / "products.jsonl").read_text().splitlines()]
    rows[1]["colour"] = None
    write_lines(folder / "products.jsonl", rows)
    catalog = Catalog.load(folder)
    assert catalog.products[0].attributes == {"colour": "red", "category": "circle"}  # the most specific level
    assert catalog.products[1].attributes == {"category": "circle"}
    held_out = [product for product in catalog.products if product.split != "train"]
    assert len(held_out) == 9 and all(set(product.attributes) == {"colour", "category"} for product in held_out)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (19.99, 19.99),
        (20.0, 20.0),
        (3, 3),
        (10**30, 10**30),
        (True, True),
        (False, False),
        (0, 0),
        (" S\u200b", "S"),
        (["S", " M ", 44, 44.5, "", None], ("S", "M", 44, 44.5)),
        ([], None),
        (["\u200b"], None),
        ("", None),
        (None, None),
    ],
)
def test_an_attribute_is_kept_as_what_it_is(tmp_path: Path, value: Any, kept: Any) -> None:
    rows = [{"id": split, "title": "x", "split": split, "size": value} for split in ("train", "val", "test")]
    write_lines(tmp_path / "products.jsonl", rows)
    set_info(tmp_path, attributes=["size"])
    values = [product.attributes.get("size") for product in Catalog.load(tmp_path).products]
    assert values == [kept] * 3 and {type(each) for each in values} == {type(kept)}


@pytest.mark.parametrize("value", [{"a": 1}, [["S"]], [True], float("nan"), [float("inf")]])
def test_a_nested_attribute_or_one_that_is_no_number_is_a_problem(tmp_path: Path, value: Any) -> None:
    write_lines(tmp_path / "products.jsonl", [{"id": "a", "title": "x", "split": "test", "size": value}])
    set_info(tmp_path, attributes=["size"])
    expected = "expected a string, a number, true or false, or a list of strings and numbers"
    assert message(tmp_path) == f"{tmp_path}: products.jsonl:1: size: found {json.dumps(value)}, {expected}"


@pytest.mark.parametrize("key", ["dropped", "tier", "sensitive", "group", "split", "title"])
def test_reserved_keys_cannot_be_attributes(tmp_path: Path, key: str) -> None:
    folder = write_catalog(tmp_path / "tiny")
    set_info(folder, attributes=["colour", key])
    assert f'catalog.json: attributes: "{key}" cannot be an attribute' in message(folder)


def test_texts_are_found_in_lists_too() -> None:
    attributes = {"colour": "red", "price": 1.5, "new": True, "sizes": ("S", 44, "M")}
    assert list(attribute_texts(attributes)) == [("colour", "red"), ("sizes", "S"), ("sizes", "M")]
    assert [value_kind(value) for value in attributes.values()] == ["text", "number", "true or false", "list"]


def test_attributes_are_shown_in_one_line() -> None:
    attributes = {"brand": "Nike", "price": 19.99, "stock": 20, "new": True, "sizes": ("S", 44.5)}
    assert format_attributes(attributes) == "brand: Nike · price: 19.99 · stock: 20 · new: true · sizes: S, 44.5"
    assert format_attributes({}) == ""
