import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from make_jax.errors import InputError
from make_jax.training.curves import draw_curves, smooth, split_evaluations


def write(folder: Path, records: list[dict[str, float | None]]) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def run(steps: int = 60) -> list[dict[str, float | None]]:
    schedule: dict[str, float | None] = {"learning_rate": 1e-3, "logit_scale": 14.0}
    records: list[dict[str, float | None]] = [
        {"step": i, "loss": 5 * math.exp(-i / 20)} | schedule for i in range(0, steps, 10)
    ]
    return [*records, {"step": 30, "validation/joint/ndcg@10": 0.4}, {"step": 59, "validation/joint/ndcg@10": 0.6}]


def test_a_panel_without_data_is_left_out(tmp_path: Path) -> None:
    heights = []
    for name, records in {"all": run(), "no validation": run()[:-2], "loss": [{"step": 0, "loss": 1.0}]}.items():
        draw_curves(write(tmp_path, records), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            heights.append(picture.height)
    assert heights[0] > heights[1] > heights[2]


def test_a_non_finite_value_is_a_gap_not_an_error(tmp_path: Path) -> None:
    draw_curves(write(tmp_path, [*run(), {"step": 60, "loss": None}]), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_nothing_to_plot_is_an_input_error_and_the_picture_is_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no loss, nDCG@10, learning rate or logit scale"):
        draw_curves(write(tmp_path, []), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_no_line_joins_a_step_that_was_evaluated_again_to_the_values_before_it(tmp_path: Path) -> None:
    steps, values = np.array([3.0, 6.0, 3.0, 6.0, 6.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    parts = [(part.tolist(), value.tolist()) for part, value in split_evaluations((steps, values))]
    assert parts == [([3, 6], [0.1, 0.2]), ([3, 6], [0.3, 0.4]), ([6], [0.5])]
    assert [len(part) for part, _ in split_evaluations((steps[:0], values[:0]))] == [0]
    draw_curves(write(tmp_path, [*run(), {"step": 59, "validation/joint/ndcg@10": 0.5}]), tmp_path / "curves.png")


def test_smooth_is_an_average_unbiased_at_the_start() -> None:
    np.testing.assert_allclose(smooth(np.full(100, 3.0)), 3.0)
    falling = smooth(np.linspace(5.0, 1.0, 100))
    assert falling[0] == 5.0
    assert np.all(np.diff(falling) < 0)
    noisy = np.random.default_rng(0).normal(size=1000)
    assert smooth(noisy)[100:].std() < 0.3 * noisy.std()
