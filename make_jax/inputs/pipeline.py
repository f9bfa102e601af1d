"""Batches: endless ones for training, by Grain, and one pass over given products or queries for evaluation.

A training batch is a pure function of (seed, step). Position r of the endless stream

    clicks -> shuffled, each epoch anew -> repeated

decides which click stands there and, by a counter-based generator, how its picture is changed. Global batch s is
positions s B .. (s+1) B - 1, and process p of n holds its p-th n-th part. So the number of worker processes, of
threads and of training processes cannot change a batch, and resuming is starting at another step.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Float, Int32, UInt8, UInt32

from make_jax.catalog.build import BuiltCatalog
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.config import DataConfig, InputsConfig
from make_jax.errors import InputError
from make_jax.inputs import images as pictures_of
from make_jax.inputs.batch import Batch, padded, product_part
from make_jax.inputs.masking import Masker
from make_jax.inputs.swaps import Swapper
from make_jax.inputs.tokenizer import Tokenizer, normalised

if TYPE_CHECKING:
    from make_jax.catalog.shards import ProductSource  # slow to import

_THREADS = 2  # that decode at once; Pillow works outside Python's lock, and the device wants cores too

# Pictures of the size that the model sees, which a process keeps when those of the whole training split fit. Reading,
# decoding and resizing is four fifths of the work of a row with pictures of 60 x 80 pixels, more with larger ones.
_KEPT_BYTES = 512 << 20

Picture = UInt8[np.ndarray, "H W 3"]
Images = Sequence[bytes | None] | Callable[[int], bytes | None]  # encoded, all at once or one by one when needed


# --- training ---


def train_batches(
    built: BuiltCatalog,
    tokenizer: Tokenizer,
    vocabulary: KeywordVocabulary,
    inputs: InputsConfig,
    data: DataConfig,
    *,
    swaps: bool = False,
    masked_tokens: bool = False,
    masked_patch: int = 0,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
    """An endless iterator over this process's rows of the global batches `start_step`, `start_step` + 1 and so on.

    Processes hold consecutive rows: their batches concatenated in the order of `process_index` are the global batch.
    Call `close()` on it at the end: it stops threads and worker processes.

    Args:
        vocabulary: the keywords; may have none.
        swaps: whether batches hold queries with one keyword replaced.
        masked_tokens: whether batches hold queries and titles with some tokens hidden.
        masked_patch: pixels a side of the patches that batches say to hide; 0 hides none.
        batch_size: rows of the global batch.
        seed: decides order, picture changes, swaps and what is hidden.

    Raises:
        InputError: there is no click, the processes do not divide the batch, the seed is negative, or tokens are to be
            hidden and the tokenizer has no mask token; and when a batch is taken: a picture is unreadable.
    """
    if batch_size % process_count:
        raise InputError(f"train.batch_size: found {batch_size}, expected a multiple of the {process_count} processes")
    if seed < 0:
        raise InputError(f"train.seed: found {seed}, expected 0 or more")
    name = data.catalog or "the catalog inside the package"
    source = built.products("train")
    examples = _examples(built, tokenizer, vocabulary, inputs, name)
    swapper = Swapper(vocabulary, examples.queries, examples.product_keywords) if swaps else None
    masker = None
    if masked_tokens or masked_patch:
        masker = Masker(tokenizer, inputs, tokens=masked_tokens, patch=masked_patch)
    # Seeds of our own: Grain's defaults depend on how many transformations stand before, and its epochs count up
    # from the seed, so that seeds 0 and 1 would share all epochs but one.
    order_seed, augment_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
    stream = grain.MapDataset.range(len(examples.query_row)).shuffle(seed=order_seed).repeat()
    rows = stream.random_map(_LoadRow(source, examples, inputs, name, swapper, masker), seed=augment_seed)
    # Batches of one process's rows: number s * process_count + p is the part of process p in global batch s.
    parts = rows.batch(
        batch_size // process_count,
        drop_remainder=True,
        batch_fn=_Collate(examples, inputs, tokenizer, vocabulary, swaps, masker),
    )
    local = parts[start_step * process_count + process_index :: process_count]
    return iter(_read(local, data))


@dataclass(frozen=True)
class _Examples:
    """The clicks and texts of the training split, as arrays that workers receive once."""

    query_row: Int32[np.ndarray, " clicks"]  # into query_tokens
    product_row: Int32[np.ndarray, " clicks"]  # into title_tokens and the source of training products
    query_id: Int32[np.ndarray, " queries"]  # equal where the normalised texts are
    query_tokens: Int32[np.ndarray, "queries Lq"]
    query_mask: Bool[np.ndarray, "queries Lq"]
    title_tokens: Int32[np.ndarray, "products Lt"]
    title_mask: Bool[np.ndarray, "products Lt"]
    has_title: Bool[np.ndarray, " products"]
    queries: list[str]
    query_keywords: UInt32[np.ndarray, "queries words"]
    product_keywords: UInt32[np.ndarray, "products words"]


@dataclass(frozen=True)
class _Row:
    """What one position of the stream has that arrays do not hold already."""

    click: int
    product_id: int
    picture: Picture | None
    swap: str | None  # the query with one keyword replaced
    drawn: Float[np.ndarray, " numbers"]  # decides what is hidden; none where nothing is


@dataclass(frozen=True)
class _LoadRow:
    """Click number -> row, its picture read, decoded, resized and changed, its query swapped."""

    source: "ProductSource"
    examples: _Examples
    inputs: InputsConfig
    name: str
    swapper: Swapper | None
    masker: Masker | None
    kept: dict[int, tuple[int, Picture | None]] = field(default_factory=dict)  # product row -> what `_read` returned

    def __call__(self, click: int, rng: np.random.Generator) -> _Row:
        row = int(self.examples.product_row[click])
        product_id, picture = self.kept.get(row) or self._read(row)
        if picture is not None:
            picture = pictures_of.augment(picture, rng, self.inputs.augment)
        swap = self.swapper.swap(int(self.examples.query_row[click]), row, rng) if self.swapper else None
        drawn = self.masker.draw(rng) if self.masker else np.zeros(0)  # after all else, which it must not change
        return _Row(click, product_id, picture, swap, drawn)

    def _read(self, row: int) -> tuple[int, Picture | None]:
        """The product's position in the catalog, and its picture as evaluation would see it."""
        product = self.source[row]
        height, width = self.inputs.image_height, self.inputs.image_width
        picture = None
        if product["image"]:
            where = f"{self.name}: image of product {product['id']!r}"
            picture = pictures_of.load(product["image"], where, height, width)
        found = (int(product["index"]), picture)
        if len(self.source) * height * width * 3 <= _KEPT_BYTES:
            self.kept[row] = found
        return found


@dataclass(frozen=True)
class _Collate:
    """Rows -> batch."""

    examples: _Examples
    inputs: InputsConfig
    tokenizer: Tokenizer
    vocabulary: KeywordVocabulary
    swaps: bool
    masker: Masker | None

    def __call__(self, rows: Sequence[_Row]) -> Batch:
        examples = self.examples
        clicks = np.array([row.click for row in rows])
        query, product = examples.query_row[clicks], examples.product_row[clicks]
        batch = {
            "query_tokens": examples.query_tokens[query],
            "query_mask": examples.query_mask[query],
            **product_part(
                examples.title_tokens[product],
                examples.title_mask[product],
                examples.has_title[product],
                [row.picture for row in rows],
                self.inputs.image_height,
                self.inputs.image_width,
            ),
            "product_id": np.array([row.product_id for row in rows], np.int32),
            "query_id": examples.query_id[query],
            "query_keywords": examples.query_keywords[query],
            "product_keywords": examples.product_keywords[product],
            **(self._swapped(rows) if self.swaps else {}),
            "weight": np.ones(len(rows), np.float32),
        }
        if self.masker is not None:
            batch |= self.masker.hide(batch, np.stack([row.drawn for row in rows]))
        return batch

    def _swapped(self, rows: Sequence[_Row]) -> Batch:
        texts = [row.swap for row in rows]
        tokens, mask = self.tokenizer.encode([text or "" for text in texts], self.inputs.query_tokens)
        there = np.array([text is not None for text in texts], bool)
        keywords = self.vocabulary.pack([self.vocabulary.tag(text or "") for text in texts])
        return {"swap_tokens": tokens, "swap_mask": mask & there[:, None], "swap_keywords": keywords}


def _examples(
    built: BuiltCatalog, tokenizer: Tokenizer, vocabulary: KeywordVocabulary, inputs: InputsConfig, name: str
) -> _Examples:
    clicks = built.clicks()
    if len(clicks.queries) == 0:
        raise InputError(f"{name}: no clicks on products of the training split; expected clicks.jsonl to hold some")
    texts = list(dict.fromkeys(clicks.queries))
    rows = {text: row for row, text in enumerate(texts)}
    ids: dict[str, int] = {}
    query_tokens, query_mask = tokenizer.encode(texts, inputs.query_tokens)
    titles = built.titles("train")
    title_tokens, title_mask = tokenizer.encode(titles, inputs.title_tokens)
    held = zip(titles, built.attributes("train"), strict=True)
    return _Examples(
        query_row=np.array([rows[text] for text in clicks.queries], np.int32),
        product_row=np.asarray(clicks.products, np.int32),
        query_id=np.array([ids.setdefault(normalised(text), len(ids)) for text in texts], np.int32),
        query_tokens=query_tokens,
        query_mask=query_mask,
        title_tokens=title_tokens,
        title_mask=title_mask,
        has_title=np.array([bool(title.strip()) for title in titles], bool),
        queries=texts,
        query_keywords=vocabulary.pack([vocabulary.tag(text) for text in texts]),
        product_keywords=vocabulary.pack(
            [vocabulary.tag(title) | vocabulary.attribute_keywords(attributes) for title, attributes in held]
        ),
    )


def _read(batches: grain.MapDataset[Batch], data: DataConfig) -> grain.IterDataset[Batch]:
    """The batches, made ahead by threads of this process or by worker processes.

    Workers split the batches, not the rows: `batch` stands before `to_iter_dataset`, where Grain hands whole elements
    round. After it, each worker would batch rows of its own, and the count of workers would change every batch.
    """
    if data.workers == 0:
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=max(_THREADS, data.prefetch))
        return batches.to_iter_dataset(options)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks absl's flags when it starts workers, and we have none to parse
    share = -(-max(1, data.prefetch) // data.workers)  # rounded up
    read = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    return read.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=data.workers, per_worker_buffer_size=share), _start_worker
    )


def _start_worker(_index: int, _count: int) -> None:
    """Leaves Ctrl-C to the training process, and leaves with it, however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


# --- evaluation ---


def product_batches(
    titles: Sequence[str],
    images: Images,
    tokenizer: Tokenizer,
    inputs: InputsConfig,
    *,
    batch_size: int,
    names: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """One pass over the products, in order, pictures unchanged; the last batch is filled up with rows of weight 0.

    Args:
        titles: one a product, "" for none.
        images: encoded, None for none: one a product, or a function from position to image that is asked when it is
            needed, from several threads.
        batch_size: rows of every batch.
        names: what errors call the products, such as their ids; their positions when None.

    Raises:
        InputError: when a batch is taken: a picture is unreadable.
    """
    image_at = images if callable(images) else images.__getitem__

    def load(i: int) -> Picture | None:
        data = image_at(i)
        if not data:
            return None
        where = f"image of product {names[i]!r}" if names is not None else f"image of product number {i}"
        return pictures_of.load(data, where, inputs.image_height, inputs.image_width)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as pool:
        for start in range(0, len(titles), batch_size):
            chosen = titles[start : start + batch_size]
            ids = np.arange(start, start + len(chosen), dtype=np.int32)
            tokens, mask = tokenizer.encode(chosen, inputs.title_tokens)
            has_title = np.array([bool(title.strip()) for title in chosen], bool)
            pictures = list(pool.map(load, ids.tolist()))
            batch = product_part(tokens, mask, has_title, pictures, inputs.image_height, inputs.image_width)
            yield padded(batch | {"product_id": ids, "weight": np.ones(len(chosen), np.float32)}, batch_size)


def query_batches(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    vocabulary: KeywordVocabulary,
    inputs: InputsConfig,
    *,
    batch_size: int,
) -> Iterator[Batch]:
    """One pass over the queries, in order; the last batch is filled up with rows of weight 0."""
    for start in range(0, len(texts), batch_size):
        chosen = texts[start : start + batch_size]
        tokens, mask = tokenizer.encode(chosen, inputs.query_tokens)
        rows = {
            "query_tokens": tokens,
            "query_mask": mask,
            "query_keywords": vocabulary.pack([vocabulary.tag(text) for text in chosen]),
            "weight": np.ones(len(chosen), np.float32),
        }
        yield padded(rows, batch_size)
