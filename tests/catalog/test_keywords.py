"""Keywords in texts: tagging, cutting, packing, JSON; against a slow reference over random vocabularies and texts."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from make_jax.catalog.keywords import Keyword, KeywordVocabulary, is_unsegmented, normalize_text
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

# Few letters, so that names overlap, hold each other and stand side by side.
texts = st.text("abt红色衫 -", max_size=12)
names = st.text("abt红色衫 ", min_size=1, max_size=5).map(normalize_text).filter(bool)
named = st.lists(st.frozensets(names, max_size=3), max_size=12)


def vocabulary_of(sets: list[frozenset[str]]) -> KeywordVocabulary:
    """Keyword i has the i-th set of names."""
    return KeywordVocabulary(tuple(Keyword("k", f"n{i}", tuple(sorted(of)), i) for i, of in enumerate(sets)))


def atoms(text: str) -> list[str]:
    """Words, single characters of runs, and "|" for a gap between two runs."""
    found: list[str] = []
    for character in normalize_text(text):
        run = character in "红色衫"
        if character == " ":
            found.append(" ")
        elif run or not found or found[-1] == " " or found[-1] in "红色衫":
            found.append(character)
        else:
            found[-1] += character
    gaps = [i for i, atom in enumerate(found) if atom == " "]
    between_runs = {i for i in gaps if found[i - 1] in "红色衫" and found[i + 1] in "红色衫"}
    return ["|" if i in between_runs else atom for i, atom in enumerate(found) if atom != " " or i in between_runs]


def reference_tag(vocabulary: KeywordVocabulary, text: str) -> set[int]:
    """Leftmost, then longest, by comparing lists of atoms."""
    known = [(atoms(name), number) for number, of in enumerate(vocabulary.keywords) for name in of.names]
    parts, at, found = atoms(text), 0, set()
    while at < len(parts):
        here = [(len(name), number) for name, number in known if parts[at : at + len(name)] == name]
        longest = max((length for length, _ in here), default=0)
        found |= {number for length, number in here if length == longest}
        at += longest or 1
    return found


@given(named, texts)
def test_tags_are_those_of_the_set_based_reference(of: list[frozenset[str]], text: str) -> None:
    vocabulary = vocabulary_of(of)
    assert vocabulary.tag(text) == reference_tag(vocabulary, text)
    assert vocabulary.tag(text.upper()) == vocabulary.tag(text)


@given(named, texts)
def test_pieces_of_a_text_join_to_its_normal_form_and_hold_its_keywords(of: list[frozenset[str]], text: str) -> None:
    vocabulary = vocabulary_of(of)
    pieces = vocabulary.segments(text)
    assert "".join(piece for piece, _ in pieces) == normalize_text(text)
    assert frozenset().union(*(keywords for _, keywords in pieces)) == vocabulary.tag(text)
    for piece, keywords in pieces:
        assert piece
        for number in keywords:  # "T 恤" is the name "t恤"
            assert piece.replace(" ", "") in {name.replace(" ", "") for name in vocabulary.keywords[number].names}


@given(st.text(max_size=40))
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normalize_text(normalize_text(text)) == normalize_text(text)
    assert "".join(piece for piece, _ in SHOP.segments(text)) == normalize_text(text)


def test_words_runs_and_mixed_names() -> None:
    assert SHOP.tag("Red t-shirt for Men's") == {RED, TEE, MEN}
    assert SHOP.tag("Ｒｅｄ　ＴＥＥ") == {RED, TEE}  # full width
    assert SHOP.tag("男士红色T恤") == {MEN, RED, TEE} == SHOP.tag("红色 T 恤 男士")
    assert SHOP.tag("navy blue") == {NAVY} and SHOP.tag("blue navy") == {BLUE}
    assert SHOP.tag("sacred menu teen") == frozenset()  # words do not begin or end inside others
    assert SHOP.tag("红 色") == frozenset()


def test_a_keyword_is_replaced_by_a_name_of_the_same_script() -> None:
    def swapped(text: str) -> str:
        pieces = []
        for piece, keywords in SHOP.segments(text):
            navy = next(name for name in SHOP.keywords[NAVY].names if is_unsegmented(name) == is_unsegmented(piece))
            pieces.append(navy if RED in keywords else piece)
        return "".join(pieces)

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
    assert KeywordVocabulary.from_json(empty.to_json(), "here") == empty


def test_values_of_one_attribute_are_rivals_and_terms_have_none() -> None:
    terms = (Keyword("term", "cotton", ("cotton",), 4), Keyword("term", "silk", ("silk",), 3))
    numbers = KeywordVocabulary(SHOP.keywords + terms).exclusion_groups
    assert len(set(numbers[:3])) == 1
    assert len(set(numbers)) == 5


def test_attributes_name_keywords_of_their_kind() -> None:
    assert SHOP.attribute_keywords({"colour": "navy-blue", "gender": "Men", "brand": "Red"}) == {NAVY, MEN}


@given(named)
def test_json_gives_back_the_same_vocabulary(of: list[frozenset[str]]) -> None:
    vocabulary = vocabulary_of(of)
    text = vocabulary.to_json()
    assert KeywordVocabulary.from_json(text, "here") == vocabulary
    assert len(text.splitlines()) == len(vocabulary) + 2  # a keyword a line, for people


def test_a_pickled_vocabulary_tags_alike() -> None:
    SHOP.tag("red")  # the matcher, which cannot be pickled, is there
    assert pickle.loads(pickle.dumps(SHOP)).tag("red tee") == {RED, TEE}


def changed(**values: Any) -> str:
    row = {"kind": "colour", "name": "Red", "names": ["red"], "products": 3} | values
    return json.dumps({"format": 1, "keywords": [row]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "here: not JSON"),
        ("[" * 100_000, "here: not JSON"),
        ("[]", 'here: found "list", expected {"format": 1'),
        ('{"format": 2, "keywords": []}', "here: found 2, expected"),
        ('{"format": 1}', "here: found 1, expected"),
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
def test_json_of_something_else_is_refused_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        KeywordVocabulary.from_json(text, "here")
    assert expected in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300
