"""Batches for evaluation and search: one pass over products or queries, in order, without augmentation."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, UInt8

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.text import strip_text
from make_jax.config import InputsConfig
from make_jax.errors import check_lists
from make_jax.inputs.batch import Batch, pad_batch, product_arrays
from make_jax.inputs.images import load_image
from make_jax.inputs.threads import decode_threads
from make_jax.inputs.tokenizer import Tokenizer

Images = Sequence[bytes | None] | Callable[[int], bytes | None]  # encoded images, or a function from position to image


def product_batches(
    titles: Sequence[str],
    images: Images,
    tokenizer: Tokenizer,
    inputs: InputsConfig,
    *,
    batch_size: int,
    names: Sequence[str] | None = None,
    decoded_rows: Bool[np.ndarray, " batch_size"] | None = None,
) -> Iterator[Batch]:
    """Yields the products in order, in batches of `batch_size` rows; the last is padded with rows of weight 0.

    Args:
        titles: one per product, "" for no title.
        images: one encoded image per product, None for no image; a function is called when a batch needs the image,
            from several threads.
        batch_size: rows of every batch.
        names: what errors call the products, such as their ids; None uses positions.
        decoded_rows: rows of each batch whose images are read and decoded, the others being without an image: those
            of this process's devices (`runs.mesh.local_rows`), where all processes make the same batches. None: all.

    Raises:
        InputError: while iterating, for an unreadable image.
    """
    check_lists(titles=titles, images=images)
    image_at = images if callable(images) else images.__getitem__

    def load(i: int) -> UInt8[np.ndarray, "H W 3"] | None:
        if decoded_rows is not None and not decoded_rows[i % batch_size]:
            return None
        data = image_at(i)
        if not data:
            return None
        where = f"image of product {names[i]!r}" if names is not None else f"image of product number {i}"
        return load_image(data, where, inputs)

    with ThreadPoolExecutor(decode_threads(), thread_name_prefix="decode") as pool:
        for start in range(0, len(titles), batch_size):
            chunk = titles[start : start + batch_size]
            ids = np.arange(start, start + len(chunk), dtype=np.int32)
            tokens, mask = tokenizer.encode(chunk, inputs.max_title_tokens)
            has_title = np.array([bool(strip_text(title)) for title in chunk], bool)
            decoded = list(pool.map(load, ids.tolist()))
            batch = product_arrays(tokens, mask, has_title, decoded, inputs.image_height, inputs.image_width)
            yield pad_batch(batch | {"product_id": ids, "weight": np.ones(len(chunk), np.float32)}, batch_size)


def query_batches(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    vocabulary: KeywordVocabulary,
    inputs: InputsConfig,
    *,
    batch_size: int,
) -> Iterator[Batch]:
    """Yields the queries in order, in batches of `batch_size` rows; the last is padded with rows of weight 0."""
    check_lists(texts=texts)
    for start in range(0, len(texts), batch_size):
        chunk = texts[start : start + batch_size]
        tokens, mask = tokenizer.encode(chunk, inputs.max_query_tokens)
        rows = {
            "query_tokens": tokens,
            "query_mask": mask,
            "query_keywords": vocabulary.pack([vocabulary.tag(text) for text in chunk]),
            "weight": np.ones(len(chunk), np.float32),
        }
        yield pad_batch(rows, batch_size)
