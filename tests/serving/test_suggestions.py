"""Suggestions are words of titles, attribute values and categories, and each has a product."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from make_jax.catalog.keywords import normalize_text
from make_jax.catalog.schema import Product
from make_jax.serving import suggestions
from make_jax.serving.suggestions import Suggestions, sample

TITLES = [
    ("Nike Red Running Shoes", "Nike"),
    ("Nike Red Running Shoes for Women", "Nike"),
    ("Nike Blue Running Shorts", "Nike"),
    ("Puma Red T-Shirt, size 42", "Puma"),
    ("Puma Red T-Shirt", "Puma"),
    ("Puma Black Shirt", "Puma"),
    ("Cheap Red Shirt", "Royal Blue"),
    ("红色T恤 男", "耐克"),
    ("红色T恤 女", "耐克"),
    ("红色T恤 童", "耐克"),
    ("蓝色T恤", "耐克"),
    ("红色连衣裙", "耐克"),
    ("", "Untitled"),
]
WORDS = ["red", "nike", "puma", "sh", "t", "红", "blue", "royal"]
PRODUCTS = [
    Product(f"p{i}", title, None, None, ("clothing", "tops"), None, {"brand": brand, "price": 9.5})
    for i, (title, brand) in enumerate(TITLES)
]


@pytest.fixture(scope="module")
def made() -> Suggestions:
    return Suggestions(PRODUCTS)


def test_the_most_frequent_come_first(made):
    assert made.suggest("r", 10)[0] == "red"
    assert made.suggest("n", 10)[:2] == ["nike", "nike red"]
    assert made.suggest("run", 10)[:2] == ["running", "running shoes"]
    assert made.suggest("RED  RUN", 2) == ["red running", "red running shoes"]
    assert made.suggest("red ", 9) == ["red running", "red running shoes", "red t-shirt"]  # not "red" itself


def test_words_of_one_title_sizes_and_function_words_are_not_suggested(made):
    shown = {text for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for text in made.suggest(letter, 99)}
    assert "cheap" not in shown and "for" not in shown and not {text for text in shown if "42" in text}
    assert {"royal blue", "untitled", "clothing", "tops", "puma red t-shirt"} <= shown  # values of a single product


def test_words_are_continued_by_products_that_have_them(made):
    assert made.suggest("puma sh", 5) == ["puma shirt"]  # "puma black shirt" has both
    assert made.suggest("nike shorts", 5) == []  # "shorts" is in one title
    assert made.suggest("royal blue re", 5)[0] == "royal blue red"  # an attribute and a title
    assert made.suggest("blue pu", 5) == []  # no product has both


def test_scripts_without_spaces_are_split_into_words(made):
    assert made.suggest("红", 5)[0] == "红色t恤"
    assert made.suggest("红色t", 5)[0] == "红色t恤" and made.suggest("耐", 5) == ["耐克"]


def test_nothing_is_suggested_for_nothing(made):
    for text in ("", "   ", "!?", "zzz", "\ud800"):
        assert made.suggest(text, 5) == []
    assert made.suggest("red", 0) == []
    assert Suggestions([]).suggest("red", 5) == []


@hypothesis.given(
    st.lists(st.sampled_from(["red", "nike", "puma", "sh", "t", "红", "blue", "royal"]), max_size=4), st.booleans()
)
def test_every_suggestion_has_a_product_and_continues_the_text(made, words, space):
    typed = " ".join(words) + " " * space
    for text in made.suggest(typed, 20):
        key = normalize_text(text)
        assert key.startswith(normalize_text(typed))
        assert any(has_all(product, key.split()) for product in PRODUCTS), text


def has_all(product: Product, words: list[str]) -> bool:
    text = normalize_text(" ".join([product.title, product.attributes["brand"], *product.category]))
    return all(word in text for word in words)


def test_of_many_products_every_nth_is_read(monkeypatch):
    monkeypatch.setattr(suggestions, "MAX_PRODUCTS", 4)
    live = np.array([0, 2, 4, 5, 6, 8, 9], np.int32)
    assert [product.id for product in sample(PRODUCTS, live)] == ["p0", "p4", "p6", "p9"]
