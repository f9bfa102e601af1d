"""How sure a mean over queries is: 95 % intervals by resampling queries."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

RESAMPLES = 2000
_AT_ONCE = 200  # resamples drawn at a time, to bound memory


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
    rng = np.random.default_rng(seed)
    n = len(values)
    if n == 0:
        raise ValueError("no queries to average")
    means = []
    for start in range(0, resamples, _AT_ONCE):
        rows = min(_AT_ONCE, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)  # how often each query was drawn
        means.append(times.astype(np.float64) @ values / n)
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return Interval(values.mean(axis=0), low, high)
