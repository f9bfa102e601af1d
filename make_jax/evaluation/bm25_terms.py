"""The tokens of BM25 and its parameters; imports no jax, because a search engine's process needs no more."""

import itertools
import re
import unicodedata
from typing import NamedTuple

from make_jax.catalog.scripts import JOINERS, MARKS, SOUTHEAST_ASIAN

# Chinese characters, Japanese kana and Korean syllables: scripts that do not separate words by spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LETTER = rf"(?:(?![{_CJK}{SOUTHEAST_ASIAN}_])\w)"
_WORD = rf"{_LETTER}+(?:[{MARKS}]+{_LETTER}*)*"
_CLUSTER = rf"(?=\w)[{SOUTHEAST_ASIAN}][{MARKS}]*"  # a letter with its vowel and tone marks
_PIECES = re.compile(rf"(?P<cjk>[{_CJK}]+)|(?P<clusters>(?:{_CLUSTER})+)|{_WORD}(?:-{_WORD})*")


def tokenize(text: str) -> list[str]:
    """Returns the tokens for BM25: NFKC, lower case, no plural s; in scripts without spaces, characters and bigrams.

    These scripts are Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer. Combining marks belong to
    their letters. "t-shirts" gives t, shirt and tshirt, because both spellings are common; "women's" gives women.
    """
    tokens = []
    for piece in _PIECES.finditer(re.sub(rf"['\u2019{JOINERS}]", "", unicodedata.normalize("NFKC", text).lower())):
        if characters := piece["cjk"] or re.findall(_CLUSTER, piece["clusters"] or ""):
            tokens += [*characters, *(a + b for a, b in itertools.pairwise(characters))]
        else:
            parts = piece[0].split("-")
            tokens += [_singular(word) for word in (parts if len(parts) == 1 else [*parts, "".join(parts)])]
    return tokens


def _singular(word: str) -> str:
    """Returns the word without its plural s; words of four letters or more [ours, after Harman 1991, S stemmer]."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


class BM25Parameters(NamedTuple):
    """Parameters of BM25; the defaults are those of Lucene."""

    k1: float = 1.2
    b: float = 0.75


DEFAULT_BM25 = BM25Parameters()
