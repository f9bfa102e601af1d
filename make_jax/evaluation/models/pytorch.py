"""What the adapters of PyTorch models share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from make_jax.extras import import_optional

TEXT_BATCH_SIZE, IMAGE_BATCH_SIZE = 64, 32


def best_device() -> str:
    """A GPU if PyTorch has one, else the CPU. Raises InputError without PyTorch."""
    return "cuda" if import_optional("torch", "models").cuda.is_available() else "cpu"


def l2_normalized_rows(
    features: Callable[[Sequence[Any]], Any], inputs: Sequence[Any], batch_size: int
) -> Float32[np.ndarray, "n D"]:
    """The PyTorch tensors [n, D] that `features` gives for batches of `inputs`, as rows of unit length."""
    torch = import_optional("torch", "models", "this model")
    starts = range(0, len(inputs), batch_size)
    with torch.inference_mode():
        rows = [features(inputs[start : start + batch_size]).float().cpu().numpy() for start in starts]
    vectors = np.concatenate(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
