"""Corrects misspelled words of a query by the words of the indexed products [ours, after Norvig 2007].

A word of at least four letters is misspelled if no product has it and the model's tokenizer splits it into pieces. It
is replaced by the word of most products among those at one edit: a letter more, less or different, or two neighbors
swapped. The first letter, which people rarely get wrong, stays. docs/serving.md has the measured gain.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping

from make_jax.catalog.keywords import is_unsegmented, normalize_text
from make_jax.catalog.title_units import unit_of
from make_jax.evaluation.models.exported import Exported
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.retrieval.embed import Encoder
from make_jax.retrieval.retriever import Retriever

MAX_WORDS = 10  # of a query that is corrected
_MIN_PRODUCTS = 3  # that have a word which replaces another
_WORD = re.compile(r"(?<![\w'-])[^\W\d_]{4,30}(?![\w'-])")  # letters only: no article numbers, no parts of words


class Spelling:
    """Corrects the queries of an index."""

    def __init__(self, model: Encoder, products_with: Callable[[], Mapping[str, int]]) -> None:
        """`products_with` returns how many products have each word; it is called when a query has an unknown word.

        Queries of a model whose tokenizer is not that of a run or an export are not corrected.
        """
        self._tokenizer: Tokenizer | None = None
        if isinstance(model, Retriever):
            self._tokenizer = model.tokenizer
        elif isinstance(model, Exported):
            self._tokenizer = model.bundle.tokenizer
        self._products_with = products_with

    def correct(self, text: str) -> str:
        """The text with its misspelled words replaced; "" if there is none."""
        words = {word for word in _WORD.findall(text) if not is_unsegmented(word)}
        if self._tokenizer is None or len(text.split()) > MAX_WORDS:
            return ""
        unknown = [word for word in words if not self._is_token(self._tokenizer, word)]
        corrections = {word: found for word in unknown if (found := self._correction(normalize_text(word)))}
        return _WORD.sub(lambda match: corrections.get(match[0], match[0]), text) if corrections else ""

    def _is_token(self, tokenizer: Tokenizer, word: str) -> bool:
        """Whether the tokenizer has the word undivided."""
        special = self._special_tokens
        tokens, mask = tokenizer.encode([word], special + 2)
        return int(mask.sum()) == special + 1 and not tokenizer.mostly_unknown(tokens, mask)[0]

    @functools.cached_property
    def _special_tokens(self) -> int:
        """How many tokens surround a text."""
        assert self._tokenizer is not None
        return int(self._tokenizer.encode([""], 8)[1].sum())

    @functools.cached_property
    def _counts(self) -> Mapping[str, int]:
        return self._products_with()

    @functools.cached_property
    def _alphabet(self) -> str:
        return "".join(sorted({letter for word in self._counts for letter in word if letter.isalpha()}))

    def _correction(self, word: str) -> str:
        """The word that replaces a word which the tokenizer divides; "" if it stays."""
        unit = unit_of(word)
        if not word or word in self._counts or unit is None or unit.function:
            return ""
        found = [edit for edit in _edits(word, self._alphabet) if self._counts.get(edit, 0) >= _MIN_PRODUCTS]
        return max(found, key=lambda edit: (self._counts[edit], edit), default="")


def _edits(word: str, alphabet: str) -> Iterator[str]:
    """The words at one edit that have the same first letter."""
    for at in range(1, len(word) + 1):
        head, tail = word[:at], word[at:]
        if tail:
            yield head + tail[1:]
            yield from (head + letter + tail[1:] for letter in alphabet)
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        yield from (head + letter + tail for letter in alphabet)
