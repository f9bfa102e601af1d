"""Keyword vocabulary: typed search terms with their synonyms, and an Aho-Corasick matcher that tags texts with them.

A keyword is one concept with all its names: `colour:red` has the names "red" and "红色". `mining.py` mines the
vocabulary from training products and clicks; this module matches it against texts.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from ahocorasick_rs import AhoCorasick, Implementation, MatchKind
from jaxtyping import UInt32

from make_jax import unique_json
from make_jax.catalog.attributes import AttributeValue, attribute_texts
from make_jax.catalog.reporting import preview
from make_jax.catalog.scripts import IDEOGRAPHIC, JOINERS, MARKS, SOUTHEAST_ASIAN
from make_jax.errors import InputError

FORMAT = 1
TERM = "term"  # kind of a keyword that comes from no attribute

# In scripts without spaces between words, a name may start and end at any character, with its combining marks.
_UNSEGMENTED = IDEOGRAPHIC + SOUTHEAST_ASIAN
_CHARACTER = re.compile(rf"[{_UNSEGMENTED}]")
_SEGMENTED_WORD = rf"[^\W_{_UNSEGMENTED}]+(?:[{MARKS}]+[^\W_{_UNSEGMENTED}]*)*"
_WORD = re.compile(rf" ?({_SEGMENTED_WORD}) ?")
_TOKEN = re.compile(rf"[{_UNSEGMENTED}][{MARKS}]*|{_SEGMENTED_WORD}")
_CLUSTER = re.compile(rf"[{SOUTHEAST_ASIAN}][{MARKS}]*")
_SEPARATORS = re.compile(rf"(?:^[{MARKS}]+|(?:[^\w{MARKS}]|_)[{MARKS}]*)+")  # a mark after none of a letter is one too
_ASCII_SEPARATORS = re.compile(r"[\W_]+")  # three times as fast
# Dropped inside a word: "men's" becomes "mens".
_INSIDE = re.compile(rf"(?<=[\w{MARKS}])(?:['\u2019](?=\w)|[{JOINERS}]+(?=[\w{MARKS}]))")


def normalize_text(text: str) -> str:
    """Normalized form of a text: NFKC, lower case, one space between words. All keyword names have this form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    separators = _ASCII_SEPARATORS if folded.isascii() else _SEPARATORS
    return separators.sub(" ", _INSIDE.sub("", folded)).strip()


# Attributes have few distinct values, and a page of results has those of 24 products.
_normalize_value = lru_cache(maxsize=1 << 14)(normalize_text)


def is_unsegmented(text: str) -> bool:
    """Whether a text contains characters of a script without spaces between words (Chinese, Japanese, Thai, ...).

    When one keyword of a query is replaced by another, the new name must agree with the old one on this.
    """
    return bool(_CHARACTER.search(text))


def token_spans(normalized: str) -> list[tuple[int, int]]:
    """Start and end of each token of a normalized text: a word, or an unsegmented character with its marks."""
    return [match.span() for match in _TOKEN.finditer(normalized)]


def _searchable(normalized: str) -> str:
    """The text with a space before and after each word, so that the matcher finds complete words only.

    " red  shirt " contains " red " and " shirt " next to each other; " sacred " contains neither. Characters of
    unsegmented scripts get no spaces: "T恤" becomes " t 恤". Those that combine marks get one after each letter with
    its marks, so that no name ends before a mark: "เสือ" (tiger) is not in "เสื้อ" (shirt).
    """
    if normalized.isascii():
        return f" {normalized.replace(' ', '  ')} "
    return _CLUSTER.sub(r"\g<0> ", _WORD.sub(r" \1 ", normalized))


@dataclass(frozen=True)
class Keyword:
    """One concept that shoppers search for."""

    kind: str  # attribute key of the catalog (colour, brand, category, ...) or `TERM`
    name: str  # display name
    names: tuple[str, ...]  # all names, normalized; any script
    products: int  # number of training products that have the keyword

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


_KEYS = {field.name for field in fields(Keyword)}


@dataclass(frozen=True)
class KeywordVocabulary:
    """The keywords of a catalog. A keyword's id is its position in `keywords`."""

    keywords: tuple[Keyword, ...]

    def __len__(self) -> int:
        return len(self.keywords)

    @property
    def packed_words(self) -> int:
        """Number of uint32 words of a packed keyword set: 32 keywords a word, at least one word."""
        return max(1, -(-len(self.keywords) // 32))

    @property
    def exclusion_groups(self) -> tuple[int, ...]:
        """Group id of each keyword. Values of one attribute share a group, because a product usually has one of them;
        a keyword of kind `TERM` is alone in its group."""
        groups: dict[str, int] = {}
        return tuple(
            groups.setdefault(str(keyword) if keyword.kind == TERM else keyword.kind, len(groups))
            for keyword in self.keywords
        )

    def tag(self, text: str) -> frozenset[int]:
        """Ids of the keywords in a text. Of overlapping names the leftmost wins, then the longest: "navy blue" is not
        tagged "blue"."""
        matches = self._matcher.find_matches_as_indexes(_searchable(normalize_text(text)))
        return frozenset(keyword for match in matches for keyword in self._owners[match[0]])

    def segments(self, text: str) -> list[tuple[str, frozenset[int]]]:
        """The normalized text, split at keyword names: (segment, ids of the keywords it names).

        Text between names, spaces included, has an empty set. The segments joined are `normalize_text(text)`, so
        replacing one segment replaces one keyword. Between two scripts a segment may contain a space that the name
        lacks: "T 恤".
        """
        normalized = normalize_text(text)
        searchable = _searchable(normalized)
        letters = [position for position, character in enumerate(normalized) if character != " "]
        segments: list[tuple[str, frozenset[int]]] = []
        end = 0
        for number, start, stop in self._matcher.find_matches_as_indexes(searchable):
            # Spaces differ between the two forms, letters do not: positions are translated by counting letters.
            first, last = start - searchable.count(" ", 0, start), stop - searchable.count(" ", 0, stop) - 1
            begin, after = letters[first], letters[last] + 1
            if begin > end:
                segments.append((normalized[end:begin], frozenset()))
            segments.append((normalized[begin:after], frozenset(self._owners[number])))
            end = after
        return segments if end == len(normalized) else [*segments, (normalized[end:], frozenset())]

    def pack(self, sets: Sequence[Iterable[int]]) -> UInt32[np.ndarray, "n packed_words"]:
        """Keyword sets as bit masks: keyword k is bit k % 32 of word k // 32."""
        packed = np.zeros((len(sets), self.packed_words), np.uint32)
        pairs = np.array([(row, id) for row, ids in enumerate(sets) for id in ids], np.int64).reshape(-1, 2)
        bits = np.left_shift(np.uint32(1), (pairs[:, 1] % 32).astype(np.uint32))
        np.bitwise_or.at(packed, (pairs[:, 0], pairs[:, 1] // 32), bits)
        return packed

    def attribute_keywords(self, attributes: Mapping[str, AttributeValue]) -> frozenset[int]:
        """Ids of the keywords that equal an attribute value of a product, or a text in a list."""
        ids = (self._by_value.get((kind, _normalize_value(text))) for kind, text in attribute_texts(attributes))
        return frozenset(id for id in ids if id is not None)

    def to_json(self) -> str:
        """JSON with one keyword a line."""
        lines = ",".join(f"\n  {json.dumps(asdict(keyword), ensure_ascii=False)}" for keyword in self.keywords)
        return f'{{"format": {FORMAT}, "keywords": [{lines}\n]}}\n'

    @classmethod
    def from_json(cls, text: str, where: str) -> "KeywordVocabulary":
        """The vocabulary that `to_json` wrote. Raises InputError, naming `where`, for any other content."""
        try:
            data = unique_json.loads(text)
        except unique_json.DuplicateKeyError as error:
            raise InputError(f"{where}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{where}: not JSON ({error}), expected the output of `python -m make_jax.catalog keywords`"
            ) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("keywords"), list):
            value = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InputError(f'{where}: found {preview(value)}, expected {{"format": {FORMAT}, "keywords": [...]}}')
        keywords = tuple(_keyword(row, f"{where}: keywords[{number}]") for number, row in enumerate(data["keywords"]))
        first: dict[tuple[str, str], int] = {}
        for number, keyword in enumerate(keywords):
            if first.setdefault((keyword.kind, normalize_text(keyword.name)), number) != number:
                raise InputError(f"{where}: keywords[{number}]: duplicate {preview(str(keyword))}, expected it once")
        return cls(keywords)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the keywords only; each process builds its own matcher."""
        return KeywordVocabulary, (self.keywords,)

    @cached_property
    def _patterns(self) -> dict[str, list[int]]:
        """Search pattern -> ids of the keywords with that name."""
        owners: dict[str, list[int]] = {}
        for number, keyword in enumerate(self.keywords):
            for name in keyword.names:
                owners.setdefault(_searchable(name), []).append(number)
        return owners

    @cached_property
    def _owners(self) -> list[list[int]]:
        return list(self._patterns.values())

    @cached_property
    def _matcher(self) -> AhoCorasick:
        return AhoCorasick(
            list(self._patterns), matchkind=MatchKind.LeftmostLongest, implementation=Implementation.ContiguousNFA
        )

    @cached_property
    def _by_value(self) -> dict[tuple[str, str], int]:
        return {(keyword.kind, normalize_text(keyword.name)): number for number, keyword in enumerate(self.keywords)}


def _keyword(row: Any, where: str) -> Keyword:
    """The validated keyword of one entry of the JSON list."""
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise InputError(f"{where}: found {preview(row)}, expected an object with the keys {', '.join(sorted(_KEYS))}")
    kind, name, names, products = row["kind"], row["name"], row["names"], row["products"]
    if not (isinstance(kind, str) and kind and isinstance(name, str) and normalize_text(name)):
        raise InputError(
            f"{where}: kind {preview(kind)}, name {preview(name)}, expected two texts with a letter or digit"
        )
    if not isinstance(names, list) or not all(isinstance(n, str) and n and normalize_text(n) == n for n in names):
        raise InputError(
            f"{where}: names {preview(names)}, expected a list of texts in lower case, one space between words"
        )
    if not isinstance(products, int) or isinstance(products, bool) or products < 0:
        raise InputError(f"{where}: products {preview(products)}, expected a count")
    return Keyword(kind, name, tuple(names), products)
