"""Keywords: what products are asked for by, as typed terms, and how a text is searched for them.

A keyword is one thing under all its names: `colour:red` is "red" and "红色". Which keywords there are, and which names
each has, is mined from training products and clicks (`mining.py`); this file finds them in texts.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from ahocorasick_rs import AhoCorasick, Implementation, MatchKind
from jaxtyping import UInt32

from make_jax.catalog.problems import shown
from make_jax.errors import InputError

FORMAT = 1
TERM = "term"  # kind of a keyword that no attribute names

# Scripts that put no space between words: there a name may begin and end anywhere in a run.
_SPACELESS = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CHARACTER = re.compile(rf"[{_SPACELESS}]")
_WORD = re.compile(rf" ?([^\W_{_SPACELESS}]+) ?")
_ATOM = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")
_GAP = re.compile(r"[\W_]+")
_APOSTROPHES = re.compile(r"(?<=\w)['\u2019](?=\w)")  # men's is mens


def normalize_text(text: str) -> str:
    """A text in the form that its spellings share: NFKC, lower case, one space for all between words. Names have it."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return _GAP.sub(" ", _APOSTROPHES.sub("", folded)).strip()


def is_unsegmented(text: str) -> bool:
    """Whether a text or a name is written, in part at least, in a script that puts no space between words.

    A caller that puts another keyword into a query takes a name on which this agrees with the name that it replaces.
    """
    return bool(_CHARACTER.search(text))


def token_spans(normal_text: str) -> list[tuple[int, int]]:
    """Where the parts of a text in normalize_text form begin and end that no name is shorter than: words of scripts with
    spaces, characters of scripts without."""
    return [match.span() for match in _ATOM.finditer(normal_text)]


def _searchable(normal_text: str) -> str:
    """A text in the form that names are looked for in: words between two spaces of their own, runs without.

    " red  shirt " holds " red " and " shirt " beside each other, and " sacred " holds neither; "T恤" is " t 恤".
    """
    if normal_text.isascii():
        return f" {normal_text.replace(' ', '  ')} "
    return _WORD.sub(r" \1 ", normal_text)


@dataclass(frozen=True)
class Keyword:
    """One thing that products are asked for by."""

    kind: str  # colour, brand, category, ... as the catalog names its attributes; or `TERM`
    name: str  # how people are shown it
    names: tuple[
        str, ...
    ]  # every text that stands for it, in the form of `normalize_text`; see `is_unsegmented` for their script
    products: int  # training products that have it

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


_KEYS = {field.name for field in fields(Keyword)}


@dataclass(frozen=True)
class KeywordVocabulary:
    """The keywords of a catalog, numbered from 0 in this order."""

    keywords: tuple[Keyword, ...]

    def __len__(self) -> int:
        return len(self.keywords)

    @property
    def packed_words(self) -> int:
        """Length of a packed set: 32 keywords a word, at least one word."""
        return max(1, -(-len(self.keywords) // 32))

    @property
    def exclusion_groups(self) -> tuple[int, ...]:
        """A number for each keyword, the same for all values of one attribute: a product has one of them, as a rule.
        A term has a number of its own."""
        groups: dict[str, int] = {}
        return tuple(
            groups.setdefault(str(keyword) if keyword.kind == TERM else keyword.kind, len(groups))
            for keyword in self.keywords
        )

    def tag(self, text: str) -> frozenset[int]:
        """The keywords in a text. Where names overlap the leftmost counts, of these the longest: "navy blue" is not
        "blue"."""
        found = self._matcher.find_matches_as_indexes(_searchable(normalize_text(text)))
        return frozenset(keyword for match in found for keyword in self._owners[match[0]])

    def segments(self, text: str) -> list[tuple[str, frozenset[int]]]:
        """The normalize_text form of a text, cut at the names found in it, each piece with the keywords that it names.

        Pieces that are no name have no keywords; the spaces between names are such pieces. The pieces joined are
        `normalize_text(text)`, so a text with one keyword replaced is the pieces joined with one of them replaced. A piece may
        have a space that its name lacks, between two scripts: "T 恤".
        """
        whole = normalize_text(text)
        searchable = _searchable(whole)
        places = [place for place, character in enumerate(whole) if character != " "]
        cuts: list[tuple[str, frozenset[int]]] = []
        end = 0
        for number, start, stop in self._matcher.find_matches_as_indexes(searchable):
            letters = start - searchable.count(" ", 0, start), stop - searchable.count(" ", 0, stop)
            begin, after = places[letters[0]], places[letters[1] - 1] + 1
            if begin > end:
                cuts.append((whole[end:begin], frozenset()))
            cuts.append((whole[begin:after], frozenset(self._owners[number])))
            end = after
        return cuts if end == len(whole) else [*cuts, (whole[end:], frozenset())]

    def pack(self, sets: Sequence[Iterable[int]]) -> UInt32[np.ndarray, "n packed_words"]:
        """Sets of keywords as bits: keyword k is bit k % 32 of word k // 32."""
        packed = np.zeros((len(sets), self.packed_words), np.uint32)
        pairs = np.array([(row, keyword) for row, of in enumerate(sets) for keyword in of], np.int64).reshape(-1, 2)
        bits = np.left_shift(np.uint32(1), (pairs[:, 1] % 32).astype(np.uint32))
        np.bitwise_or.at(packed, (pairs[:, 0], pairs[:, 1] // 32), bits)
        return packed

    def attribute_keywords(self, attributes: dict[str, str]) -> frozenset[int]:
        """The keywords that a product's attributes say."""
        said = (self._by_value.get((kind, normalize_text(value))) for kind, value in attributes.items())
        return frozenset(keyword for keyword in said if keyword is not None)

    def to_json(self) -> str:
        """Readable JSON, one keyword a line."""
        rows = ",".join(f"\n  {json.dumps(asdict(keyword), ensure_ascii=False)}" for keyword in self.keywords)
        return f'{{"format": {FORMAT}, "keywords": [{rows}\n]}}\n'

    @classmethod
    def from_json(cls, text: str, where: str) -> "KeywordVocabulary":
        """What `to_json` wrote. InputError that names `where` for anything else."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{where}: not JSON ({error}), expected what `python -m make_jax.catalog keywords` writes"
            ) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("keywords"), list):
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InputError(f'{where}: found {shown(found)}, expected {{"format": {FORMAT}, "keywords": [...]}}')
        keywords = tuple(_keyword(row, f"{where}: keywords[{number}]") for number, row in enumerate(data["keywords"]))
        first: dict[tuple[str, str], int] = {}
        for number, keyword in enumerate(keywords):
            if first.setdefault((keyword.kind, normalize_text(keyword.name)), number) != number:
                raise InputError(f"{where}: keywords[{number}]: {shown(str(keyword))} stands twice, expected each once")
        return cls(keywords)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its keywords: each process builds a matcher of its own."""
        return KeywordVocabulary, (self.keywords,)

    @cached_property
    def _patterns(self) -> dict[str, list[int]]:
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
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise InputError(f"{where}: found {shown(row)}, expected an object with the keys {', '.join(sorted(_KEYS))}")
    kind, name, names, products = row["kind"], row["name"], row["names"], row["products"]
    if not (isinstance(kind, str) and kind and isinstance(name, str) and normalize_text(name)):
        raise InputError(f"{where}: kind {shown(kind)}, name {shown(name)}, expected two texts with a letter or digit")
    if not isinstance(names, list) or not all(isinstance(n, str) and n and normalize_text(n) == n for n in names):
        raise InputError(
            f"{where}: names {shown(names)}, expected a list of texts in lower case, one space between words"
        )
    if not isinstance(products, int) or isinstance(products, bool) or products < 0:
        raise InputError(f"{where}: products {shown(products)}, expected a count")
    return Keyword(kind, name, tuple(names), products)
