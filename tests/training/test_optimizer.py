"""The learning-rate schedule."""

import numpy as np
import pytest

from make_jax.config import OptimConfig
from make_jax.training.optimizer import learning_rate_schedule


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (1, 50, [1.0, 0.0]),
        (2, 50, [0.0, 1.0, 0.0]),
        (3, 50, [0.0, 0.5, 1.0, 0.0]),
        (3, 3, [0.0, 0.5, 1.0, 0.0]),
        (4, 2, [0.0, 0.5, 1.0, 0.5, 0.0]),
    ],
)
def test_a_short_run_warms_up_in_all_steps_but_the_last(steps: int, warmup: int, expected: list[float]) -> None:
    schedule = learning_rate_schedule(OptimConfig(learning_rate=1.0, warmup_steps=warmup), steps)
    np.testing.assert_allclose([schedule(step) for step in range(steps + 1)], expected, atol=1e-7)
