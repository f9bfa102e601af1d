"""Rotary positions of image patches (Su et al., arXiv 2104.09864; in two dimensions as in EVA-02, arXiv 2303.11331).

Neighboring numbers of a query or key are rotated as pairs: the first half of the pairs by angles that grow with the
patch's row, the second half with its column. Rows and columns are scaled to the grid that the weights were trained on,
so that another image size rotates by the same range of angles. Imports no jax, because the PyTorch twin reads it too.
"""

import numpy as np
from jaxtyping import Float32

_BASE = 10000.0  # ratio of the highest to the lowest frequency, nearly


def rotary_angles(
    grid: tuple[int, int], trained_grid: int, head_width: int, class_tokens: int
) -> Float32[np.ndarray, "T half"]:
    """Returns the angle of every pair of a head, in radians, for class tokens (0: not rotated) and then patches.

    Args:
        grid: rows and columns of patches.
        trained_grid: patches per side of the grid on which positions count.
        head_width: d, a multiple of 4; `half` is d / 2.
        class_tokens: tokens before the patches.
    """
    bands = _BASE ** -(np.arange(head_width // 4) / (head_width // 4))
    rows, columns = (np.arange(size) / size * trained_grid for size in grid)
    by_row = np.broadcast_to(rows[:, None, None] * bands, (*grid, len(bands)))
    by_column = np.broadcast_to(columns[None, :, None] * bands, (*grid, len(bands)))
    patches = np.concatenate([by_row, by_column], axis=-1).reshape(-1, head_width // 2)
    return np.concatenate([np.zeros((class_tokens, head_width // 2)), patches]).astype(np.float32)
