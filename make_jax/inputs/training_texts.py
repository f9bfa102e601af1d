"""The texts of the training split, tokenized and tagged with keywords once, as files that all processes map.

<built catalog>/texts-<key>/*.npy, queries.arrow       key: digest of tokenizer, keywords and lengths
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from make_jax.catalog.attributes import attributes_of_json
from make_jax.catalog.build import BuiltCatalog
from make_jax.catalog.executors import Executor, open_executor
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.text import normalize_query, strip_text
from make_jax.config import InputsConfig
from make_jax.files import folder_atomically
from make_jax.inputs.mapped_array import MappedArray
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.inputs.unknown_texts import UnknownTexts

FORMAT = 1
_ROWS_AT_ONCE = 65_536
MAX_IN_PROCESS = 500_000  # clicks and products; the texts of more are written by several processes
_UNKNOWN, _QUERIES = "unknown.json", "queries.arrow"
_TITLES, _CLICKED = ("title_tokens", "title_lengths"), ("query_tokens", "query_lengths")


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

    One process writes, with workers of its own if there are many texts, and others wait for it. The bytes do not depend
    on the workers. A call that was interrupted leaves nothing that is read. `message` receives a line about titles, and
    one about queries, that are mostly unknown to the tokenizer.
    """
    folder = built.folder / f"texts-{_key(tokenizer, vocabulary, inputs, built.derivation)}"
    with (built.folder / ".texts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with folder_atomically(folder) as partial:
                with _open_executor(built) as executor:
                    worker = _Worker(built, tokenizer.definition, vocabulary)
                    titles = _write_titles(partial, worker, inputs.max_title_tokens, executor)
                    queries = _write_queries(partial, worker, inputs.max_query_tokens, executor)
                (partial / _UNKNOWN).write_text(json.dumps([asdict(titles), asdict(queries)]), encoding="utf-8")
    arrays = {field.name: MappedArray(folder / f"{field.name}.npy") for field in fields(TrainingTexts)[:-1]}
    unknown = json.loads((folder / _UNKNOWN).read_text(encoding="utf-8"))
    for name, counts in zip(("training titles", "clicked queries"), unknown, strict=True):
        if line := UnknownTexts(**counts).message(name):
            message(line)
    return TrainingTexts(**arrays, queries=Texts(folder / _QUERIES))


def _open_executor(built: BuiltCatalog) -> AbstractContextManager[Executor]:
    """A process a core, or this one for few texts: then a script needs no `if __name__ == "__main__"`."""
    return open_executor(1 if len(built.clicks) + len(built.split_products("train")) <= MAX_IN_PROCESS else 0)


def _key(tokenizer: Tokenizer, vocabulary: KeywordVocabulary, inputs: InputsConfig, derivation: str) -> str:
    lengths = [FORMAT, inputs.max_query_tokens, inputs.max_title_tokens, derivation]
    sha = hashlib.sha256(json.dumps(lengths).encode())
    for text in (tokenizer.definition, vocabulary.to_json()):
        sha.update(hashlib.sha256(text.encode("utf-8")).digest())
    return sha.hexdigest()[:16]


def _write_titles(folder: Path, worker: "_Worker", length: int, executor: Executor) -> UnknownTexts:
    count, words = len(worker.built.split_products("train")), worker.vocabulary.packed_words
    _create(folder / "product_keywords.npy", np.uint32, (count, words))
    _create(folder / "has_title.npy", np.bool_, (count,))
    _create_tokens(folder, "title", worker.tokenizer, (count, length))
    shared = executor.share(worker)
    jobs = ((shared, folder, slice(*bounds)) for bounds in _parts(count))
    return UnknownTexts.sum(executor.map(_write_some_titles, jobs))


def _write_some_titles(worker: "_Worker", folder: Path, rows: slice) -> UnknownTexts:
    """Fills some rows of the arrays of titles. Runs in worker processes."""
    vocabulary, products = worker.vocabulary, worker.built.split_products("train")[rows]
    arrays = {name: _open(folder / f"{name}.npy") for name in (*_TITLES, "has_title", "product_keywords")}
    unknown, start = UnknownTexts(), rows.start
    for titles, attributes in zip(products.values("title"), products.values("attributes"), strict=True):
        some = slice(start, start + len(titles))
        _encode(worker.tokenizer, titles, arrays["title_tokens"][some], arrays["title_lengths"][some], unknown)
        arrays["has_title"][some] = [bool(strip_text(title)) for title in titles]
        tagged = [
            vocabulary.tag(title) | vocabulary.attribute_keywords(attributes_of_json(values))
            for title, values in zip(titles, attributes, strict=True)
        ]
        arrays["product_keywords"][some] = vocabulary.pack(tagged)
        start = some.stop
    return unknown


def _write_queries(folder: Path, worker: "_Worker", length: int, executor: Executor) -> UnknownTexts:
    """Writes the arrays of clicks and queries. Tables of all texts are in the memory of worker processes only."""
    shared = executor.share(worker)
    count = executor.submit(_write_clicks, shared, folder)()
    _create(folder / "query_keywords.npy", np.uint32, (count, worker.vocabulary.packed_words))
    _create_tokens(folder, "query", worker.tokenizer, (count, length))
    parts = [slice(*bounds) for bounds in _parts(count)]
    unknown = UnknownTexts.sum(executor.map(_write_some_queries, ((shared, folder, rows) for rows in parts)))
    executor.submit(_write_query_ids, [_normalized(folder, rows) for rows in parts], folder)()
    return unknown


def _write_clicks(worker: "_Worker", folder: Path) -> int:
    """Writes the rows of clicks and the distinct queries; returns the number of these."""
    import pyarrow as pa  # type: ignore[import-untyped]

    from make_jax.catalog.line_chunks import write_batch

    clicks = worker.built.clicks.column("query").unify_dictionaries()  # keeps the order of first occurrence
    queries: pa.Array = clicks.chunk(0).dictionary if clicks.num_chunks else pa.array([], pa.string())
    query_row = _create(folder / "query_row.npy", np.int32, (len(clicks),))
    start = 0
    for chunk in clicks.chunks:
        query_row[start : start + len(chunk)] = chunk.indices.to_numpy()
        start += len(chunk)
    np.save(folder / "product_row.npy", worker.built.clicked())
    write_batch(pa.record_batch({"text": queries}), folder / _QUERIES)
    return len(queries)


def _write_some_queries(worker: "_Worker", folder: Path, rows: slice) -> UnknownTexts:
    """Fills some rows of the arrays of queries, and writes their normalized texts for `_write_query_ids`."""
    import pyarrow as pa

    from make_jax.catalog.line_chunks import open_batch, write_batch

    texts = open_batch(folder / _QUERIES).column("text")[rows].to_pylist()
    tokens, lengths, keywords = (_open(folder / f"{name}.npy") for name in (*_CLICKED, "query_keywords"))
    unknown, vocabulary = UnknownTexts(), worker.vocabulary
    _encode(worker.tokenizer, texts, tokens[rows], lengths[rows], unknown)
    keywords[rows] = vocabulary.pack([vocabulary.tag(text) for text in texts])
    normalized = pa.array([normalize_query(text) for text in texts], pa.string())
    write_batch(pa.record_batch({"text": normalized}), _normalized(folder, rows))
    return unknown


def _write_query_ids(paths: Sequence[Path], folder: Path) -> None:
    """Numbers the normalized texts in files by first occurrence, and removes the files."""
    import pyarrow as pa

    from make_jax.catalog.line_chunks import open_batch

    texts = pa.chunked_array([open_batch(path).column("text") for path in paths], pa.string())
    np.save(folder / "query_id.npy", texts.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int32))
    for path in paths:
        path.unlink()


def _normalized(folder: Path, rows: slice) -> Path:
    """The file of the normalized texts of some queries, which exists while the queries are written."""
    return folder / f"normalized-{rows.start}.arrow"


@dataclass(frozen=True)
class _Worker:
    """What a process needs to fill rows. Pickles as a path and texts."""

    built: BuiltCatalog
    definition: str  # of the tokenizer
    vocabulary: KeywordVocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, which is made once a process."""
        return _tokenizer(self.definition)


@lru_cache(maxsize=1)
def _tokenizer(definition: str) -> Tokenizer:
    return Tokenizer(definition)


def _parts(count: int) -> Iterator[tuple[int, int]]:
    """First and end of the rows that are written together."""
    return ((start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE))


def _create(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A new .npy file as an array to be filled."""
    if 0 in shape:  # cannot be mapped
        np.save(path, np.zeros(shape, dtype))
        return np.zeros(shape, dtype)
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _open(path: Path) -> np.ndarray:
    """The array of a file that `_create` made, to be filled."""
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array if 0 in array.shape else np.load(path, mmap_mode="r+")


def _create_tokens(folder: Path, name: str, tokenizer: Tokenizer, shape: tuple[int, int]) -> None:
    """New arrays of token ids, in the smallest type, and of their numbers."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    _create(folder / f"{name}_tokens.npy", dtype, shape)
    _create(folder / f"{name}_lengths.npy", np.uint16, shape[:1])


def _encode(
    tokenizer: Tokenizer, texts: list[str], rows: np.ndarray, lengths: np.ndarray, unknown: UnknownTexts
) -> None:
    """Fills rows of token ids, and how many of each are no padding; adds the texts to `unknown`."""
    tokens, mask = tokenizer.encode(texts, rows.shape[1])
    unknown.add(texts, tokenizer, tokens, mask)
    rows[:], lengths[:] = tokens, mask.sum(axis=1)
    assert np.array_equal(mask, token_mask(lengths, rows.shape[1])), "padding is not at the end"


def token_mask(lengths: np.ndarray, length: int) -> Bool[np.ndarray, "n L"]:
    """The mask of rows of `length` tokens of which the first `lengths` are no padding."""
    return np.arange(length) < lengths[:, None]
