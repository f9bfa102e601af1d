"""Training batches: an endless stream made by Grain.

    clicks -> shuffle (anew in each epoch) -> repeat -> load a row -> collate a batch

A batch is a pure function of (seed, step). Position r of the stream selects a click and, through a counter-based random
generator, its augmentation, keyword swap and masks. Global batch s holds positions s B .. (s+1) B - 1; process p of n
reads the p-th n-th part of it. So neither worker processes, threads nor training processes can change a batch, and to
resume is to start at another step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grain
import numpy as np
from absl import flags
from jaxtyping import Float

from make_jax.catalog.build import BuiltCatalog
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.config import DataConfig, InputsConfig
from make_jax.errors import InputError
from make_jax.inputs.batch import Batch, product_arrays
from make_jax.inputs.images import LargeImage, Pixels, augment_image, decode_image
from make_jax.inputs.keyword_swaps import KeywordSwapper
from make_jax.inputs.masking import Masker
from make_jax.inputs.threads import decode_threads
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.inputs.training_texts import TrainingTexts, token_mask, training_texts
from make_jax.worker_processes import start_resource_tracker, start_worker

if TYPE_CHECKING:
    from make_jax.catalog.shards import ProductSource  # slow to import

# A process caches decoded images if those of the complete training split, at the model's size, fit into this many
# bytes. Large images, of which it keeps more pixels for random crops, are added as long as they fit. Reading, decoding
# and resizing takes four fifths of the time of a row with images of 60 x 80 pixels, more with larger ones.
_IMAGE_CACHE_BYTES = 512 << 20


def train_batches(
    built: BuiltCatalog,
    tokenizer: Tokenizer,
    vocabulary: KeywordVocabulary,
    inputs: InputsConfig,
    data: DataConfig,
    *,
    keyword_swaps: bool = False,
    mlm: bool = False,
    mpm_patch_size: int = 0,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    message: Callable[[str], None] = lambda _: None,
) -> grain.DatasetIterator[Batch]:
    """Returns an endless iterator over this process's rows of the global batches `start_step`, `start_step` + 1, ...

    The rows of all processes, concatenated by `process_index`, are the global batch. Call `close()` at the end to stop
    threads and worker processes.

    Args:
        vocabulary: the keywords; may be empty.
        keyword_swaps: add queries with one keyword replaced.
        mlm: add queries and titles with masked tokens.
        mpm_patch_size: pixels per side of the patches to mask; 0 masks none.
        batch_size: rows of the global batch.
        seed: determines order, augmentation, swaps and masks.
        message: receives a line about titles, and one about queries, that are mostly unknown to the tokenizer.

    Raises:
        InputError: no clicks, a batch size that is not a multiple of the processes, a negative seed, or masked tokens
            with a tokenizer that has no mask token; while iterating, an unreadable image.
    """
    if batch_size % process_count:
        raise InputError(f"train.batch_size: found {batch_size}, expected a multiple of the {process_count} processes")
    if seed < 0:
        raise InputError(f"train.seed: found {seed}, expected 0 or more")
    name = data.catalog or "the catalog inside the package"
    if not len(built.clicks):
        raise InputError(f"{name}: no clicks on products of the training split; expected clicks.jsonl to hold some")
    examples = training_texts(built, tokenizer, vocabulary, inputs, message)
    swapper = KeywordSwapper(vocabulary, examples.queries, examples.product_keywords) if keyword_swaps else None
    masker = Masker(tokenizer, inputs, tokens=mlm, patch_size=mpm_patch_size) if mlm or mpm_patch_size else None
    # Explicit seeds: Grain's defaults depend on the number of preceding transformations, and its epochs count up from
    # the seed, so that seeds 0 and 1 would share all epochs but one.
    order_seed, augment_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
    stream = grain.MapDataset.range(len(examples.query_row)).shuffle(seed=order_seed).repeat()
    load_row = _LoadRow(built.products("train"), examples, inputs, name, swapper, masker)
    rows = stream.random_map(load_row, seed=augment_seed)
    # Batches of one process's rows: number s * process_count + p is the part of process p in global batch s.
    parts = rows.batch(
        batch_size // process_count,
        drop_remainder=True,
        batch_fn=_Collate(examples, inputs, tokenizer, vocabulary, keyword_swaps, masker),
    )
    local = parts[start_step * process_count + process_index :: process_count]
    return iter(_iterable(local, data))


# --- a row: one click ---


@dataclass(frozen=True)
class _Row:
    """The part of an example that `TrainingTexts` does not hold."""

    click: int
    image: Pixels | None
    swap: str | None  # the query with one keyword replaced
    drawn: Float[np.ndarray, " numbers"]  # random numbers for `Masker.mask`; empty without masking


@dataclass(frozen=True)
class _LoadRow:
    """Click number -> row: image read, decoded, resized and augmented, keyword swapped."""

    source: "ProductSource"
    examples: TrainingTexts
    inputs: InputsConfig
    name: str
    swapper: KeywordSwapper | None
    masker: Masker | None
    cache: dict[int, Pixels | LargeImage | None] = field(default_factory=dict)  # product row -> decoded image
    cached_bytes: list[int] = field(default_factory=lambda: [0])  # threads may lose an addition, which does no harm

    def __call__(self, click: int, rng: np.random.Generator) -> _Row:
        row = int(self.examples.product_row[click])
        decoded = self.cache[row] if row in self.cache else self._read(row)
        image = None if decoded is None else augment_image(decoded, rng, self.inputs.augment)
        swap = self.swapper.swap(int(self.examples.query_row[click]), row, rng) if self.swapper else None
        drawn = self.masker.draw(rng) if self.masker else np.zeros(0)  # last, so that masking changes no other draw
        return _Row(click, image, swap, drawn)

    def _read(self, row: int) -> Pixels | LargeImage | None:
        """The product's decoded image, which is added to the cache if it fits."""
        product = self.source[row]
        image = None
        if product["image"]:
            where = f"{self.name}: image of product {product['id']!r}"
            image = decode_image(product["image"], where, self.inputs, self.inputs.augment.min_crop_area)
        size = 0 if image is None else image.nbytes
        at_model_size = len(self.source) * self.inputs.image_height * self.inputs.image_width * 3
        if max(at_model_size, self.cached_bytes[0] + size) <= _IMAGE_CACHE_BYTES:
            self.cached_bytes[0] += size
            self.cache[row] = image
        return image


# --- rows to a batch ---


@dataclass(frozen=True)
class _Collate:
    """Rows -> batch."""

    examples: TrainingTexts
    inputs: InputsConfig
    tokenizer: Tokenizer
    vocabulary: KeywordVocabulary
    keyword_swaps: bool
    masker: Masker | None

    def __call__(self, rows: Sequence[_Row]) -> Batch:
        examples = self.examples
        clicks = np.array([row.click for row in rows])
        query, product = examples.query_row[clicks], examples.product_row[clicks]
        batch = {
            "query_tokens": examples.query_tokens[query].astype(np.int32),
            "query_mask": token_mask(examples.query_lengths[query], self.inputs.max_query_tokens),
            **product_arrays(
                examples.title_tokens[product].astype(np.int32),
                token_mask(examples.title_lengths[product], self.inputs.max_title_tokens),
                examples.has_title[product],
                [row.image for row in rows],
                self.inputs.image_height,
                self.inputs.image_width,
            ),
            "product_id": product,
            "query_id": examples.query_id[query],
            "query_keywords": examples.query_keywords[query],
            "product_keywords": examples.product_keywords[product],
            **(self._swap_arrays(rows) if self.keyword_swaps else {}),
            "weight": np.ones(len(rows), np.float32),
        }
        if self.masker is not None:
            batch |= self.masker.mask(batch, np.stack([row.drawn for row in rows]))
        return batch

    def _swap_arrays(self, rows: Sequence[_Row]) -> Batch:
        texts = [row.swap or "" for row in rows]
        tokens, mask = self.tokenizer.encode(texts, self.inputs.max_query_tokens)
        has_swap = np.array([row.swap is not None for row in rows], bool)
        keywords = self.vocabulary.pack([self.vocabulary.tag(text) for text in texts])
        return {"swap_tokens": tokens, "swap_mask": mask & has_swap[:, None], "swap_keywords": keywords}


# --- threads and worker processes ---


def _iterable(batches: grain.MapDataset[Batch], data: DataConfig) -> grain.IterDataset[Batch]:
    """The batches, made ahead of time by threads of this process or by worker processes.

    Workers split batches, not rows: `batch` precedes `to_iter_dataset`, where Grain distributes elements in turn. The
    other way around, each worker would batch its own rows, and the number of workers would change every batch.
    """
    if data.workers == 0:
        threads = decode_threads(data.threads)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, data.prefetch))
        return batches.to_iter_dataset(options)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags when it starts workers; we parse none
    start_resource_tracker()
    buffer_size = -(-max(1, data.prefetch) // data.workers)  # rounded up
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    return dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=data.workers, per_worker_buffer_size=buffer_size), start_worker
    )
