"""Statistical significance over queries: bootstrap intervals, the paired randomization test, Holm's correction.

`scipy.stats` has the same two methods, but for our tables it falls short: `permutation_test` is 40 times slower (a sign
vector is drawn for each column), has no NaN for queries that a column leaves out and turns exact for few queries;
`bootstrap` is 4 times slower and does not resample within groups with shared columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

BOOTSTRAP_RESAMPLES = 2000
RANDOMIZATION_RESAMPLES = 20_000
_BOOTSTRAP_CHUNK = 1 << 22  # resampled queries held in memory at a time
_SIGN_CHUNK = 1 << 23  # signs, or sums, held in memory at a time
_SIGN_BATCH = 8  # sign vectors are drawn in multiples of this, so that the chunk size changes none of them
_TIE = 1e-12  # statistics that differ by less than this, relative to their size, count as equal


class Interval(NamedTuple):
    """A mean over queries with its 95 % interval, one entry per column."""

    mean: Float64[np.ndarray, "m"]
    low: Float64[np.ndarray, "m"]
    high: Float64[np.ndarray, "m"]


def mean_intervals(values: Float64[np.ndarray, "Q m"], seed: int = 0, resamples: int = BOOTSTRAP_RESAMPLES) -> Interval:
    """Returns each column's mean with the percentile bootstrap interval [Efron and Tibshirani 1993, ch. 13].

    All columns share the resamples, so a column of differences between two systems gets a paired interval: variance
    between queries that both systems share does not widen it. A single query has an interval of width 0.
    Raises ValueError for no queries.
    """
    means = _resampled_means(values, np.random.default_rng(seed), resamples)
    return _percentile_interval(values.mean(axis=0), means)


def macro_intervals(
    values: Float64[np.ndarray, "Q m"],
    groups: Sequence[object],
    seed: int = 0,
    resamples: int = BOOTSTRAP_RESAMPLES,
) -> Interval:
    """Returns the mean over groups of each group's mean: all groups have equal weight, whatever their size.

    `groups` holds the group of each query. Queries are resampled within their group (stratified bootstrap)
    [Efron and Tibshirani 1993, ch. 8].
    """
    rng = np.random.default_rng(seed)
    names = np.array([repr(group) for group in groups])
    strata = [values[names == name] for name in np.unique(names)]
    means = [_resampled_means(stratum, rng, resamples) for stratum in strata]
    return _percentile_interval(np.mean([stratum.mean(axis=0) for stratum in strata], axis=0), np.mean(means, axis=0))


def _resampled_means(
    values: Float64[np.ndarray, "Q m"], rng: np.random.Generator, resamples: int
) -> Float64[np.ndarray, "r m"]:
    """Returns each column's mean in each resample."""
    n = len(values)
    if n == 0:
        raise ValueError("no queries to average")
    means = []
    chunk = max(1, _BOOTSTRAP_CHUNK // n)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)  # of each query in each resample
        means.append(counts.astype(np.float64) @ values / n)
    return np.concatenate(means)


def _percentile_interval(mean: Float64[np.ndarray, "m"], means: Float64[np.ndarray, "r m"]) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return Interval(mean, low, high)


def paired_p_values(
    differences: Float64[np.ndarray, "Q m"], seed: int = 0, resamples: int = RANDOMIZATION_RESAMPLES
) -> Float64[np.ndarray, "m"]:
    """Returns the two-sided p-value of each column's mean by random sign flips [Fisher 1935; Smucker et al. 2007].

    Under the null hypothesis that two systems are exchangeable, the sign of each query's difference is random. The
    p-value is the share of sign vectors whose mean is at least as far from 0 as the observed one, which is counted too
    [Phipson and Smyth 2010], so the smallest p-value is 1 / (resamples + 1). All columns share the sign vectors. NaN
    marks a query that a column leaves out.
    """
    rng = np.random.default_rng(seed)
    values = np.nan_to_num(differences)
    observed = np.abs(values.sum(axis=0))
    threshold = observed - _TIE * np.abs(values).sum(axis=0)
    extreme = np.zeros(values.shape[1], np.int64)
    chunk = max(_SIGN_BATCH, _SIGN_CHUNK // max(*values.shape, 1) // _SIGN_BATCH * _SIGN_BATCH)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        bits = np.unpackbits(rng.integers(0, 256, (rows, -(-len(values) // 8)), np.uint8), axis=1)[:, : len(values)]
        sums = (2.0 * bits - 1.0) @ values
        extreme += (np.abs(sums) >= threshold).sum(axis=0)
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
    """Returns p-values corrected for multiple tests, under any dependence between them [Holm 1979].

    Rejecting all hypotheses whose corrected value is below a level keeps the family-wise error rate at that level.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
