"""The batch: the one shape in which examples reach the model.

A batch is a dict of NumPy arrays. Padding is told by masks, never by a token id; a missing picture or title by
`has_image` and `has_title`, and then what stands in `image` or `title_tokens` is zero and means nothing. B is the
global batch, or this process's rows of it.

    key            shape          dtype    in        what
    query_tokens   [B, Lq]        int32    T Q       token ids
    query_mask     [B, Lq]        bool     T Q       True at real tokens, [CLS] and [SEP] included
    title_tokens   [B, Lt]        int32    T   P     token ids
    title_mask     [B, Lt]        bool     T   P     True at real tokens; all False without a title
    image          [B, H, W, 3]   uint8    T   P     RGB; normalised on the device
    has_image      [B]            bool     T   P
    has_title      [B]            bool     T   P
    product_id     [B]            int32    T   P     training: position in the catalog's list of products; evaluation:
                                                     position in the lists given, -1 in padding rows
    query_id       [B]            int32    T         equal for equal query texts (see `tokenizer.normalised`)
    query_keywords   [B, words]   uint32   T Q       keywords of the query, packed: `catalog/keywords.py`
    product_keywords [B, words]   uint32   T         keywords of the product's title and attributes
    swap_tokens    [B, Lq]        int32    S         the query with one keyword replaced: `inputs/swaps.py`
    swap_mask      [B, Lq]        bool     S         all False where there is no such query
    swap_keywords  [B, words]     uint32   S
    query_masked   [B, Lq]        int32    M         the query with some tokens hidden: `inputs/masking.py`
    query_labels   [B, Lq]        int32    M         what stood there; -1 where nothing is to be predicted
    title_masked   [B, Lt]        int32    M         the same of the title
    title_labels   [B, Lt]        int32    M
    patch_mask     [B, P]         bool     M         True at hidden patches; all False without a picture
    weight         [B]            float32  T Q P     1; 0 in padding rows

T: `pipeline.train_batches`, S and M: the same where the objectives ask for swaps and for masked tokens or patches,
Q: `pipeline.query_batches`, P: `pipeline.product_batches`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, UInt8

Batch = dict[str, np.ndarray]


def product_part(
    tokens: Int32[np.ndarray, "B Lt"],
    mask: Bool[np.ndarray, "B Lt"],
    has_title: Bool[np.ndarray, " B"],
    pictures: Sequence[UInt8[np.ndarray, "H W 3"] | None],
    height: int,
    width: int,
) -> Batch:
    """The product's arrays of a batch: title and picture, zero where missing.

    Args:
        tokens, mask, has_title: the titles; the tokens of a row without a title are ignored.
        pictures: one a row, None where the product has none.
        height, width: pixels of a picture, for a batch in which no row has one.
    """
    image = np.zeros((len(pictures), height, width, 3), np.uint8)
    for row, picture in zip(image, pictures, strict=True):
        if picture is not None:
            row[:] = picture
    mask = mask & has_title[:, None]
    return {
        "title_tokens": np.where(mask, tokens, 0).astype(np.int32),
        "title_mask": mask,
        "image": image,
        "has_image": np.array([picture is not None for picture in pictures], bool),
        "has_title": has_title,
    }


def padded(batch: Batch, size: int) -> Batch:
    """The batch with rows of zeros and False added up to `size`; `product_id` is -1 there."""
    missing = size - len(next(iter(batch.values())))
    if missing == 0:
        return batch

    def longer(name: str, array: np.ndarray) -> np.ndarray:
        filling = np.full((missing, *array.shape[1:]), -1 if name == "product_id" else 0, array.dtype)
        return np.concatenate([array, filling])

    return {name: longer(name, array) for name, array in batch.items()}


PRODUCT_INPUTS = ("title_tokens", "title_mask", "image", "has_title", "has_image")  # of a batch
