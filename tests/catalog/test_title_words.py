"""Words of titles written without spaces."""

from random import Random

from make_jax.catalog.terms import TokenizedText
from make_jax.catalog.title_words import split_words, word_scores


def test_titles_of_a_random_vocabulary_are_split_into_its_words() -> None:
    random = Random(0)
    characters = [chr(0x4E00 + number) for number in range(2000)]
    words = ["".join(random.choices(characters, k=random.choice((2, 2, 3)))) for _ in range(300)]
    titles = ["".join(words[int(random.paretovariate(0.6)) % 300] for _ in range(8)) for _ in range(1500)]
    scores = word_scores(titles, set())
    found: list[bool] = []
    for title in titles[:200]:
        text = TokenizedText.from_text(title)
        parts = split_words(text, scores)
        assert [span[0] for span, _ in parts] == [0, *(span[1] for span, _ in parts[:-1])]  # they cover the title
        found += [text.text[text.tokens[a][0] : text.tokens[b - 1][1]] in words for (a, b), _ in parts]
    assert sum(found) > 0.95 * len(found)


def test_known_names_are_words_of_a_single_title() -> None:
    scores = word_scores(["红色连衣裙"], {"红色", "连衣裙", "red"})
    assert split_words(TokenizedText.from_text("红色连衣裙女"), scores) == [
        ((0, 2), True),
        ((2, 5), True),
        ((5, 6), False),
    ]
    assert "red" not in scores


def test_an_empty_text_has_no_parts() -> None:
    assert word_scores([], set()) == {} and split_words(TokenizedText.from_text(""), {}) == []
