"""Texts of which a tokenizer knows little: the model cannot tell them apart."""

from collections.abc import Sequence

from jaxtyping import Bool, Int32
from numpy import ndarray

from make_jax.catalog import jsonl
from make_jax.catalog.reader import Catalog
from make_jax.catalog.reporting import preview
from make_jax.config import InputsConfig
from make_jax.inputs.tokenizer import Tokenizer

_SHOWN = 3  # examples in a message


def unknown_message(
    name: str,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    tokens: Int32[ndarray, "n length"],
    mask: Bool[ndarray, "n length"],
) -> str | None:
    """Returns one line that counts the texts that are mostly unknown tokens, with the first examples; None without any.

    `name` is their plural, such as "titles"; `tokens` and `mask` are those of `tokenizer.encode(texts, ...)`.
    """
    rows = tokenizer.mostly_unknown(tokens, mask).nonzero()[0]
    if not len(rows):
        return None
    examples = ", ".join(preview(texts[row]) for row in rows[:_SHOWN])
    return (
        f"{len(rows):,} of {len(texts):,} {name} are more than half unknown tokens, so that the model can hardly tell "
        f"them apart: {examples}{', ...' if len(rows) > _SHOWN else ''}; use a tokenizer that knows their characters "
        "(inputs.vocab_size, inputs.new_characters, inputs.tokenizer)"
    )


def unknown_by_file(catalog: Catalog, tokenizer: Tokenizer, inputs: InputsConfig) -> dict[str, str]:
    """Returns `unknown_message` of all titles of a catalog, and of its distinct queries, by the file they are from."""
    files = {
        jsonl.PRODUCTS: ("titles", [product.title for product in catalog.products], inputs.max_title_tokens),
        jsonl.CLICKS: ("clicked queries", [click.query for click in catalog.clicks], inputs.max_query_tokens),
        jsonl.QUERIES: ("judged queries", [query.text for query in catalog.queries], inputs.max_query_tokens),
    }
    messages = {}
    for file, (name, texts, length) in files.items():
        distinct = texts if file == jsonl.PRODUCTS else list(dict.fromkeys(texts))
        message = unknown_message(name, distinct, tokenizer, *tokenizer.encode(distinct, length))
        if message is not None:
            messages[file] = message
    return messages
