"""Resampling of patch position embeddings to another grid, as PyTorch's `interpolate` computes it.

Written in NumPy, because jax.image.resize and Pillow use another cubic kernel (a = -0.5 instead of -0.75).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

_CUBIC_A = -0.75  # PyTorch's parameter of the cubic kernel


def resample_positions(
    table: Float32[np.ndarray, "P D"],
    grid: tuple[int, int],
    method: Literal["bicubic", "bilinear"],
    *,
    source_grid: tuple[int, int] | None = None,
) -> Float32[np.ndarray, "Q D"]:
    """Returns the table resampled to `grid` (rows, columns); the table itself if nothing changes.

    `source_grid` is the grid of the table; None: a square.

    "bicubic" is without antialiasing, as all families in transformers compute it; "bilinear" is with antialiasing, as
    SigLIP 2 computes it. Edges repeat.
    """
    side = round(len(table) ** 0.5)
    rows, columns = source_grid or (side, side)
    if grid == (rows, columns):
        return table
    weights = _cubic_weights if method == "bicubic" else _linear_weights
    positions = table.reshape(rows, columns, -1).astype(np.float64)
    down, across = weights(rows, grid[0]), weights(columns, grid[1])
    resampled = np.einsum("yr,xc,rcd->yxd", down, across, positions, optimize=True)
    return resampled.reshape(-1, table.shape[1]).astype(np.float32)


def _cubic_weights(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """Weights of `old` positions in each of `new`: Keys' cubic convolution over four neighbors."""
    centers = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for shift in range(-1, 3):
        positions = np.floor(centers).astype(int) + shift
        distance = np.abs(centers - positions)
        inner = ((_CUBIC_A + 2) * distance - (_CUBIC_A + 3)) * distance * distance + 1
        outer = ((_CUBIC_A * distance - 5 * _CUBIC_A) * distance + 8 * _CUBIC_A) * distance - 4 * _CUBIC_A
        np.add.at(weights, (np.arange(new), positions.clip(0, old - 1)), np.where(distance <= 1, inner, outer))
    return weights


def _linear_weights(old: int, new: int) -> Float[np.ndarray, "{new} {old}"]:
    """Weights of `old` positions in each of `new`: linear, over a support that widens when the grid shrinks."""
    scale = max(old / new, 1.0)
    centers = (np.arange(new)[:, None] + 0.5) * old / new
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(old)[None] + 0.5 - centers) / scale)
    return weights / weights.sum(axis=1, keepdims=True)
