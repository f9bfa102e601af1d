"""Texts as token ids."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from make_jax.errors import InputError
from make_jax.inputs.tokenizer import (
    SPECIAL_TOKENS,
    Tokenizer,
    add_characters,
    load_tokenizer,
    split_long_words,
    train_wordpiece,
)
from make_jax.inputs.unknown_texts import UnknownTexts
from make_jax.interop.bundle import tokenizer_files
from tests.interop import tiny_checkpoints as tiny

TEXTS = [
    f"{brand} {colour} {kind}"
    for brand in ("Nike", "Décolleté", "Turtle")
    for colour in ("red", "blue", "crimson", "红色", "蓝色的")
    for kind in ("shirt", "shirts", "shoes", "衬衫", "running shoe")
]


def pieces(tokenizer: Tokenizer, text: str, length: int = 16) -> list[str]:
    """The tokens of a text by name, padding left out."""
    names = {i: name for name, i in json.loads(tokenizer.definition)["model"]["vocab"].items()}
    tokens, mask = tokenizer.encode([text], length)
    return [names[i] for i in tokens[0][mask[0]].tolist()]


def test_special_tokens_have_the_first_ids() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    vocabulary = json.loads(tokenizer.definition)["model"]["vocab"]
    assert [vocabulary[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert (tokenizer.pad_id, tokenizer.mask_id) == (0, 4)
    assert sorted(vocabulary.values()) == list(range(tokenizer.vocab_size))
    assert tokenizer.vocab_size <= 200


def test_texts_are_normalized_to_nfkc_lower_case_without_accents() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    plain = pieces(tokenizer, "decollete red shirt")
    assert plain[0] == "[CLS]" and plain[-1] == "[SEP]" and "[UNK]" not in plain
    assert pieces(tokenizer, "DÉCOLLETÉ ＲＥＤ\tshirt") == plain


def test_chinese_characters_are_single_tokens_in_one_vocabulary_with_english() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    assert pieces(tokenizer, "红色衬衫shirt") == ["[CLS]", "红", "色", "衬", "衫", "shirt", "[SEP]"]


def test_japanese_voicing_marks_are_kept() -> None:
    tokenizer = train_wordpiece(["が か", "が か"], 60)
    assert pieces(tokenizer, "が") != pieces(tokenizer, "か")


def test_encode_pads_and_truncates_to_length_and_keeps_special_tokens() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    tokens, mask = tokenizer.encode(["red " * 50, "red", "", "\U0001f600"], 6)
    assert tokens.shape == mask.shape == (4, 6)
    assert (tokens.dtype, mask.dtype) == (np.int32, np.bool_)
    assert mask.sum(axis=1).tolist() == [6, 3, 2, 3]
    assert tokens[:, 0].tolist() == [2, 2, 2, 2] and tokens[0, -1] == 3
    assert (tokens[~mask] == tokenizer.pad_id).all()
    assert tokens[3].tolist() == [2, 1, 3, 0, 0, 0]


def test_encode_of_no_texts_has_no_rows() -> None:
    tokens, mask = train_wordpiece(TEXTS, 200).encode([], 6)
    assert tokens.shape == mask.shape == (0, 6)


def test_special_token_typed_by_a_user_is_plain_text() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    tokens, mask = tokenizer.encode(["[MASK] red [PAD]"], 16)
    assert tokenizer.mask_id not in tokens[0] and 0 not in tokens[0][mask[0]]


def test_length_without_room_for_text_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"inputs\.max_query_tokens"):
        train_wordpiece(TEXTS, 200).encode(["red"], 2)


def test_definition_round_trips() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    tokenizer.encode(TEXTS, 7)
    again = Tokenizer(tokenizer.definition)
    assert again.definition == tokenizer.definition
    assert again.vocab_size == tokenizer.vocab_size
    for ours, theirs in zip(tokenizer.encode(TEXTS, 9), again.encode(TEXTS, 9), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"model": 3}'])
def test_broken_definition_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="not a tokenizer definition"):
        Tokenizer(text)


def test_same_texts_give_the_same_definition_in_another_process() -> None:
    code = "from tests.inputs.test_tokenizer import TEXTS, train_wordpiece;print(train_wordpiece(TEXTS, 90).definition)"
    definitions = {train_wordpiece(TEXTS, 90).definition}
    for seed, parallel in (("1", "true"), ("2", "false"), ("3", "true")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, encoding="utf-8", check=True
        )
        definitions.add(done.stdout.rstrip("\n"))
    assert len(definitions) == 1


def test_order_of_texts_does_not_matter_but_counts_do() -> None:
    assert train_wordpiece(TEXTS[::-1], 90).definition == train_wordpiece(TEXTS, 90).definition
    often = train_wordpiece([*TEXTS, *["zebra"] * 100], 90)
    assert "zebra" in json.loads(often.definition)["model"]["vocab"]


def test_characters_take_at_most_half_of_the_vocabulary() -> None:
    many = ["".join(chr(0x4E00 + i) for i in range(500)), *["shirt shoes"] * 5]
    tokenizer = train_wordpiece(many, 100)
    assert tokenizer.vocab_size <= 100
    assert pieces(tokenizer, "shirt") == ["[CLS]", "shirt", "[SEP]"]


def test_training_on_no_text_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no text"):
        train_wordpiece(["", " "], 100)
    with pytest.raises(InputError, match=r"inputs\.vocab_size"):
        train_wordpiece(TEXTS, 3)


def test_folder_with_tokenizer_json_is_read_without_its_padding_and_truncation(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    stored = json.loads(tokenizer.definition)
    stored["truncation"] = {"max_length": 3, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    assert loaded.definition == tokenizer.definition
    assert loaded.encode(["red blue crimson"], 8)[1].sum() == 5


def test_a_byte_order_mark_before_tokenizer_json_is_skipped(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + tokenizer.definition.encode())
    assert load_tokenizer(tmp_path).definition == tokenizer.definition


@pytest.mark.parametrize("config", [None, {"model_type": "bert"}])
def test_folder_with_vocab_txt_is_converted(tmp_path: Path, config: dict[str, str] | None) -> None:
    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "shirt", "##s", "红"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    assert loaded.vocab_size == len(words)
    assert (loaded.pad_id, loaded.mask_id) == (0, 5)
    assert loaded.encode(["RED shirts 红"], 8)[0][0].tolist() == [3, 6, 7, 8, 9, 4, 0, 0]
    assert Tokenizer(loaded.definition).definition == loaded.definition


def test_a_byte_order_mark_in_vocab_txt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n")
    with pytest.raises(InputError, match=r"vocab\.txt: begins with a byte-order mark"):
        load_tokenizer(tmp_path)


def test_folder_without_a_tokenizer_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        load_tokenizer(tmp_path / "absent")
    with pytest.raises(InputError, match="no tokenizer found"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")  # but no vocabulary
    with pytest.raises(InputError, match="no vocabulary"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not a tokenizer definition"):
        load_tokenizer(tmp_path)


def test_tokenizer_without_special_tokens_around_a_text_is_an_input_error() -> None:
    stored = json.loads(train_wordpiece(TEXTS, 200).definition)
    stored["post_processor"] = None
    with pytest.raises(InputError, match="no special token around"):
        Tokenizer(json.dumps(stored))


def test_new_characters_make_unknown_words_known_and_keep_all_ids() -> None:
    english = train_wordpiece([text for text in TEXTS if text.isascii()], 120)
    more = add_characters(english, [*TEXTS, "👟"], 50)
    assert "[UNK]" in pieces(english, "nike 红色 衬衫")
    assert pieces(more, "nike 红色 衬衫")[-5:] == ["红", "色", "衬", "衫", "[SEP]"]
    old, new = (json.loads(each.definition)["model"]["vocab"] for each in (english, more))
    assert old.items() <= new.items()
    assert sorted(new.values())[-len(new) + len(old) :] == list(range(english.vocab_size, more.vocab_size))
    assert "👟" not in new  # texts have it once
    few = add_characters(english, TEXTS, 2)
    assert few.vocab_size == english.vocab_size + 2
    assert {"色"} < new.keys() and "色" in json.loads(few.definition)["model"]["vocab"]  # the most frequent ones
    for text in ("nike red shirt", "turtle running shoes"):
        assert pieces(more, text) == pieces(english, text)


def test_new_characters_require_a_wordpiece() -> None:
    with pytest.raises(InputError, match=r"inputs\.new_characters: the tokenizer is a WordLevel"):
        add_characters(Tokenizer(tiny.tokenizer()), TEXTS, 5)


LONG = ["ก" * 60 + "ขคงจฉชซ" * 8 + "ก" * n for n in range(10, 40)]  # Thai titles of 126 to 155 characters, no spaces


def test_words_over_100_characters_are_told_apart() -> None:
    tokenizer = train_wordpiece([*TEXTS, *LONG], 300)
    tokens, _ = tokenizer.encode(LONG, 160)
    assert len(np.unique(tokens, axis=0)) == len(LONG) == 30
    assert not (tokens == tokenizer.unknown_id).any()


@pytest.mark.parametrize(
    "text", ["0" * 99, "0" * 100, "0" * 101, "0" * 1000, "x " + "0" * 250 + " y", "0" * 150 + "-1"]
)
def test_a_word_of_any_length_has_all_of_its_characters(text: str) -> None:
    tokenizer = train_wordpiece([*TEXTS, "0 1 00 - x y"] * 2, 200)
    assert "".join(pieces(tokenizer, text, 1200)[1:-1]).replace("##", "") == text.replace(" ", "")


def test_a_pretrained_wordpiece_splits_long_words_and_keeps_all_other_tokens(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "0", "##0", "##1", "ก", "##ก"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    split = split_long_words(loaded)
    short = [*TEXTS, "", " ", "red 00101", "[MASK]", "red\u00a0red", "ก" * 100, "0" * 99 + " " + "0" * 100]
    for ours, theirs in zip(split.encode(short, 220), loaded.encode(short, 220), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    long = ["0" * 101, "0" * 102, "ก" * 130]
    assert pieces(loaded, long[0]) == ["[CLS]", "[UNK]", "[SEP]"]
    assert len(np.unique(split.encode(long, 140)[0], axis=0)) == 3
    assert pieces(split, long[2], 140) == ["[CLS]", "ก", *["##ก"] * 99, "ก", *["##ก"] * 29, "[SEP]"]
    assert (split.vocab_size, split_long_words(split).definition) == (loaded.vocab_size, split.definition)
    assert split_long_words(train_wordpiece(TEXTS, 200)).definition == train_wordpiece(TEXTS, 200).definition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Décolleté☃", ["decollete", "[UNK]"]),  # neither begins nor continues a word
        ("☃red", ["[UNK]", "red"]),
        ("red☃☃shirt ☃", ["red", "[UNK]", "shirt", "[UNK]"]),  # a run is one token
        ("rednred", ["red", "nred"]),  # "n" begins words here, but continues none
        ("redsnnred", ["red", "s", "n", "nred"]),
        ("☃nn", ["[UNK]", "n", "n"]),
    ],
)
def test_a_character_without_a_piece_leaves_the_rest_of_its_word_known(text: str, expected: list[str]) -> None:
    tokenizer = train_wordpiece([*["nred"] * 2, *["red shirt", "Décolleté"] * 9], 200)
    assert pieces(tokenizer, text)[1:-1] == expected


def test_words_of_known_characters_keep_the_tokens_of_a_plain_wordpiece() -> None:
    tokenizer = train_wordpiece(TEXTS * 2, 100)
    stored = json.loads(tokenizer.definition)
    steps = stored["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in steps] == ["BertPreTokenizer", "Split", "Split", "Split"]
    del steps[2:]
    plain = Tokenizer(json.dumps(stored))
    words = {text[i:j] for text in TEXTS[::3] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    texts = [word for word in sorted(words) if "[UNK]" not in pieces(plain, word, 24)]
    assert len(texts) > 100
    for ours, theirs in zip(tokenizer.encode(texts, 24), plain.encode(texts, 24), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_models_have_no_limit_and_stay() -> None:
    tokenizer = Tokenizer(tiny.tokenizer())
    assert split_long_words(tokenizer).definition == tokenizer.definition


def test_transformers_gives_the_ids_of_long_words_that_we_give(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = train_wordpiece([*TEXTS, *LONG], 300)
    for name, text in tokenizer_files(tokenizer, 160).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    texts = [*LONG, *TEXTS, "red☃", "☃-☃ red]☃[", "nikeク^", "\\u005d"]
    theirs = AutoTokenizer.from_pretrained(tmp_path)(texts, padding="max_length", truncation=True)["input_ids"]
    np.testing.assert_array_equal(tokenizer.encode(texts, 160)[0], theirs)


def test_time_of_long_words_grows_with_their_length_alone() -> None:
    tokenizer = train_wordpiece([*TEXTS, *LONG], 300)

    def seconds(length: int) -> float:
        start = time.process_time()
        tokenizer.encode([LONG[0] * (length // len(LONG[0]))], 16)
        return time.process_time() - start

    seconds(1000)
    # With a limit of its length on a word instead, twice the length takes four to eight times as long.
    assert min(seconds(80_000) for _ in range(3)) < 16 * max(0.01, min(seconds(20_000) for _ in range(3)))


def test_texts_that_are_mostly_unknown_are_counted_with_examples() -> None:
    english = train_wordpiece([text for text in TEXTS if text.isascii()], 120)
    texts = ["red shirt", "", "红色", "nike 红", "nike 红色", "x红色衬衫 red"]
    tokens, mask = english.encode(texts, 12)
    assert english.mostly_unknown(tokens, mask).tolist() == [False, False, True, False, True, True]
    unknown, known = UnknownTexts(), UnknownTexts()
    unknown.add(texts, english, tokens, mask)
    message = unknown.message("titles")
    assert message is not None and message.startswith("3 of 6 titles are more than half unknown tokens")
    assert '"红色", "nike 红色", "x红色衬衫 red"; ' in message
    known.add(texts[:2], english, tokens[:2], mask[:2])
    assert known.message("titles") is None


def test_the_end_token_of_clip_that_is_its_unknown_token_too_is_not_counted() -> None:
    stored = json.loads(tiny.tokenizer())
    stored["model"]["unk_token"] = "[SEP]"
    tokenizer = Tokenizer(json.dumps(stored))
    assert tokenizer.unknown_id == 3
    tokens, mask = tokenizer.encode(["", "w7", "w7 other", "w7 other more", "other"], 8)
    assert tokenizer.mostly_unknown(tokens, mask).tolist() == [False, False, False, True, True]


def test_a_tokenizer_without_an_unknown_token_knows_every_text() -> None:
    stored = json.loads(tiny.tokenizer())
    stored["model"] = {"type": "BPE", "vocab": {"[CLS]": 2, "[SEP]": 3, "a": 0}, "merges": [], "unk_token": None}
    tokenizer = Tokenizer(json.dumps(stored))
    assert tokenizer.unknown_id is None
    assert not tokenizer.mostly_unknown(*tokenizer.encode(["a", "b"], 6)).any()
