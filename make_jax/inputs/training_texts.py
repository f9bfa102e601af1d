"""The texts of the training split, tokenized and tagged with keywords once, as files that all processes map.

<built catalog>/texts-<key>/*.npy, queries.arrow       key: digest of tokenizer, keywords and lengths
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from make_jax.catalog.attributes import attributes_of_json
from make_jax.catalog.build import BuiltCatalog
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.text import normalize_query, strip_text
from make_jax.config import InputsConfig
from make_jax.files import folder_atomically
from make_jax.inputs.mapped_array import MappedArray
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.inputs.unknown_texts import UnknownTexts

FORMAT = 1
_ROWS_AT_ONCE = 65_536
_UNKNOWN = "unknown.json"


@dataclass(frozen=True)
class TrainingTexts:
    """Clicks and texts of the training split. Pickles as paths."""

    query_row: MappedArray  # [clicks] i32, row of the query arrays
    product_row: MappedArray  # [clicks] i32, row of the product arrays and of the records of training products
    query_id: MappedArray  # [queries] i32, equal for texts that normalize to the same query
    query_tokens: MappedArray  # [queries, Lq]
    query_lengths: MappedArray  # [queries], tokens that are no padding
    title_tokens: MappedArray  # [products, Lt]
    title_lengths: MappedArray  # [products]
    has_title: MappedArray  # [products] bool
    query_keywords: MappedArray  # [queries, words] u32
    product_keywords: MappedArray  # [products, words] u32
    queries: "Texts"  # distinct, in the order of their first click


class Texts(Sequence[str]):
    """Texts in an Arrow file, memory-mapped; pickles as its path."""

    def __init__(self, path: Path) -> None:
        from make_jax.catalog.line_chunks import open_batch

        self._path = path
        self._column = open_batch(path).column("text")

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_py()

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (self._path,)


def training_texts(
    built: BuiltCatalog,
    tokenizer: Tokenizer,
    vocabulary: KeywordVocabulary,
    inputs: InputsConfig,
    message: Callable[[str], None],
) -> TrainingTexts:
    """The texts of a built catalog for a tokenizer and keywords; written next to its shards by the first call.

    One process writes, others wait for it. A call that was interrupted leaves nothing that is read. `message` receives
    a line about titles, and one about queries, that are mostly unknown to the tokenizer.
    """
    folder = built.folder / f"texts-{_key(tokenizer, vocabulary, inputs, built.derivation)}"
    with (built.folder / ".texts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with folder_atomically(folder) as partial:
                titles = _write_titles(partial, built, tokenizer, vocabulary, inputs.max_title_tokens)
                queries = _write_queries(partial, built, tokenizer, vocabulary, inputs.max_query_tokens)
                (partial / _UNKNOWN).write_text(json.dumps([asdict(titles), asdict(queries)]), encoding="utf-8")
    arrays = {field.name: MappedArray(folder / f"{field.name}.npy") for field in fields(TrainingTexts)[:-1]}
    unknown = json.loads((folder / _UNKNOWN).read_text(encoding="utf-8"))
    for name, counts in zip(("training titles", "clicked queries"), unknown, strict=True):
        if line := UnknownTexts(**counts).message(name):
            message(line)
    return TrainingTexts(**arrays, queries=Texts(folder / "queries.arrow"))


def _key(tokenizer: Tokenizer, vocabulary: KeywordVocabulary, inputs: InputsConfig, derivation: str) -> str:
    lengths = [FORMAT, inputs.max_query_tokens, inputs.max_title_tokens, derivation]
    sha = hashlib.sha256(json.dumps(lengths).encode())
    for text in (tokenizer.definition, vocabulary.to_json()):
        sha.update(hashlib.sha256(text.encode("utf-8")).digest())
    return sha.hexdigest()[:16]


def _write_titles(
    folder: Path, built: BuiltCatalog, tokenizer: Tokenizer, vocabulary: KeywordVocabulary, length: int
) -> UnknownTexts:
    products = built.split_products("train")
    count = len(products)
    keywords = _create(folder / "product_keywords.npy", np.uint32, (count, vocabulary.packed_words))
    has_title = _create(folder / "has_title.npy", np.bool_, (count,))
    tokens, lengths = _create_tokens(folder, "title", tokenizer, (count, length))
    unknown, start = UnknownTexts(), 0
    for titles, attributes in zip(products.values("title"), products.values("attributes"), strict=True):
        rows = slice(start, start + len(titles))
        tokens[rows], lengths[rows] = _encode(tokenizer, titles, length, unknown)
        has_title[rows] = [bool(strip_text(title)) for title in titles]
        tagged = [
            vocabulary.tag(title) | vocabulary.attribute_keywords(attributes_of_json(values))
            for title, values in zip(titles, attributes, strict=True)
        ]
        keywords[rows] = vocabulary.pack(tagged)
        start = rows.stop
    return unknown


def _write_queries(
    folder: Path, built: BuiltCatalog, tokenizer: Tokenizer, vocabulary: KeywordVocabulary, length: int
) -> UnknownTexts:
    import pyarrow as pa  # type: ignore[import-untyped]

    from make_jax.catalog.line_chunks import write_batch

    clicks = built.clicks.column("query").unify_dictionaries()  # keeps the order of first occurrence
    queries: pa.Array = clicks.chunk(0).dictionary if clicks.num_chunks else pa.array([], pa.string())
    query_row = _create(folder / "query_row.npy", np.int32, (len(clicks),))
    start = 0
    for chunk in clicks.chunks:
        query_row[start : start + len(chunk)] = chunk.indices.to_numpy()
        start += len(chunk)
    np.save(folder / "product_row.npy", built.clicked())
    write_batch(pa.record_batch({"text": queries}), folder / "queries.arrow")

    keywords = _create(folder / "query_keywords.npy", np.uint32, (len(queries), vocabulary.packed_words))
    tokens, lengths = _create_tokens(folder, "query", tokenizer, (len(queries), length))
    unknown, normalized = UnknownTexts(), []
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        texts = queries[start : start + _ROWS_AT_ONCE].to_pylist()
        rows = slice(start, start + len(texts))
        tokens[rows], lengths[rows] = _encode(tokenizer, texts, length, unknown)
        keywords[rows] = vocabulary.pack([vocabulary.tag(text) for text in texts])
        normalized.append(pa.array([normalize_query(text) for text in texts], pa.string()))
    ids = pa.chunked_array(normalized, pa.string()).combine_chunks().dictionary_encode().indices
    np.save(folder / "query_id.npy", ids.to_numpy().astype(np.int32))
    return unknown


def _create(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A new .npy file as an array to be filled."""
    if 0 in shape:  # cannot be mapped
        np.save(path, np.zeros(shape, dtype))
        return np.zeros(shape, dtype)
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _create_tokens(folder: Path, name: str, tokenizer: Tokenizer, shape: tuple[int, int]) -> tuple[Any, Any]:
    """New arrays of token ids, in the smallest type, and of their numbers."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    tokens = _create(folder / f"{name}_tokens.npy", dtype, shape)
    return tokens, _create(folder / f"{name}_lengths.npy", np.uint16, shape[:1])


def _encode(
    tokenizer: Tokenizer, texts: list[str], length: int, unknown: UnknownTexts
) -> tuple[Int32[np.ndarray, "n L"], Any]:
    """Token ids, and how many of each row are no padding; adds the texts to `unknown`."""
    tokens, mask = tokenizer.encode(texts, length)
    unknown.add(texts, tokenizer, tokens, mask)
    lengths = mask.sum(axis=1)
    assert np.array_equal(mask, token_mask(lengths, length)), "padding is not at the end"
    return tokens, lengths


def token_mask(lengths: np.ndarray, length: int) -> Bool[np.ndarray, "n L"]:
    """The mask of rows of `length` tokens of which the first `lengths` are no padding."""
    return np.arange(length) < lengths[:, None]
