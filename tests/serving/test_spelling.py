"""Words that neither a product nor the tokenizer has are replaced by a word of the products at one edit."""

import jax
import numpy as np
import pytest

from make_jax.model.make import Make
from make_jax.retrieval.retriever import Retriever
from make_jax.serving.spelling import Spelling
from tests.interop.exports import MODELS, random_params, tiny_bundle
from tests.retrieval.fake_encoder import FakeEncoder

PRODUCTS_WITH = {
    "running": 40, "shoes": 90, "shoe": 30, "shops": 5, "white": 20, "watches": 9, "with": 3, "rare": 2, "крем": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    """A model whose tokenizer has "shirt" and "dress" undivided."""
    bundle = tiny_bundle(MODELS["fashion"])
    keywords, config = bundle.keywords, bundle.config
    model = Make(config.model, config.inputs, bundle.tokenizer.vocab_size, len(keywords), keywords.exclusion_groups)
    return Retriever(model, jax.tree.map(np.asarray, random_params(bundle)), bundle.tokenizer, keywords)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("red runing shoes", "red running shoes"),  # missing
        ("running shoess", "running shoes"),  # more; "shoe" is two edits away
        ("wjite", "white"),  # another
        ("WHTIE  shoes!", "white  shoes!"),  # swapped
        ("rnunnig", ""),  # two edits
        ("yunning", ""),  # the first letter stays
        ("shoos", "shoes"),  # of more products than "shops"
        ("rarw", ""),  # of two products alone
        ("shirs", ""),  # "shirt" is a token, but no product has it
        ("shirt dress", ""),  # tokens
        ("withh", "with"),
        ("shoe-s shoess2 sho it's", ""),  # parts of words, numbers, short words
        ("红色runing", ""),  # scripts without spaces
        ("кремм", "крем"),
        ("", ""),
        ("a b c d e f g h i runing", "a b c d e f g h i running"),
        ("a b c d e f g h i j runing", ""),  # more than 10 words
    ],
)
def test_a_misspelled_word_is_replaced(retriever, typed, expected):
    assert Spelling(retriever, lambda: PRODUCTS_WITH).correct(typed) == expected


def test_the_words_of_the_products_are_read_only_for_an_unknown_word_and_once(retriever):
    reads = []
    spelling = Spelling(retriever, lambda: reads.append(1) or PRODUCTS_WITH)
    assert spelling.correct("red shirt") == "" and reads == []
    assert spelling.correct("runing") == spelling.correct("runnning") == "running" and reads == [1]


def test_queries_of_a_model_with_another_tokenizer_are_not_corrected():
    assert Spelling(FakeEncoder(), lambda: PRODUCTS_WITH).correct("runing") == ""
