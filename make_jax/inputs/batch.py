"""The batch: keys, shapes and dtypes of what the model reads.

A batch is a dict of NumPy arrays. Padding is marked by masks, never by a token id. A missing image or title is marked
by `has_image` and `has_title`; its pixels or tokens are 0 and are ignored. B is the global batch, or the rows of this
process. Lq and Lt are the maximum lengths of queries and titles, P counts patches, words = ceil(V / 32).

    key              shape          dtype    in       content
    query_tokens     [B, Lq]        int32    T Q      token ids
    query_mask       [B, Lq]        bool     T Q      True at real tokens, [CLS] and [SEP] included
    title_tokens     [B, Lt]        int32    T   P    token ids
    title_mask       [B, Lt]        bool     T   P    True at real tokens; all False without a title
    image            [B, H, W, 3]   uint8    T   P    RGB; normalized on the device
    has_image        [B]            bool     T   P
    has_title        [B]            bool     T   P
    product_id       [B]            int32    T   P    T: position in the training split; P: position in the given
                                                      lists, -1 in padding rows
    query_id         [B]            int32    T        equal for equal query texts (`text.normalize_query`)
    query_keywords   [B, words]     uint32   T Q      keywords of the query, bit-packed (`catalog/keywords.py`)
    product_keywords [B, words]     uint32   T        keywords of the product's title and attributes, bit-packed
    swap_tokens      [B, Lq]        int32    S        the query with one keyword replaced (`keyword_swaps.py`)
    swap_mask        [B, Lq]        bool     S        all False where no replacement exists
    swap_keywords    [B, words]     uint32   S
    query_masked     [B, Lq]        int32    M        query tokens with masked positions (`masking.py`)
    query_labels     [B, Lq]        int32    M        the original id at predicted positions, -1 elsewhere
    title_masked     [B, Lt]        int32    M        the same for the title
    title_labels     [B, Lt]        int32    M
    patch_mask       [B, P]         bool     M        True at masked patches; all False without an image
    weight           [B]            float32  T Q P    1; 0 in padding rows

T: `train_pipeline.train_batches`; S and M: the same, if the objectives need keyword swaps, masked tokens or masked
patches; Q: `eval_pipeline.query_batches`; P: `eval_pipeline.product_batches`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, UInt8

Batch = dict[str, np.ndarray]
PRODUCT_INPUTS = ("title_tokens", "title_mask", "image", "has_title", "has_image")  # keys that the product side reads


def product_arrays(
    tokens: Int32[np.ndarray, "B Lt"],
    mask: Bool[np.ndarray, "B Lt"],
    has_title: Bool[np.ndarray, " B"],
    images: Sequence[UInt8[np.ndarray, "H W 3"] | None],
    height: int,
    width: int,
) -> Batch:
    """Returns the `PRODUCT_INPUTS` of a batch; tokens and pixels are 0 where title or image is missing.

    Args:
        tokens, mask, has_title: the titles; tokens of rows without a title are ignored.
        images: one per row, None for a product without an image.
        height, width: pixels of an image, for a batch in which no row has one.
    """
    pixels = np.zeros((len(images), height, width, 3), np.uint8)
    for row, image in zip(pixels, images, strict=True):
        if image is not None:
            row[:] = image
    mask = mask & has_title[:, None]
    return {
        "title_tokens": np.where(mask, tokens, 0).astype(np.int32),
        "title_mask": mask,
        "image": pixels,
        "has_image": np.array([image is not None for image in images], bool),
        "has_title": has_title,
    }


def pad_batch(batch: Batch, size: int) -> Batch:
    """Returns the batch padded to `size` rows with 0 and False; `product_id` is padded with -1."""
    missing = size - len(next(iter(batch.values())))
    if missing == 0:
        return batch

    def pad(name: str, array: np.ndarray) -> np.ndarray:
        padding = np.full((missing, *array.shape[1:]), -1 if name == "product_id" else 0, array.dtype)
        return np.concatenate([array, padding])

    return {name: pad(name, array) for name, array in batch.items()}
