import itertools

import numpy as np
import pytest

from make_jax.evaluation import randomization
from make_jax.evaluation.randomization import holm, paired_p_values


def exact_p_value(differences: np.ndarray) -> float:
    """The plain reference: every assignment of signs."""
    sums = np.array([np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=len(differences))])
    return float((np.abs(sums) >= abs(differences.sum()) - 1e-9).mean())


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
def test_p_values_approach_those_of_every_assignment_of_signs(shift: float) -> None:
    differences = np.random.default_rng(1).normal(shift, 0.5, (12, 1))
    exact = exact_p_value(differences[:, 0])
    found = paired_p_values(differences, resamples=20_000)[0]
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_ties_of_the_statistic_count_as_at_least_as_far() -> None:
    """Differences that are all alike, as of hit rates: sums tie in floats only by rounding."""
    differences = np.full((10, 1), 0.1)
    assert paired_p_values(differences, resamples=50_000)[0] == pytest.approx(2 / 1024, abs=1e-3)


def test_no_difference_has_p_1_and_the_smallest_is_never_0() -> None:
    same, far = np.zeros((50, 1)), np.ones((50, 1))
    found = paired_p_values(np.concatenate([same, far], axis=1), resamples=999)
    assert found.tolist() == [1.0, 1 / 1000]


def test_queries_that_a_column_leaves_out_do_not_count() -> None:
    rng = np.random.default_rng(2)
    some = rng.normal(0.1, 1, (30, 1))
    spread = np.full((80, 1), np.nan)
    spread[::2][:30] = some
    a, b = paired_p_values(some)[0], paired_p_values(spread)[0]
    assert a == pytest.approx(b, abs=0.02)


def test_p_values_are_even_where_nothing_differs() -> None:
    """Of systems that are alike, a share of about 5 % has p below 0.05."""
    differences = np.random.default_rng(3).normal(size=(40, 2000))
    p = paired_p_values(differences, resamples=2000)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_a_seed_gives_the_same_p_values() -> None:
    differences = np.random.default_rng(4).normal(0.1, 1, (30, 3))
    np.testing.assert_array_equal(paired_p_values(differences, 1), paired_p_values(differences, 1))
    assert (paired_p_values(differences, 1) != paired_p_values(differences, 2)).any()


def test_holm_equals_the_procedure_step_by_step() -> None:
    """Reject in order of p while p <= level / (tests left): the corrected p is the least level that still rejects."""
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


def test_memory_bounds_the_signs_drawn_together_and_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.5, (45, 3))
    whole = paired_p_values(differences, resamples=2001)
    monkeypatch.setattr(randomization, "_NUMBERS_AT_ONCE", 45 * 30)
    np.testing.assert_array_equal(paired_p_values(differences, resamples=2001), whole)
