"""Position embeddings of a grid of patches, resampled to another grid as PyTorch's `interpolate` does it."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

_CUBIC = -0.75  # PyTorch's free parameter of the cubic kernel; jax.image.resize and Pillow take -0.5


def resample_positions(
    table: Float32[np.ndarray, "P D"], grid: tuple[int, int], how: Literal["bicubic", "bilinear"]
) -> Float32[np.ndarray, "Q D"]:
    """The table of a square grid for `grid`, rows times columns.

    "bicubic" is without antialiasing, as every family of transformers does it; "bilinear" is with, as SigLIP 2 does.
    Edges repeat. The grid that the table has gives back the table itself.
    """
    side = round(len(table) ** 0.5)
    if grid == (side, side):
        return table
    weights = _cubic if how == "bicubic" else _triangle
    square = table.reshape(side, side, -1).astype(np.float64)
    down, across = weights(side, grid[0]), weights(side, grid[1])
    resampled = np.einsum("yr,xc,rcd->yxd", down, across, square, optimize=True)
    return resampled.reshape(-1, table.shape[1]).astype(np.float32)


def _cubic(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """Weights of `old` places in each of `new`: Keys' cubic convolution over four neighbours."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for shift in range(-1, 3):
        places = np.floor(centres).astype(int) + shift
        far = np.abs(centres - places)
        near = ((_CUBIC + 2) * far - (_CUBIC + 3)) * far * far + 1
        tail = ((_CUBIC * far - 5 * _CUBIC) * far + 8 * _CUBIC) * far - 4 * _CUBIC
        np.add.at(weights, (np.arange(new), places.clip(0, old - 1)), np.where(far <= 1, near, tail))
    return weights


def _triangle(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """Weights of `old` places in each of `new`: linear, over a support that widens when the grid shrinks."""
    scale = max(old / new, 1.0)
    centres = (np.arange(new)[:, None] + 0.5) * old / new
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(old)[None] + 0.5 - centres) / scale)
    return weights / weights.sum(axis=1, keepdims=True)
