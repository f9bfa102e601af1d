"""Splits titles into the words and names that shoppers type, and finds the noun that names the product [ours].

A unit is a word ("boots", "t-shirt"), an attribute value of several words ("navy blue"), or a word of a script without
spaces ("红色"). No language model is used; statistics of the titles decide:

* Words of scripts without spaces are found by `title_words.py`; attribute values and categories are words too.
* The head noun is the word that is most reliably at one end of the first phrase ("Black Leather Boots, size 42":
  the last of it), or one that the category names. It is the last word (English, German, Chinese, Japanese, Hindi)
  unless the titles have function words of Romance languages, or letters of Arabic, Hebrew, Thai, Lao or Khmer: there it
  is the first ("Vestido rojo").
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from make_jax.catalog.keywords import is_unsegmented, normalize_text
from make_jax.catalog.mining import wilson_low
from make_jax.catalog.scripts import MARKS
from make_jax.catalog.terms import TokenizedText
from make_jax.catalog.title_words import split_words, word_scores

MAX_VALUE_WORDS = 4  # of an attribute value or a category that is one unit
_MAX_TOKENS = 64  # of a title that are read; the rest is description
_MAX_UNKNOWN = 4  # characters of a unit in which no word is known
_MIN_HEAD = 0.25  # lower bound of the share of occurrences in which a head noun is at the end of a phrase

_SEPARATORS = r"\s,;:|/\\()\[\]{}<>\"“”„«»‹›•·…!?*=~^@、，。；：（）【】《》「」『』！？／｜\-–—"
_PIECE = re.compile(rf"[^{_SEPARATORS}]+(?:-[^{_SEPARATORS}]+)*")
_BORDER = re.compile(r"[,;:|()\[\]{}/•·…–—、，。；：（）【】《》「」『』／｜]|\s-|-\s")
_ENDS = re.compile(rf"^[^\w]+|[^\w{MARKS}]+$")
# They end a phrase; what follows does not name the product.
_PREPOSITIONS = frozenset(
    re.findall(r"\w+", "for with in on by from to at without w für mit aus von pour avec en sans de para con di per")
)
_FUNCTION_WORDS = _PREPOSITIONS | frozenset(
    re.findall(
        r"\w+",
        "a an the and or of as is it its this that new und oder der die das ein eine le la les des du et un une el los "
        "las y il lo gli e 的 和 与 の と",
    )
)

# Signs of languages whose noun precedes its modifiers, and of those where it follows: function words and scripts.
_NOUN_FIRST = re.compile(
    r"\b(?:del|para|con|pour|avec|sans|di|per|du|des|com|sem|dos|das|à|é)\b|\bde (?!lux)|"
    r"[\u0590-\u05ff\u0600-\u06ff\u0e01-\u0eff\u1780-\u17ff]",
    re.IGNORECASE,
)
_NOUN_LAST = re.compile(r"\b(?:for|with|of|the|and|für|mit|und|met|voor)\b|[\u3040-\u30ff\u4e00-\u9fff]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a title, an attribute value or a category that is used undivided."""

    text: str  # as in a query: lower case, NFKC
    key: str  # `normalize_text` of it
    words: int  # separated by spaces; 1 for a word of a script without spaces
    function: bool = False  # "with", "the": not part of a short query
    code: bool = False  # a size, a number or an article number: not a query by itself
    unknown: bool = False  # characters of a script without spaces in which no word was found
    lead: bool = False  # in the first phrase of the title: what comes later ("with belt, size 42") matters less
    outer: bool = False  # the word at that end of this phrase where the noun is

    @property
    def is_word(self) -> bool:
        """Whether the unit can be a query by itself."""
        return not (self.function or self.code or self.unknown)


@dataclass(frozen=True)
class TitleStatistics:
    """What splitting a title needs to know of the titles of a catalog."""

    words: dict[str, float]  # of scripts without spaces, with their scores
    names: frozenset[str]  # normalized values and categories of several words
    noun_first: bool  # the noun is the first word of a phrase
    outer: dict[str, float]  # word -> lower bound of the share of its occurrences at the noun's place

    @classmethod
    def from_texts(cls, titles: Sequence[str], values: Iterable[str]) -> "TitleStatistics":
        """Statistics of `titles`; `values` are attribute values and categories."""
        keys = {key for key in map(normalize_text, values) if key}
        names = frozenset(key for key in keys if 1 < len(key.split()) <= MAX_VALUE_WORDS)
        unsegmented = [title for title in dict.fromkeys(titles) if is_unsegmented(title)]
        pieces = [piece for title in unsegmented for phrase in _phrases(title) for piece in phrase]
        words = word_scores([piece for piece in pieces if is_unsegmented(piece)], keys)
        noun_first = sum(bool(_NOUN_FIRST.search(title)) - bool(_NOUN_LAST.search(title)) for title in titles) > 0
        unordered = cls(words, names, noun_first, {})
        total, outer = Counter[str](), Counter[str]()
        for title in titles:
            for unit in unordered.units(title):
                if unit.is_word and unit.lead:
                    total[unit.key] += 1
                    outer[unit.key] += unit.outer
        return replace(unordered, outer={key: wilson_low(outer[key], count) for key, count in total.items()})

    def units(self, title: str) -> list[Unit]:
        """The units of a title in order, function words included."""
        units: list[Unit] = []
        for phrase in _phrases(title):
            of_phrase = [unit for piece in self._merged(phrase) for unit in self._split(piece)][:_MAX_TOKENS]
            words = [number for number, unit in enumerate(of_phrase) if unit.is_word]
            if words and not any(unit.lead for unit in units):
                place = words[0 if self.noun_first else -1]
                of_phrase = [replace(unit, lead=True, outer=n == place) for n, unit in enumerate(of_phrase)]
            units += of_phrase
        return units[:_MAX_TOKENS]

    def head(self, units: Sequence[Unit], categories: Sequence[Unit], modifiers: Container[str]) -> Unit | None:
        """The unit that names what the product is; None if nothing tells it. `modifiers` are keys of units that do
        not, such as colors."""
        words = [unit for unit in units if unit.is_word and unit.key not in modifiers]
        nouns = {category.key.split(" ")[-1] for category in categories}
        best, best_score = words[0] if len(words) == 1 == len(units) else None, _MIN_HEAD
        for unit in words:
            named = any(_same_noun(unit.key.replace(" ", ""), noun) for noun in nouns)
            score = (self.outer.get(unit.key, 0.0) if unit.lead else 0.0) + named
            if score > best_score or (score == best_score and not self.noun_first):
                best, best_score = unit, score
        return best

    def _merged(self, pieces: Sequence[str]) -> Iterator[str]:
        """The pieces, those that together are a known name joined by a space."""
        keys = [_key(piece) for piece in pieces]
        at = 0
        while at < len(pieces):
            size = 1
            for longer in range(min(MAX_VALUE_WORDS, len(pieces) - at), 1, -1):
                if " ".join(keys[at : at + longer]) in self.names:
                    size = longer
                    break
            yield " ".join(pieces[at : at + size])
            at += size

    def _split(self, piece: str) -> Iterator[Unit]:
        """The units of a piece: itself, or the words of a script without spaces."""
        if not is_unsegmented(piece):
            yield from filter(None, [unit_of(piece)])
            return
        text = TokenizedText.from_text(piece)
        for (first, end), known in split_words(text, self.words):
            for start in range(first, end, end - first if known else _MAX_UNKNOWN):
                stop = end if known else min(end, start + _MAX_UNKNOWN)
                part = text.text[text.tokens[start][0] : text.tokens[stop - 1][1]]
                if unit := unit_of(part, unknown=not known and is_unsegmented(part)):
                    yield unit


@functools.lru_cache(1 << 16)  # few words make most titles
def unit_of(text: str, unknown: bool = False) -> Unit | None:
    """The unit of a text as it is in a title or an attribute; None without a letter or digit."""
    shown = " ".join(_ENDS.sub("", word) for word in unicodedata.normalize("NFKC", text).lower().split()).strip()
    key = normalize_text(shown)
    if not key:
        return None
    words = 1 if is_unsegmented(shown) and " " not in shown else len(shown.split())
    return Unit(shown, key, words, key in _FUNCTION_WORDS, _is_code(key), unknown)


_key = functools.lru_cache(1 << 16)(normalize_text)


def join(units: Sequence[Unit]) -> str:
    """The units as one query: no space between two characters of scripts without spaces."""
    text = ""
    for unit in units:
        glued = text and is_unsegmented(text[-1]) and is_unsegmented(unit.text[0])
        text += unit.text if glued or not text else f" {unit.text}"
    return text


def _phrases(title: str) -> Iterator[list[str]]:
    """The pieces of each phrase of a title. Punctuation and prepositions separate phrases; a preposition begins one."""
    phrase: list[str] = []
    end = 0
    for match in _PIECE.finditer(title[:2000]):
        if phrase and (_BORDER.search(title, end, match.start()) or match[0].lower() in _PREPOSITIONS):
            yield phrase
            phrase = []
        phrase.append(match[0])
        end = match.end()
    if phrase:
        yield phrase


def _is_code(key: str) -> bool:
    """Whether a text is a number, a size or an article number: no letter, one letter, or many digits."""
    letters, digits = sum(map(str.isalpha, key)), sum(map(str.isdigit, key))
    return letters == 0 or (key.isascii() and len(key) == 1) or digits > letters or digits > 2


def _same_noun(one: str, other: str) -> bool:
    """Whether two words are equal up to a plural ending: "dress" and "dresses", "tshirt" and "tshirts"."""
    short, long = sorted((one, other), key=len)
    if one == other:
        return True
    return short.isascii() and len(short) > 2 and len(long) - len(short) <= 2 and long.startswith(short[:-1])
