"""A random batch with every key that any objective reads."""

from typing import Any

import numpy as np

from make_jax.config import Config
from make_jax.inputs.masking import max_masked_tokens, num_masked_patches


def random_batch(c: Config, vocabulary: int, keywords: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a batch in which duplicates, missing modalities, rows of weight 0 and rows without swap are common."""
    rng = np.random.default_rng(seed)
    b, i = c.train.batch_size, c.inputs
    words = -(-keywords // 32)
    patches = i.image_height * i.image_width // c.model.image.patch_size**2
    batch: dict[str, Any] = {
        "image": rng.integers(0, 256, (b, i.image_height, i.image_width, 3)).astype(np.uint8),
        "has_title": np.arange(b) % 5 != 0,
        "has_image": np.arange(b) % 5 != 1,
        "query_id": rng.integers(0, b, b).astype(np.int32),
        "product_id": rng.integers(0, b, b).astype(np.int32),
        "query_keywords": rng.integers(0, 4, (b, words)).astype(np.uint32),
        "product_keywords": rng.integers(0, 8, (b, words)).astype(np.uint32),
        "weight": np.where(np.arange(b) % 7 == 3, 0, rng.uniform(0.5, 2, b)).astype(np.float32),
    }
    for name, length in (("query", i.max_query_tokens), ("title", i.max_title_tokens), ("swap", i.max_query_tokens)):
        least = 0 if name == "swap" else 1
        batch[f"{name}_tokens"] = rng.integers(5, vocabulary, (b, length)).astype(np.int32)
        batch[f"{name}_mask"] = np.arange(length)[None] < rng.integers(least, length + 1, b)[:, None]
        if name != "swap":
            most = max_masked_tokens(i, length)
            ranks = np.where(batch[f"{name}_mask"], rng.random((b, length)), 2).argsort(axis=1).argsort(axis=1)
            hidden = batch[f"{name}_mask"] & (ranks < rng.integers(0, most + 1, b)[:, None])
            batch[f"{name}_masked"] = np.where(hidden, 4, batch[f"{name}_tokens"]).astype(np.int32)
            batch[f"{name}_labels"] = np.where(hidden, batch[f"{name}_tokens"], -1).astype(np.int32)
    hidden = rng.random((b, patches)).argsort(axis=1).argsort(axis=1) < num_masked_patches(i, patches)
    batch["patch_mask"] = hidden & batch["has_image"][:, None]
    return batch
