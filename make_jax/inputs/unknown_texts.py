"""Texts of which a tokenizer knows little: the model cannot tell them apart."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool, Int32
from numpy import ndarray

from make_jax.catalog import jsonl
from make_jax.catalog.reader import Catalog
from make_jax.catalog.reporting import preview
from make_jax.config import InputsConfig
from make_jax.inputs.tokenizer import Tokenizer

_SHOWN = 3  # examples in a message


@dataclass
class UnknownTexts:
    """Counts the texts that are mostly unknown tokens."""

    count: int = 0
    total: int = 0
    examples: list[str] = field(default_factory=list)  # the first

    def add(
        self,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        tokens: Int32[ndarray, "n length"],
        mask: Bool[ndarray, "n length"],
    ) -> None:
        """Adds texts; `tokens` and `mask` are those of `tokenizer.encode(texts, ...)`."""
        rows = tokenizer.mostly_unknown(tokens, mask).nonzero()[0]
        self.count += len(rows)
        self.total += len(texts)
        self.examples += [preview(texts[row]) for row in rows[: _SHOWN - len(self.examples)]]

    @classmethod
    def sum(cls, parts: Iterable["UnknownTexts"]) -> "UnknownTexts":
        """The counts of consecutive texts that were counted in parts."""
        joined = cls()
        for part in parts:
            joined.count += part.count
            joined.total += part.total
            joined.examples += part.examples[: _SHOWN - len(joined.examples)]
        return joined

    def message(self, name: str) -> str | None:
        """Returns one line with the count and the first examples; None without any. `name` is a plural: "titles"."""
        if not self.count:
            return None
        dots = ", ..." if self.count > len(self.examples) else ""
        return (
            f"{self.count:,} of {self.total:,} {name} are more than half unknown tokens, so that the model can hardly "
            f"tell them apart: {', '.join(self.examples)}{dots}; use a tokenizer that knows their characters "
            "(inputs.vocab_size, inputs.new_characters, inputs.tokenizer)"
        )


def unknown_by_file(catalog: Catalog, tokenizer: Tokenizer, inputs: InputsConfig) -> dict[str, str]:
    """Returns the message about all titles of a catalog, and of its distinct queries, by the file they are from."""
    judged = dict.fromkeys(itertools.chain.from_iterable(catalog.queries.values("text")))
    files = {
        jsonl.PRODUCTS: ("titles", catalog.products.values("title"), inputs.max_title_tokens),
        jsonl.CLICKS: ("clicked queries", catalog.clicks.distinct("query"), inputs.max_query_tokens),
        jsonl.QUERIES: ("judged queries", [list(judged)], inputs.max_query_tokens),
    }
    messages = {}
    for file, (name, parts, length) in files.items():
        unknown = UnknownTexts()
        for texts in parts:
            unknown.add(texts, tokenizer, *tokenizer.encode(texts, length))
        if message := unknown.message(name):
            messages[file] = message
    return messages
