"""Word discovery in queries: the candidate names of keywords [ours].

A term is an n-gram of tokens: words, characters of unsegmented scripts, or both ("T恤"). Most terms are fragments ("of
benetton", "红色衬"). A term is a word if in some queries it starts at a boundary and in some it ends at one; boundaries
are the ends of the query and of neighboring words. The idea is accessor variety (Feng et al., 2004).
"""

import itertools
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from make_jax.catalog.keywords import is_unsegmented, normalize_text, token_spans

MAX_TOKENS = 8  # of a term ...
MAX_WORDS = 5  # ... of which words of segmented scripts
FRAGMENT_SHARE = 0.9  # a term of which this share occurs inside one longer term is a fragment of it
MIN_BOUNDARY_SHARE = 0.02  # share of a term's queries in which it must start, and must end, at a boundary
ROUNDS = 5  # each round uses the words of the previous one as boundaries

Span = tuple[int, int]  # first token and one past the last


@dataclass(frozen=True)
class TokenizedText:
    """A normalized text with its tokens."""

    text: str  # normalized
    tokens: list[Span]  # character span of each token in `text`
    unsegmented: list[bool]  # whether a token is a character of an unsegmented script
    boundaries: frozenset[int]  # tokens that certainly start a word, and the number of tokens

    @classmethod
    def from_text(cls, text: str) -> "TokenizedText":
        """Tokenizes a text. A space next to an unsegmented script is a word boundary; between two words of other
        scripts it may be inside a name."""
        normalized = normalize_text(text)
        tokens = token_spans(normalized)
        unsegmented = [not normalized.isascii() and is_unsegmented(normalized[begin]) for begin, _ in tokens]
        gaps = {
            number
            for number, ((_, end), (begin, _)) in enumerate(itertools.pairwise(tokens), 1)
            if begin > end and (unsegmented[number - 1] or unsegmented[number])
        }
        return cls(normalized, tokens, unsegmented, frozenset(gaps | {0, len(tokens)}))

    def terms(self) -> Iterator[tuple[str, Span]]:
        """Every term with its token span, in the order of start tokens."""
        for first, (begin, _) in enumerate(self.tokens):
            words = 0
            for last in range(first, min(first + MAX_TOKENS, len(self.tokens))):
                words += not self.unsegmented[last]
                if words > MAX_WORDS:
                    break
                yield self.text[begin : self.tokens[last][1]], (first, last + 1)

    def occurrences(self, candidates: Container[str]) -> list[tuple[str, Span]]:
        """The terms that are candidates, with their token spans."""
        return [(term, span) for term, span in self.terms() if term in candidates]


def find_words(texts: Sequence[TokenizedText], candidates: set[str]) -> set[str]:
    """The candidates that are words, judged by their boundaries in distinct texts.

    Seeds are the candidates that start some texts and end others, and the halves of two-part texts (`_halves`). Each
    round then uses the words of the last one as boundaries and keeps candidates between two boundaries.
    """
    occurrences = [text.occurrences(candidates) for text in texts]
    total = Counter(term for terms in occurrences for term in {term for term, _ in terms})
    starts, ends = Counter[str](), Counter[str]()
    for text, terms in zip(texts, occurrences, strict=True):
        starts.update({term for term, (first, _) in terms if first in text.boundaries})
        ends.update({term for term, (_, stop) in terms if stop in text.boundaries})
    fragments = {
        part
        for longer, count in total.items()
        for part in _without_end_tokens(longer)
        if count >= FRAGMENT_SHARE * total[part] > 0
    }
    known = {
        term for term in candidates - fragments if min(starts[term], ends[term]) >= MIN_BOUNDARY_SHARE * total[term] > 0
    }
    isolated = [  # texts that occur in no other text and contain no known word
        text
        for text, terms in zip(texts, occurrences, strict=True)
        if total[text.text] <= 1 and known.isdisjoint({term for term, _ in terms} - {text.text})
    ]
    halves = _halves(isolated, candidates)
    return _refine(texts, occurrences, (candidates - fragments) | halves, known | halves, total)


def _refine(
    texts: Sequence[TokenizedText],
    occurrences: list[list[tuple[str, Span]]],
    eligible: set[str],
    known: set[str],
    total: Counter[str],
) -> set[str]:
    """The eligible terms that occur between two boundaries often enough, iterated from the words in `known`."""
    occurrences = [[occurrence for occurrence in terms if occurrence[0] in eligible] for terms in occurrences]
    for _ in range(ROUNDS):
        single = {term for term in known if not is_compound(term, known)}
        bounded = Counter[str]()
        for text, terms in zip(texts, occurrences, strict=True):
            words = longest_spans([span for term, span in terms if term in single])
            # A word must not be its own boundary: it starts where another ends, and ends where another starts.
            begins = text.boundaries.union(end for _, end in words)
            stops = text.boundaries.union(first for first, _ in words)
            bounded.update({term for term, (first, end) in terms if first in begins and end in stops})
        last, known = known, {term for term in eligible if bounded[term] >= MIN_BOUNDARY_SHARE * total[term] > 0}
        if known == last:
            break
    return known


def _halves(texts: Sequence[TokenizedText], candidates: set[str]) -> set[str]:
    """Both halves of texts that consist of two candidates, where other texts share the first and others the second.

    Finds words in catalogs whose queries always have one order (color, then type), so that neither word both starts
    some texts and ends others.
    """
    splits = [
        [
            (text.text[:end], text.text[begin:])
            for (_, end), (begin, _) in itertools.pairwise(text.tokens)
            if candidates.issuperset((text.text[:end], text.text[begin:]))
        ]
        for text in texts
    ]
    firsts = Counter(first for pairs in splits for first, _ in pairs)
    seconds = Counter(second for pairs in splits for _, second in pairs)
    best = [
        max(pairs, key=lambda pair: (min(firsts[pair[0]], seconds[pair[1]]), len(pair[0]))) for pairs in splits if pairs
    ]
    return {half for first, second in best if min(firsts[first], seconds[second]) > 1 for half in (first, second)}


def longest_spans(spans: list[Span]) -> list[Span]:
    """Non-overlapping spans, chosen from left to right, the longest first among those with one start."""
    chosen: list[Span] = []
    end = 0
    for first, last in sorted(spans, key=lambda span: (span[0], -span[1])):
        if first >= end:
            chosen.append((first, last))
            end = last
    return chosen


def is_compound(term: str, words: set[str]) -> bool:
    """Whether a term is a sequence of two or more other words."""
    text = TokenizedText.from_text(term)
    reached = {0}
    for part, (first, end) in text.occurrences(words):  # in the order of start tokens
        if first in reached and part != term:
            reached.add(end)
    return len(text.tokens) in reached


def _without_end_tokens(term: str) -> set[str]:
    """The term without its first token, and without its last."""
    spans = token_spans(term)
    return {term[spans[1][0] :], term[: spans[-2][1]]} if len(spans) > 1 else set()


def subterms(term: str) -> set[str]:
    """The shorter terms inside a term."""
    return {part for part, _ in TokenizedText.from_text(term).terms()} - {term}
