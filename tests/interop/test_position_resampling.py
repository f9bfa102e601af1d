"""Resampling of position embeddings. Golden numbers are those of torch 2.13's interpolate, align_corners=False."""

import numpy as np
import pytest

from make_jax.interop.position_resampling import resample_positions

TABLE = np.arange(9, dtype=np.float32)[:, None] ** 2  # 3 x 3 places, one dimension
GOLDEN = [
    ("bicubic", (2, 4), [0.93563, 2.00833, 4.96921, 7.68448, 29.34854, 36.25828, 48.34427, 56.89657]),
    (
        "bicubic",
        (5, 3),
        [-0.864, -0.44, 1.984, 1.54801, 4.44401, 9.34001, 9.0, 16.0, 25.0, 26.172, 37.276, 50.38, 38.59201, 52.16801,
         67.74401],
    ),
    ("bicubic", (1, 1), [16.0]),
    ("bilinear", (2, 4), [3.375, 5.40625, 8.59375, 11.875, 25.875, 32.59375, 41.40625, 49.375]),
    ("bilinear", (5, 3), [0.0, 1.0, 4.0, 3.6, 7.0, 12.4, 9.0, 16.0, 25.0, 25.2, 35.8, 48.4, 36.0, 49.0, 64.0]),
    ("bilinear", (1, 1), [21.71428]),
]  # fmt: skip


@pytest.mark.parametrize(("how", "grid", "golden"), GOLDEN)
def test_resampled_positions_equal_pytorch(how, grid, golden):
    np.testing.assert_allclose(resample_positions(TABLE, grid, how)[:, 0], golden, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_a_rectangular_grid_is_resampled_per_axis(how):
    """Rows of equal positions: resampling columns changes nothing, resampling rows acts as on one column."""
    rows = np.arange(4, dtype=np.float32)
    table = np.repeat(rows, 3)[:, None]  # 4 x 3
    wide = resample_positions(table, (4, 5), how, source_grid=(4, 3)).reshape(4, 5)
    np.testing.assert_allclose(wide, np.repeat(rows[:, None], 5, axis=1), atol=1e-6)
    tall = resample_positions(table, (8, 3), how, source_grid=(4, 3)).reshape(8, 3)
    square = resample_positions(np.repeat(rows, 4)[:, None], (8, 4), how).reshape(8, 4)
    np.testing.assert_allclose(tall, square[:, :3], atol=1e-6)
    assert resample_positions(table, (4, 3), how, source_grid=(4, 3)) is table


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
def test_the_same_grid_returns_the_table_itself(how):
    assert resample_positions(TABLE, (3, 3), how) is TABLE


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@pytest.mark.parametrize("grid", [(1, 9), (4, 4), (8, 3)])
def test_a_constant_table_stays_constant(how, grid):
    constant = np.full((9, 2), 0.25, np.float32)
    np.testing.assert_allclose(
        resample_positions(constant, grid, how), np.full((grid[0] * grid[1], 2), 0.25), rtol=1e-6
    )
