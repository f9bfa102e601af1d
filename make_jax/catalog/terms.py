"""The terms of a text, and which terms of many queries are words: what may be a keyword's name at all [ours].

A term is a slice of a text: words of scripts with spaces, characters of scripts without, or both ("T恤"). Most are no
words: "of benetton", "红色衬". A word stands at the beginning of some queries, or right after other words, and at the
end of some, or right before other words (Feng et al.'s accessor variety, 2004, is the idea); "红色衬" never ends one.
"""

import itertools
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from make_jax.catalog.keywords import is_unsegmented, normalize_text, token_spans

LONGEST = 8  # characters and words of a term ...
LONGEST_WORDS = 5  # ... of which words
SAME = 0.9  # a term of which this share stands inside one and the same longer term is a part of it and no word
FREE = 0.02  # share of the texts with a term in which its beginning, and its end, must be one of a word
ROUNDS = 5  # the words of one round show borders to the next

Span = tuple[int, int]  # first atom and the one after the last


@dataclass(frozen=True)
class Text:
    """A text in normalize_text form, cut into token_spans: words of scripts with spaces, characters of scripts without."""

    normalize_text: str
    token_spans: list[Span]  # begin and end of each in `normalize_text`
    runs: list[bool]  # whether an atom is of a script without spaces
    borders: frozenset[int]  # token_spans before which a word begins for certain, and the number of token_spans

    @classmethod
    def of(cls, text: str) -> "Text":
        """The token_spans of any text. A space beside a script without spaces is a border; between two words it need not
        be one."""
        whole = normalize_text(text)
        parts = token_spans(whole)
        runs = [not whole.isascii() and is_unsegmented(whole[begin]) for begin, _ in parts]
        gaps = {
            number
            for number, ((_, end), (begin, _)) in enumerate(itertools.pairwise(parts), 1)
            if begin > end and (runs[number - 1] or runs[number])
        }
        return cls(whole, parts, runs, frozenset(gaps | {0, len(parts)}))

    def terms(self) -> Iterator[tuple[str, Span]]:
        """Every term with its place."""
        for first, (begin, _) in enumerate(self.atoms):
            words = 0
            for last in range(first, min(first + LONGEST, len(self.atoms))):
                words += not self.runs[last]
                if words > LONGEST_WORDS:
                    break
                yield self.normal[begin : self.atoms[last][1]], (first, last + 1)

    def places(self, among: Container[str]) -> list[tuple[str, Span]]:
        """Every place of every term that is `among` these."""
        return [(term, span) for term, span in self.terms() if term in among]


def words(texts: Sequence[Text], candidates: set[str]) -> set[str]:
    """The candidates that are words by where they stand in different texts.

    The first words are those that begin some texts and end others, and the halves of texts that part like others do.
    They are borders to the next, which must stand between two borders at once.
    """
    places = [text.places(candidates) for text in texts]
    total = Counter(term for found in places for term in {term for term, _ in found})
    begin, end = Counter[str](), Counter[str]()
    for text, found in zip(texts, places, strict=True):
        begin.update({term for term, (first, _) in found if first in text.borders})
        end.update({term for term, (_, stop) in found if stop in text.borders})
    parts = {part for longer, count in total.items() for part in _ends_cut(longer) if count >= SAME * total[part] > 0}
    known = {term for term in candidates - parts if min(begin[term], end[term]) >= FREE * total[term] > 0}
    alone = [  # in no other text, and no other word in them
        text
        for text, found in zip(texts, places, strict=True)
        if total[text.normal] <= 1 and known.isdisjoint({term for term, _ in found} - {text.normal})
    ]
    halves = _halves(alone, candidates)
    known |= halves
    able = (candidates - parts) | halves
    places = [[place for place in found if place[0] in able] for found in places]
    for _ in range(ROUNDS):
        single = {term for term in known if not composed(term, known)}
        free = Counter[str]()
        for text, found in zip(texts, places, strict=True):
            beside = longest([span for term, span in found if term in single])
            after = text.borders.union(end for _, end in beside)  # no word shows its own borders: sets of two kinds
            before = text.borders.union(first for first, _ in beside)
            free.update({term for term, (first, end) in found if first in after and end in before})
        last, known = known, {term for term in able if free[term] >= FREE * total[term] > 0}
        if known == last:
            break
    return known


def _halves(texts: Sequence[Text], candidates: set[str]) -> set[str]:
    """The two candidates that each text is, where others begin with the first and others end with the second.

    Where people always ask for the colour before the thing, neither begins some texts and ends others.
    """
    pairs = [
        [
            (text.normal[:end], text.normal[begin:])
            for (_, end), (begin, _) in itertools.pairwise(text.atoms)
            if candidates.issuperset((text.normal[:end], text.normal[begin:]))
        ]
        for text in texts
    ]
    firsts = Counter(first for of in pairs for first, _ in of)
    seconds = Counter(second for of in pairs for _, second in of)
    best = [max(of, key=lambda pair: (min(firsts[pair[0]], seconds[pair[1]]), len(pair[0]))) for of in pairs if of]
    return {half for first, second in best if min(firsts[first], seconds[second]) > 1 for half in (first, second)}


def longest(spans: list[Span]) -> list[Span]:
    """The spans that are left when, from the left, the longest is taken and what overlaps it is dropped."""
    taken: list[Span] = []
    end = 0
    for first, last in sorted(spans, key=lambda span: (span[0], -span[1])):
        if first >= end:
            taken.append((first, last))
            end = last
    return taken


def composed(term: str, of: set[str]) -> bool:
    """Whether a term is two or more of the others in a row."""
    text = Text.of(term)
    reached = {0}
    for part, (first, end) in text.places(of):  # in order of their beginning
        if first in reached and part != term:
            reached.add(end)
    return len(text.atoms) in reached


def _ends_cut(term: str) -> set[str]:
    """A term without its first and without its last atom."""
    spans = token_spans(term)
    return {term[spans[1][0] :], term[: spans[-2][1]]} if len(spans) > 1 else set()


def inside(term: str) -> set[str]:
    """The shorter terms within a term."""
    return {part for part, _ in Text.of(term).terms()} - {term}
