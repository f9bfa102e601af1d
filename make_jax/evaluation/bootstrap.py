"""How sure a mean over queries is: 95 % intervals by resampling queries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

RESAMPLES = 2000
_DRAWS_AT_ONCE = 1 << 22  # of queries, which bounds memory


class Interval(NamedTuple):
    """A mean over queries with its 95 % interval, one entry a column."""

    mean: Float64[np.ndarray, "m"]
    low: Float64[np.ndarray, "m"]
    high: Float64[np.ndarray, "m"]


def mean_intervals(values: Float64[np.ndarray, "Q m"], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of each column and the percentile interval over resampled queries [Efron and Tibshirani 1993, ch. 13].

    All columns share the resamples, so a column of differences of two systems gets the interval of a paired
    comparison: queries that are hard for both do not widen it. One query has an interval of width 0: read n beside it.
    """
    means = _resampled(values, np.random.default_rng(seed), resamples)
    return _interval(values.mean(axis=0), means)


def macro_intervals(
    values: Float64[np.ndarray, "Q m"], groups: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The mean over groups of queries of each group's mean, so that a large group counts no more than a small one.

    `groups` names the group of each query. Queries are resampled within their group, whose size stays
    [Efron and Tibshirani 1993, ch. 8: one sample a stratum].
    """
    rng = np.random.default_rng(seed)
    names = np.array([repr(group) for group in groups])
    members = [values[names == name] for name in np.unique(names)]
    drawn = [_resampled(some, rng, resamples) for some in members]
    return _interval(np.mean([some.mean(axis=0) for some in members], axis=0), np.mean(drawn, axis=0))


def _resampled(
    values: Float64[np.ndarray, "Q m"], rng: np.random.Generator, resamples: int
) -> Float64[np.ndarray, "r m"]:
    """The mean of each column over each of the resamples."""
    n = len(values)
    if n == 0:
        raise ValueError("no queries to average")
    means = []
    at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)  # how often each query was drawn
        means.append(times.astype(np.float64) @ values / n)
    return np.concatenate(means)


def _interval(mean: Float64[np.ndarray, "m"], means: Float64[np.ndarray, "r m"]) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return Interval(mean, low, high)
