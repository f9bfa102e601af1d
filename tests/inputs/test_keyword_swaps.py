"""Queries with one keyword replaced."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from make_jax.catalog.keywords import Keyword, KeywordVocabulary
from make_jax.inputs.keyword_swaps import KeywordSwapper

NAMES = {
    "colour": {"red": ("red", "红色"), "blue": ("blue", "蓝色"), "navy": ("navy blue", "藏青"), "green": ("green",)},
    "type": {"shoes": ("shoes", "鞋"), "shirt": ("shirt", "shirts", "衬衫"), "bag": ("bag", "包")},
    "brand": {"acme": ("acme",)},
}
VOCABULARY = KeywordVocabulary(
    tuple(
        Keyword(kind, name, names, 1 + number)
        for kind, keywords in NAMES.items()
        for number, (name, names) in enumerate(keywords.items())
    )
)
WORDS = [name for keywords in NAMES.values() for names in keywords.values() for name in names] + ["cheap", "new", "的"]


def swaps(query: str, held: set[int], draws: int = 20) -> list[str | None]:
    """Draws for a product that has the keywords `held`."""
    swapper = KeywordSwapper(VOCABULARY, [query], VOCABULARY.pack([held]))
    return [swapper.swap(0, 0, np.random.default_rng(seed)) for seed in range(draws)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    words=st.lists(st.sampled_from(WORDS), max_size=4),
    held=st.frozensets(st.integers(0, len(VOCABULARY) - 1), max_size=4),
)
def test_swap_replaces_one_keyword_by_one_of_its_type_that_the_product_lacks(words, held):
    query = " ".join(words)
    before = VOCABULARY.tag(query)
    for swapped in swaps(query, set(held), 4):
        if swapped is not None:
            after = VOCABULARY.tag(swapped)
            (new,) = after - before
            assert new not in held
            kinds = [VOCABULARY.keywords[k].kind for k in before]
            assert VOCABULARY.keywords[new].kind in kinds
            assert not after <= held  # so the product is no answer to it
            assert len(before - after) <= 1


def test_swap_keeps_the_script_of_the_replaced_keyword():
    assert {text for text in swaps("红色 鞋", {0, 4}) if text} <= {"蓝色 鞋", "藏青 鞋", "红色 衬衫", "红色 包"}
    latin = {text for text in swaps("red shoes", {0, 4}, 60) if text}
    assert latin == {"blue shoes", "navy blue shoes", "green shoes", "red shirt", "red shirts", "red bag"}


def test_more_frequent_keywords_are_drawn_more_often():
    drawn = swaps("red thing", {0}, 400)
    assert drawn.count("green thing") > drawn.count("blue thing") > 0


@pytest.mark.parametrize("query", ["cheap thing", "", "acme"])
def test_query_without_a_replaceable_keyword_has_no_swap(query):
    assert set(swaps(query, set())) == {None}


def test_no_swap_when_the_product_has_all_keywords():
    assert set(swaps("red shoes", set(range(len(VOCABULARY))))) == {None}


def test_empty_vocabulary_swaps_nothing():
    vocabulary = KeywordVocabulary(())
    swapper = KeywordSwapper(vocabulary, ["red"], vocabulary.pack([set()]))
    assert swapper.swap(0, 0, np.random.default_rng(0)) is None


def test_swapper_can_be_pickled():
    swapper = KeywordSwapper(VOCABULARY, ["red shoes"], VOCABULARY.pack([{0}]))
    again = pickle.loads(pickle.dumps(swapper))
    assert again.swap(0, 0, np.random.default_rng(1)) == swapper.swap(0, 0, np.random.default_rng(1)) is not None
