"""What masked modelling hides: how much, of what, and that nothing else of a batch changes by it."""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from make_jax.catalog.build import BuiltCatalog, build
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.config import DataConfig, InputsConfig
from make_jax.errors import InputError
from make_jax.inputs.batch import Batch
from make_jax.inputs.masking import Masker, max_masked_tokens, num_masked_patches
from make_jax.inputs.tokenizer import SPECIAL_TOKENS, Tokenizer, train_wordpiece
from make_jax.inputs.train_pipeline import train_batches
from tests.tiny_catalog import write_catalog

INPUTS = InputsConfig(max_query_tokens=6, max_title_tokens=8, image_height=16, image_width=24)
MASK = SPECIAL_TOKENS.index("[MASK]")


@cache
def tokenizer() -> Tokenizer:
    return train_wordpiece(["red circle number", "green square", "a blue triangle"] * 2, 60)


def drawn(length: int, words: int, times: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens [length], of which the first and the last of `words` + 2 are special; shown and labels [times, length]."""
    tokens = np.full(length, SPECIAL_TOKENS.index("[UNK]"), np.int32)  # padding may look like anything
    tokens[1 : words + 1] = 5 + np.arange(words) % (tokenizer().vocab_size - 5)
    tokens[0], tokens[words + 1] = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
    masker = Masker(tokenizer(), INPUTS, tokens=True, patch_size=0)
    numbers = np.random.default_rng(0).random((times, 1 + 3 * length))
    mask = np.broadcast_to(np.arange(length) < words + 2, (times, length))
    return tokens, *masker.mask_tokens(np.broadcast_to(tokens, (times, length)), mask, numbers)


def test_15_percent_are_predicted_of_which_80_10_10_are_masked_random_unchanged() -> None:
    tokens, shown, labels = drawn(length=40, words=30, times=1000)
    chosen = labels >= 0
    assert abs(chosen[:, 1:31].mean() - 0.15) < 0.005  # 4.5 a text: 4 or 5
    assert set(chosen.sum(axis=1).tolist()) == {4, 5}
    assert abs((shown[chosen] == MASK).mean() - 0.8) < 0.03
    text = np.broadcast_to(tokens, shown.shape)
    # A random token is sometimes the original one.
    assert abs((shown[chosen] == text[chosen]).mean() - 0.1) < 0.03
    assert set(shown[chosen].tolist()) == {MASK, *range(5, tokenizer().vocab_size)}  # never another special token


def test_special_tokens_and_padding_are_never_masked_and_other_tokens_stay() -> None:
    tokens, shown, labels = drawn(length=12, words=6, times=200)
    text = np.broadcast_to(tokens, shown.shape)
    assert (labels[:, [0, *range(7, 12)]] == -1).all() and (labels[:, 1:7] >= 0).any(axis=0).all()
    np.testing.assert_array_equal(np.where(labels >= 0, labels, text)[:, :8], text[:, :8])
    np.testing.assert_array_equal(shown[labels < 0], np.where(np.arange(12) < 8, text, 0)[labels < 0])


def test_between_one_token_and_the_maximum_is_predicted_if_the_text_has_any() -> None:
    assert (drawn(length=6, words=1, times=20)[2] >= 0).sum(axis=1).tolist() == [1] * 20
    assert (drawn(length=6, words=0, times=2)[2] == -1).all()
    for length in (6, 20, 40):
        most = (drawn(length, length - 2, 100)[2] >= 0).sum(axis=1).max()
        assert most <= max_masked_tokens(INPUTS, length)


def test_exactly_the_ratio_of_patches_is_masked_and_none_without_an_image() -> None:
    masker, rng = Masker(tokenizer(), INPUTS, tokens=False, patch_size=4), np.random.default_rng(0)
    batch = {"query_tokens": np.zeros((200, 6), np.int32), "title_tokens": np.zeros((200, 8), np.int32)}
    batch["has_image"] = np.arange(200) < 199
    added = masker.mask(batch, np.stack([masker.draw(rng) for _ in range(200)]))
    assert added.keys() == {"patch_mask"}
    masks = added["patch_mask"]
    assert masks.shape == (200, 24) and masks.sum(axis=1).tolist() == [10] * 199 + [0]  # 0.4 of 24 is 9.6
    assert num_masked_patches(INPUTS, 24) == 10 and num_masked_patches(INPUTS, 1) == 1
    assert np.abs(masks.mean(axis=0) - 10 / 24).max() < 0.15


def test_a_tokenizer_without_a_mask_token_is_an_input_error_that_names_the_setting() -> None:
    other = Tokenizer(tokenizer().definition.replace("[MASK]", "[HIDE]"))
    with pytest.raises(InputError, match=r"inputs\.tokenizer.*\[MASK\].*objectives\.mlm"):
        Masker(other, INPUTS, tokens=True, patch_size=0)
    Masker(other, INPUTS, tokens=False, patch_size=8)


# --- in batches ---


@dataclass
class Shop:
    """What batches are made of."""

    built: BuiltCatalog
    tokenizer: Tokenizer
    keywords: KeywordVocabulary

    def batches(self, steps: int, **settings: Any) -> list[Batch]:
        chosen: dict[str, Any] = {"batch_size": 16, "seed": 0, "mlm": True, "mpm_patch_size": 8} | settings
        parts = (self.built, self.tokenizer, self.keywords, INPUTS, DataConfig())
        iterator = train_batches(*parts, **chosen)
        try:
            return list(itertools.islice(iterator, steps))
        finally:
            iterator.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("masking")
    catalog = Catalog.load(write_catalog(folder / "tiny", products=40))
    texts = [product.title for product in catalog.split_products("train")]
    texts += [click.query for click in catalog.clicks]
    keywords = mine_keywords(catalog, attributes=True, max_keywords=100)
    return Shop(build(catalog, str(folder / "cache")), train_wordpiece(texts, 120), keywords)


def assert_equal(found: Batch, expected: Batch) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_masks_are_a_pure_function_of_seed_and_position(shop: Shop) -> None:
    batches = shop.batches(4)
    for found, expected in zip(shop.batches(2, start_step=2), batches[2:], strict=True):
        assert_equal(found, expected)
    halves = [shop.batches(1, process_index=i, process_count=2)[0] for i in range(2)]
    assert_equal({name: np.concatenate([half[name] for half in halves]) for name in batches[0]}, batches[0])
    assert not np.array_equal(batches[0]["patch_mask"], batches[1]["patch_mask"])


def test_masking_changes_nothing_else_in_a_batch_and_one_kind_not_the_other(shop: Shop) -> None:
    (plain,) = shop.batches(1, keyword_swaps=True, mlm=False, mpm_patch_size=0)
    (both,) = shop.batches(1, keyword_swaps=True)
    (patches,) = shop.batches(1, keyword_swaps=True, mlm=False)
    assert_equal({name: both[name] for name in plain}, plain)
    assert plain["swap_mask"].any()
    assert both.keys() - plain.keys() == {
        "query_masked", "query_labels", "title_masked", "title_labels", "patch_mask",
    }  # fmt: skip
    assert patches.keys() - plain.keys() == {"patch_mask"}
    np.testing.assert_array_equal(patches["patch_mask"], both["patch_mask"])


def test_masks_of_a_batch_belong_to_its_rows(shop: Shop) -> None:
    for batch in shop.batches(4):
        for text in ("query", "title"):
            tokens, labels, shown = (batch[f"{text}_{name}"] for name in ("tokens", "labels", "masked"))
            assert labels.dtype == shown.dtype == np.int32
            np.testing.assert_array_equal(labels[labels >= 0], tokens[labels >= 0])
            np.testing.assert_array_equal(shown[labels < 0], np.where(batch[f"{text}_mask"], tokens, 0)[labels < 0])
        np.testing.assert_array_equal((batch["title_labels"] >= 0).any(axis=1), batch["has_title"])
        assert batch["patch_mask"].shape == (16, 6) and batch["patch_mask"].dtype == bool
        np.testing.assert_array_equal(batch["patch_mask"].sum(axis=1), np.where(batch["has_image"], 2, 0))
