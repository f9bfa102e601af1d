import numpy as np
import pytest

from make_jax.evaluation import bootstrap
from make_jax.evaluation.bootstrap import macro_intervals, mean_intervals


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


def test_macro_intervals_weigh_groups_alike_whatever_their_size() -> None:
    values = np.array([[1.0]] * 90 + [[0.0]] * 10)
    found = macro_intervals(values, ["a"] * 90 + ["b"] * 10)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)  # each group is all alike: nothing to resample


def test_macro_intervals_of_one_group_are_those_of_all_queries() -> None:
    values = np.random.default_rng(0).random((40, 2))
    one, whole = macro_intervals(values, [("a", "")] * 40, seed=3), mean_intervals(values, seed=3)
    for a, b in zip(one, whole, strict=True):
        np.testing.assert_allclose(a, b)


def test_macro_intervals_cover_the_mean_of_groups_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    groups = ["a"] * 80 + ["b"] * 40
    inside = 0
    for trial in range(200):
        values = np.concatenate([rng.normal(0.2, 0.3, (80, 1)), rng.normal(0.6, 0.3, (40, 1))])
        found = macro_intervals(values, groups, seed=trial, resamples=400)
        inside += bool(found.low[0] <= 0.4 <= found.high[0])
    assert 178 <= inside <= 200


def test_memory_bounds_the_resamples_drawn_together_and_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 3))
    whole = mean_intervals(values), macro_intervals(values, [*"abcde"] * 10)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 50 * 7)
    for a, b in zip(whole, (mean_intervals(values), macro_intervals(values, [*"abcde"] * 10)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
