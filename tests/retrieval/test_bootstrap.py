import numpy as np
import pytest

from make_jax.retrieval.bootstrap import mean_intervals


def test_interval_is_that_of_the_normal_law_for_many_queries() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.2, size=(2000, 1))
    interval = mean_intervals(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.mean[0] == pytest.approx(values.mean())
    assert interval.high[0] - interval.mean[0] == pytest.approx(half, rel=0.1)
    assert interval.mean[0] - interval.low[0] == pytest.approx(half, rel=0.1)


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        interval = mean_intervals(rng.random((60, 1)), seed=trial, resamples=400)
        inside += int(interval.low[0] <= 0.5 <= interval.high[0])
    assert 0.89 <= inside / 200 <= 0.99


def test_paired_difference_is_narrower_than_two_means() -> None:
    hard = np.random.default_rng(0).random(500)
    a, b = hard + 0.05, hard
    interval = mean_intervals(np.stack([a, b, a - b], axis=1))
    assert interval.low[2] == pytest.approx(0.05) and interval.high[2] == pytest.approx(0.05)
    assert interval.low[0] < interval.high[1]


def test_columns_share_the_resamples() -> None:
    values = np.random.default_rng(0).random((50, 1))
    interval = mean_intervals(np.concatenate([values, 2 * values], axis=1))
    assert 2 * interval.low[0] == pytest.approx(interval.low[1])


def test_seed_decides_the_interval() -> None:
    values = np.random.default_rng(0).random((50, 1))
    assert mean_intervals(values, seed=1).low == mean_intervals(values, seed=1).low
    assert mean_intervals(values, seed=1).low != mean_intervals(values, seed=2).low


def test_one_query_has_width_0_and_none_is_an_error() -> None:
    interval = mean_intervals(np.array([[0.3]]))
    assert interval.low[0] == interval.high[0] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no queries"):
        mean_intervals(np.zeros((0, 1)))
