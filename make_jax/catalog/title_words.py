"""Finds words in titles of scripts written without spaces, from the titles alone [ours].

`terms.py` finds words in queries, which are short and of which many are a single word. Titles are long sequences with a
fixed order, so few words ever start or end one. The accessor variety of a term (Feng et al., 2004) is the number of
different tokens that stand before it, or after it, whichever is less; every end of a text counts as another one. A
fragment has little variety at the side where its word goes on. Two words that meet by chance are not one. A title is
split into the terms with the largest sum of length times log variety.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from make_jax.catalog.keywords import is_unsegmented
from make_jax.catalog.terms import Span, TokenizedText

MAX_TEXTS = 20_000  # from which words are found
_MAX_TOKENS = 6  # of a word
_MIN_COUNT = 3  # occurrences of a word
_MIN_VARIETY = 2
_ASSOCIATED = 3  # times as often as by chance two words must meet to be one
_KNOWN_VARIETY = 50  # at least, of attribute values and categories


def word_scores(texts: Sequence[str], known: set[str]) -> dict[str, float]:
    """Term -> score of each word in texts of scripts without spaces; `known` are normalized names that are words."""
    tokenized = [TokenizedText.from_text(text) for text in texts[:MAX_TEXTS]]
    counts = Counter(term for text in tokenized for term, _ in _terms(text))
    frequent = {term for term, count in counts.items() if count >= _MIN_COUNT and is_unsegmented(term)}
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    for number, text in enumerate(tokenized):
        names = [text.text[begin:end] for begin, end in text.tokens]
        for term, (first, end) in _terms(text):
            if term in frequent:
                before[term].add(f"\0{number}" if first in text.boundaries else names[first - 1])
                after[term].add(f"\0{number}" if end in text.boundaries else names[end])
    variety = {term: min(len(before[term]), len(after[term])) for term in frequent}
    variety |= {term: max(variety.get(term, 0), _KNOWN_VARIETY) for term in known if is_unsegmented(term)}
    words = {term: _length(term) * math.log(count) for term, count in variety.items() if count >= _MIN_VARIETY}
    words = {term: score for term, score in words.items() if _length(term) > 1}
    return {
        term: score
        for term, score in words.items()
        if term in known or not _by_chance(term, words, counts, len(tokenized))
    }


def _by_chance(term: str, words: Mapping[str, float], counts: Mapping[str, int], texts: int) -> bool:
    """Whether a term is two words, or a word and one of a script with spaces, that meet as often as by chance."""
    tokens = TokenizedText.from_text(term)
    for (_, end), (begin, _) in itertools.pairwise(tokens.tokens):
        halves = (tokens.text[:end], tokens.text[begin:])
        if all(half in words or not is_unsegmented(half) for half in halves):
            first, second = (counts.get(half, 0) for half in halves)
            if counts.get(term, 0) * texts < _ASSOCIATED * first * second:
                return True
    return False


def split_words(text: TokenizedText, scores: Mapping[str, float]) -> list[tuple[Span, bool]]:
    """Token spans that cover a text, and whether each is a word; tokens between words are one span."""
    best: list[tuple[float, int, bool]] = [(0.0, 0, False)]  # of each prefix: score, start of its last part, is a word
    for end in range(1, len(text.tokens) + 1):
        options = [(best[end - 1][0], end - 1, False)]
        for first in range(max(0, end - _MAX_TOKENS), end):
            term = text.text[text.tokens[first][0] : text.tokens[end - 1][1]]
            if term in scores:
                options.append((best[first][0] + scores[term], first, True))
        best.append(max(options))
    parts: list[tuple[Span, bool]] = []
    end = len(text.tokens)
    while end:
        _, first, word = best[end]
        if parts and not word and not parts[-1][1]:
            (_, last), _ = parts.pop()
            parts.append(((first, last), False))
        else:
            parts.append(((first, end), word))
        end = first
    return parts[::-1]


def _terms(text: TokenizedText) -> Iterator[tuple[str, Span]]:
    return ((term, span) for term, span in text.terms() if span[1] - span[0] <= _MAX_TOKENS)


def _length(term: str) -> int:
    return len(TokenizedText.from_text(term).tokens)
