import itertools

import numpy as np
import pytest

from make_jax.evaluation import significance
from make_jax.evaluation.significance import holm, macro_intervals, mean_intervals, paired_p_values


def test_interval_approaches_the_normal_interval_for_many_queries() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.2, size=(2000, 1))
    interval = mean_intervals(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.mean[0] == pytest.approx(values.mean())
    assert interval.high[0] - interval.mean[0] == pytest.approx(half, rel=0.1)
    assert interval.mean[0] - interval.low[0] == pytest.approx(half, rel=0.1)


def test_interval_covers_the_true_mean_in_about_95_percent_of_samples() -> None:
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


def test_interval_depends_on_the_seed() -> None:
    values = np.random.default_rng(0).random((50, 1))
    assert mean_intervals(values, seed=1).low == mean_intervals(values, seed=1).low
    assert mean_intervals(values, seed=1).low != mean_intervals(values, seed=2).low


def test_one_query_gives_width_0_and_no_query_is_an_error() -> None:
    interval = mean_intervals(np.array([[0.3]]))
    assert interval.low[0] == interval.high[0] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no queries"):
        mean_intervals(np.zeros((0, 1)))


def test_macro_intervals_weigh_groups_equally() -> None:
    values = np.array([[1.0]] * 90 + [[0.0]] * 10)
    found = macro_intervals(values, ["a"] * 90 + ["b"] * 10)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)  # all values of a group are equal


def test_macro_intervals_of_one_group_equal_mean_intervals() -> None:
    values = np.random.default_rng(0).random((40, 2))
    one, expected = macro_intervals(values, [("a", "")] * 40, seed=3), mean_intervals(values, seed=3)
    for a, b in zip(one, expected, strict=True):
        np.testing.assert_allclose(a, b)


def test_macro_intervals_cover_the_true_mean_in_about_95_percent_of_samples() -> None:
    rng = np.random.default_rng(0)
    groups = ["a"] * 80 + ["b"] * 40
    inside = 0
    for trial in range(200):
        values = np.concatenate([rng.normal(0.2, 0.3, (80, 1)), rng.normal(0.6, 0.3, (40, 1))])
        found = macro_intervals(values, groups, seed=trial, resamples=400)
        inside += bool(found.low[0] <= 0.4 <= found.high[0])
    assert 178 <= inside <= 200


def test_memory_bound_of_the_bootstrap_does_not_change_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 3))
    expected = mean_intervals(values), macro_intervals(values, [*"abcde"] * 10)
    monkeypatch.setattr(significance, "_BOOTSTRAP_CHUNK", 50 * 7)
    for a, b in zip(expected, (mean_intervals(values), macro_intervals(values, [*"abcde"] * 10)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


def exact_p_value(differences: np.ndarray) -> float:
    """Plain reference: all sign vectors."""
    sums = np.array([np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=len(differences))])
    return float((np.abs(sums) >= abs(differences.sum()) - 1e-9).mean())


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
def test_p_values_approach_the_exact_permutation_test(shift: float) -> None:
    differences = np.random.default_rng(1).normal(shift, 0.5, (12, 1))
    exact = exact_p_value(differences[:, 0])
    found = paired_p_values(differences, resamples=20_000)[0]
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_ties_of_the_statistic_count_as_extreme() -> None:
    """Equal differences, as of hit rates: sums tie except for rounding."""
    differences = np.full((10, 1), 0.1)
    assert paired_p_values(differences, resamples=50_000)[0] == pytest.approx(2 / 1024, abs=1e-3)


def test_no_difference_gives_p_1_and_the_smallest_p_is_above_0() -> None:
    same, far = np.zeros((50, 1)), np.ones((50, 1))
    found = paired_p_values(np.concatenate([same, far], axis=1), resamples=999)
    assert found.tolist() == [1.0, 1 / 1000]


def test_queries_left_out_of_a_column_do_not_count() -> None:
    rng = np.random.default_rng(2)
    subset = rng.normal(0.1, 1, (30, 1))
    spread = np.full((80, 1), np.nan)
    spread[::2][:30] = subset
    a, b = paired_p_values(subset)[0], paired_p_values(spread)[0]
    assert a == pytest.approx(b, abs=0.02)


def test_p_values_are_uniform_under_the_null_hypothesis() -> None:
    """About 5 % of equal systems have p below 0.05."""
    differences = np.random.default_rng(3).normal(size=(40, 2000))
    p = paired_p_values(differences, resamples=2000)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_p_values_depend_on_the_seed_only() -> None:
    differences = np.random.default_rng(4).normal(0.1, 1, (30, 3))
    np.testing.assert_array_equal(paired_p_values(differences, 1), paired_p_values(differences, 1))
    assert (paired_p_values(differences, 1) != paired_p_values(differences, 2)).any()


def test_holm_equals_the_step_down_procedure() -> None:
    """Reject in order of p while p <= level / (tests left); the corrected p is the least such level."""
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    for level in (0.02, 0.045, 0.095):
        rejected: list[int] = []
        for left, i in zip(range(len(p), 0, -1), np.argsort(p), strict=True):
            if p[i] > level / left:
                break
            rejected.append(int(i))
        assert sorted(np.flatnonzero(holm(p) <= level).tolist()) == sorted(rejected)


def test_memory_bound_of_the_randomization_test_does_not_change_p_values(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.5, (45, 3))
    expected = paired_p_values(differences, resamples=2001)
    monkeypatch.setattr(significance, "_SIGN_CHUNK", 45 * 30)
    np.testing.assert_array_equal(paired_p_values(differences, resamples=2001), expected)
