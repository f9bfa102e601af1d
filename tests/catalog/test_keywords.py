"""Keyword vocabulary: tagging, segmentation, packing and JSON, compared to a slow reference on random inputs."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from make_jax.catalog.keywords import Keyword, KeywordVocabulary, is_unsegmented, normalize_text, token_spans
from make_jax.errors import InputError

RED, NAVY, BLUE, TEE, MEN = range(5)
SHOP = KeywordVocabulary(
    (
        Keyword("colour", "Red", ("red", "红色"), 9),
        Keyword("colour", "Navy Blue", ("navy blue", "藏青色"), 8),
        Keyword("colour", "Blue", ("blue",), 7),
        Keyword("category", "Tshirts", ("t shirt", "t恤", "tee"), 6),
        Keyword("gender", "Men", ("men", "mens", "男士"), 5),
    )
)

# A small alphabet, so that names overlap, contain each other and occur next to each other.
texts = st.text("abt红色衫 -", max_size=12)
names = st.text("abt红色衫 ", min_size=1, max_size=5).map(normalize_text).filter(bool)
named = st.lists(st.frozensets(names, max_size=3), max_size=12)


def vocabulary_of(sets: list[frozenset[str]]) -> KeywordVocabulary:
    """Keyword i has the i-th set of names."""
    return KeywordVocabulary(tuple(Keyword("k", f"n{i}", tuple(sorted(of)), i) for i, of in enumerate(sets)))


def reference_tokens(text: str) -> list[str]:
    """Words, single unsegmented characters, and "|" for a space between two unsegmented characters."""
    tokens: list[str] = []
    for character in normalize_text(text):
        unsegmented = character in "红色衫"
        if character == " ":
            tokens.append(" ")
        elif unsegmented or not tokens or tokens[-1] == " " or tokens[-1] in "红色衫":
            tokens.append(character)
        else:
            tokens[-1] += character
    spaces = [i for i, token in enumerate(tokens) if token == " "]
    kept = {i for i in spaces if tokens[i - 1] in "红色衫" and tokens[i + 1] in "红色衫"}
    return ["|" if i in kept else token for i, token in enumerate(tokens) if token != " " or i in kept]


def reference_tag(vocabulary: KeywordVocabulary, text: str) -> set[int]:
    """Leftmost-longest matching by comparing token lists."""
    known = [(reference_tokens(name), number) for number, of in enumerate(vocabulary.keywords) for name in of.names]
    tokens, start, tags = reference_tokens(text), 0, set()
    while start < len(tokens):
        matches = [(len(name), number) for name, number in known if tokens[start : start + len(name)] == name]
        longest = max((length for length, _ in matches), default=0)
        tags |= {number for length, number in matches if length == longest}
        start += longest or 1
    return tags


@given(named, texts)
def test_tags_equal_those_of_the_reference(of: list[frozenset[str]], text: str) -> None:
    vocabulary = vocabulary_of(of)
    assert vocabulary.tag(text) == reference_tag(vocabulary, text)
    assert vocabulary.tag(text.upper()) == vocabulary.tag(text)


@given(named, texts)
def test_segments_join_to_the_normalized_text_and_have_its_keywords(of: list[frozenset[str]], text: str) -> None:
    vocabulary = vocabulary_of(of)
    segments = vocabulary.segments(text)
    assert "".join(segment for segment, _ in segments) == normalize_text(text)
    assert frozenset().union(*(keywords for _, keywords in segments)) == vocabulary.tag(text)
    for segment, keywords in segments:
        assert segment
        for number in keywords:  # "T 恤" is the name "t恤"
            assert segment.replace(" ", "") in {name.replace(" ", "") for name in vocabulary.keywords[number].names}


@given(st.text(max_size=40))
def test_normalization_is_idempotent(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)
    assert "".join(segment for segment, _ in SHOP.segments(text)) == normalize_text(text)


def test_segmented_unsegmented_and_mixed_names() -> None:
    assert SHOP.tag("Red t-shirt for Men's") == {RED, TEE, MEN}
    assert SHOP.tag("Ｒｅｄ　ＴＥＥ") == {RED, TEE}  # full width
    assert SHOP.tag("男士红色T恤") == {MEN, RED, TEE} == SHOP.tag("红色 T 恤 男士")
    assert SHOP.tag("navy blue") == {NAVY} and SHOP.tag("blue navy") == {BLUE}
    assert SHOP.tag("sacred menu teen") == frozenset()  # no matches inside words
    assert SHOP.tag("红 色") == frozenset()


def test_a_keyword_is_replaced_by_a_name_of_the_same_script() -> None:
    def swapped(text: str) -> str:
        segments = []
        for segment, keywords in SHOP.segments(text):
            navy = next(name for name in SHOP.keywords[NAVY].names if is_unsegmented(name) == is_unsegmented(segment))
            segments.append(navy if RED in keywords else segment)
        return "".join(segments)

    assert swapped("Men RED t-shirt") == "men navy blue t shirt"
    assert swapped("男士红色T恤") == "男士藏青色t恤"
    assert is_unsegmented("t恤") and not is_unsegmented("t shirt")


@given(st.integers(1, 100), st.lists(st.frozensets(st.integers(0, 99)), max_size=5))
def test_a_packed_set_holds_keyword_k_in_bit_k(count: int, drawn: list[frozenset[int]]) -> None:
    vocabulary = vocabulary_of([frozenset()] * count)
    sets = [frozenset(number % count for number in of) for of in drawn]
    packed = vocabulary.pack(sets)
    assert packed.shape == (len(sets), vocabulary.packed_words) and packed.dtype == np.uint32
    assert vocabulary.packed_words == (len(vocabulary) + 31) // 32
    unpacked = [{k for k in range(32 * vocabulary.packed_words) if int(row[k // 32]) >> k % 32 & 1} for row in packed]
    assert unpacked == sets


def test_a_vocabulary_without_keywords_works_everywhere() -> None:
    empty = KeywordVocabulary(())
    assert len(empty) == 0 and empty.packed_words == 1
    assert empty.tag("red 红色") == frozenset() == empty.attribute_keywords({"colour": "Red"})
    assert empty.segments("Red 红色") == [("red 红色", frozenset())] and empty.segments("") == [] == SHOP.segments("!?")
    assert empty.pack([frozenset(), frozenset()]).tolist() == [[0], [0]] and empty.pack([]).shape == (0, 1)
    assert KeywordVocabulary.from_json(empty.to_json(), "file") == empty


def test_values_of_one_attribute_share_an_exclusion_group_and_terms_have_their_own() -> None:
    terms = (Keyword("term", "cotton", ("cotton",), 4), Keyword("term", "silk", ("silk",), 3))
    numbers = KeywordVocabulary(SHOP.keywords + terms).exclusion_groups
    assert len(set(numbers[:3])) == 1
    assert len(set(numbers)) == 5


def test_attribute_keywords_have_the_kind_of_the_attribute() -> None:
    assert SHOP.attribute_keywords({"colour": "navy-blue", "gender": "Men", "brand": "Red"}) == {NAVY, MEN}


@given(named)
def test_json_round_trip(of: list[frozenset[str]]) -> None:
    vocabulary = vocabulary_of(of)
    text = vocabulary.to_json()
    assert KeywordVocabulary.from_json(text, "file") == vocabulary
    assert len(text.splitlines()) == len(vocabulary) + 2  # one keyword a line


def test_a_pickled_vocabulary_gives_the_same_tags() -> None:
    SHOP.tag("red")  # creates the matcher, which cannot be pickled
    assert pickle.loads(pickle.dumps(SHOP)).tag("red tee") == {RED, TEE}


def changed(**values: Any) -> str:
    row = {"kind": "colour", "name": "Red", "names": ["red"], "products": 3} | values
    return json.dumps({"format": 1, "keywords": [row]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "file: not JSON"),
        ("[" * 100_000, "file: not JSON"),
        ('{"format": 1, "format": 1, "keywords": []}', 'file: "format" occurs twice in one object, expected each key'),
        ("[]", 'file: found "list", expected {"format": 1'),
        ('{"format": 2, "keywords": []}', "file: found 2, expected"),
        ('{"format": 1}', "file: found 1, expected"),
        ('{"format": 1, "keywords": [3]}', "keywords[0]: found 3, expected an object with the keys kind, name"),
        (changed(more=1), "expected an object with the keys"),
        (changed(kind=""), 'kind "", name "Red"'),
        (changed(name="!"), 'name "!", expected two texts'),
        (changed(names="red"), 'names "red", expected a list'),
        (changed(names=["Red"]), "expected a list of texts in lower case"),
        (changed(names=[""]), "expected a list of texts"),
        (changed(products=-1), "products -1, expected a count"),
        (changed(products=True), "products true, expected a count"),
        (SHOP.to_json().replace("Navy Blue", "RED"), 'keywords[1]: duplicate "colour:RED"'),
    ],
)
def test_invalid_json_is_rejected_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        KeywordVocabulary.from_json(text, "file")
    assert expected in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        "कपड़े की कमीज़",  # Hindi
        "சட்டை சிவப்பு",  # Tamil
        "জামা লাল",  # Bengali
        "שִׂמְלָה אדומה",  # Hebrew with points
        "قَمِيصٌ أَحْمَر",  # Arabic with vowel signs
        "aṣọ ọ\u0300wọ\u0300",  # Yoruba: no composed character
        "İstanbul çanta",  # lower case of İ is i with a mark
    ],
)
def test_combining_marks_do_not_cut_words(text: str) -> None:
    first, last = text.split()[0], text.split()[-1]
    normalized = normalize_text(text)
    assert [normalized[a:b] for a, b in token_spans(normalized)] == normalized.split() and len(
        normalized.split()
    ) == len(text.split())
    assert normalize_text(normalized) == normalized
    vocabulary = KeywordVocabulary(
        tuple(Keyword("k", word, (normalize_text(word),), 1) for word in (first, last, first[:2]))
    )
    assert vocabulary.tag(text) == {0, 1}  # not the first letters of a word
    assert "".join(part for part, _ in vocabulary.segments(text)) == normalized


@pytest.mark.parametrize(
    ("text", "others", "expected"),
    [
        ("เสื้อ", ["เสือ", "เส", "อ"], ["เสื้อ"]),  # Thai: shirt; tiger
        ("เสื้อยืดred", ["เสือ", "red", "ยืด"], ["เสื้อ", "red", "ยืด"]),
        ("ขาย เสื้อ", ["เสือ", "ขา"], ["เสื้อ", "ขา"]),
        ("ເສື້ອ", ["ເສືອ", "ອ"], ["ອ"]),  # Lao
    ],
)
def test_names_in_thai_end_after_the_marks_of_a_letter(text: str, others: list[str], expected: list[str]) -> None:
    names = ["เสื้อ", *others]
    vocabulary = KeywordVocabulary(tuple(Keyword("k", name, (normalize_text(name),), 1) for name in names))
    assert {names[i] for i in vocabulary.tag(text)} == set(expected)
    assert "".join(part for part, _ in vocabulary.segments(text)) == normalize_text(text)
    assert is_unsegmented(normalize_text(text))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("تی\u200cشرت", "تیشرت"),  # Persian: t-shirt, with the zero-width non-joiner
        ("کفش\u200cهای", "کفشهای"),
        ("क\u094d\u200dषमा", "क\u094dषमा"),  # Hindi: after the virama
        ("Schuh\u00adregal", "schuhregal"),  # a soft hyphen
        ("red\u2060dress \ufeffx", "reddress x"),
        ("red\u200bdress", "red dress"),  # a zero-width space separates words
        ("red\u200c dress\u200d", "red dress"),
        ("\U0001f469\u200d\U0001f9b0 wig", "wig"),  # an emoji
    ],
)
def test_joiners_inside_a_word_do_not_cut_it(text: str, plain: str) -> None:
    assert normalize_text(text) == plain
    vocabulary = KeywordVocabulary((Keyword("k", plain, (plain,), 1), Keyword("k", "x", (plain.split()[0][:2],), 1)))
    assert vocabulary.tag(text) == vocabulary.tag(plain) == {0}
    assert "".join(part for part, _ in vocabulary.segments(text)) == plain


def test_marks_without_a_letter_are_separators() -> None:
    assert normalize_text("\u2764\ufe0f shirt 1\ufe0f\u20e3") == "shirt 1"  # emoji with selectors
    assert normalize_text("women\u00b4s \u00a8 a_\u0301b \u0301c") == "women s a b c"
    assert normalize_text("\u0301\u0302") == ""
