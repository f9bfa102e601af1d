"""Keywords: what products are asked for by, as typed terms, and how a text is searched for them.

A keyword is one thing under all its names: `colour:red` is "red" and "红色". Which keywords there are, and which names
each has, is mined from training products and clicks (`mining.py`); this file finds them in texts.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ahocorasick_rs import AhoCorasick, Implementation, MatchKind
from jaxtyping import UInt32

from make_jax.errors import InputError

FORMAT = 1
TERM = "term"  # kind of a keyword that no attribute names

# Scripts that put no space between words: there a name may begin and end anywhere in a run.
_SPACELESS = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECES = re.compile(rf"[{_SPACELESS}]+|[^\W_{_SPACELESS}]+")
_SPACELESS_RUN = re.compile(rf"[{_SPACELESS}]")
_APOSTROPHES = re.compile(r"(?<=\w)['\u2019](?=\w)")  # men's is mens


def pieces(text: str) -> list[str]:
    """The words of a text in NFKC and lower case; a run of a script without spaces is one piece."""
    return _PIECES.findall(_APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).lower()))


def spaceless(piece: str) -> bool:
    """Whether a piece is a run of a script that puts no space between words."""
    return bool(_SPACELESS_RUN.match(piece))


def _searchable(text: str) -> str:
    """The text in the form that names are looked for in: every word between spaces of its own, runs between bars.

    " red  shirt " holds " red " and " shirt ", and "sacred" holds neither.
    """
    return "".join(f"|{piece}|" if spaceless(piece) else f" {piece} " for piece in pieces(text))


def _pattern(name: str) -> str:
    """A name as it stands in a searchable text; runs may begin and end inside a longer one."""
    return _searchable(name).strip("|")


@dataclass(frozen=True)
class Keyword:
    """One thing that products are asked for by."""

    kind: str  # colour, brand, category, ... as the catalog names its attributes; or `TERM`
    name: str  # how people are shown it
    names: tuple[str, ...]  # every text that stands for it, `name` included, in the form of `normal`
    products: int  # training products that have it

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def normal(name: str) -> str:
    """A name in the form that two of its spellings share."""
    return " ".join(pieces(name))


@dataclass(frozen=True)
class KeywordVocabulary:
    """The keywords of a catalog, numbered from 0 in this order."""

    keywords: tuple[Keyword, ...]

    def __len__(self) -> int:
        return len(self.keywords)

    @property
    def words(self) -> int:
        """Length of a packed set: 32 keywords a word, at least one word."""
        return max(1, -(-len(self.keywords) // 32))

    def tag(self, text: str) -> frozenset[int]:
        """The keywords in a text. Where names overlap the leftmost counts, of these the longest: "navy blue" is not
        "blue"."""
        found = self._matcher.find_matches_as_indexes(_searchable(text))
        return frozenset(keyword for match in found for keyword in self._owners[match[0]])

    def pack(self, sets: Sequence[Iterable[int]]) -> UInt32[np.ndarray, "n words"]:
        """Sets of keywords as bits: keyword k is bit k % 32 of word k // 32."""
        packed = np.zeros((len(sets), self.words), np.uint32)
        for row, keywords in enumerate(sets):
            for keyword in keywords:
                packed[row, keyword // 32] |= np.uint32(1 << keyword % 32)
        return packed

    def of_attributes(self, attributes: dict[str, str]) -> frozenset[int]:
        """The keywords that a product's attributes say."""
        said = (self._by_value.get((kind, normal(value))) for kind, value in attributes.items())
        return frozenset(keyword for keyword in said if keyword is not None)

    def to_json(self) -> str:
        """Readable JSON, one keyword a line."""
        rows = [
            {"kind": k.kind, "name": k.name, "names": list(k.names), "products": k.products} for k in self.keywords
        ]
        lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        return f'{{"format": {FORMAT}, "keywords": [\n  {lines}\n]}}\n' if rows else f'{{"format": {FORMAT}, "keywords": []}}\n'

    @classmethod
    def from_json(cls, text: str, where: str) -> "KeywordVocabulary":
        """What `to_json` wrote. InputError that names `where` for anything else."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise InputError(f"{where}: keyword format {data['format']!r}, expected {FORMAT}")
            return cls(tuple(_keyword(row) for row in data["keywords"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{where}: no keyword vocabulary ({type(error).__name__}: {error})") from None

    @cached_property
    def _patterns(self) -> dict[str, list[int]]:
        owners: dict[str, list[int]] = {}
        for number, keyword in enumerate(self.keywords):
            for name in keyword.names:
                owners.setdefault(_pattern(name), []).append(number)
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
        return {(keyword.kind, normal(keyword.name)): number for number, keyword in enumerate(self.keywords)}


def _keyword(row: dict[str, Any]) -> Keyword:
    return Keyword(str(row["kind"]), str(row["name"]), tuple(str(name) for name in row["names"]), int(row["products"]))
