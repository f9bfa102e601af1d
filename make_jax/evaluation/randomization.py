"""Whether one system is better than another: the paired randomisation test, and Holm's correction for many tests."""

import numpy as np
from jaxtyping import Float64

RESAMPLES = 20_000
_NUMBERS_AT_ONCE = 1 << 23  # signs, or sums, which bounds memory
_SHARED = 8  # sign vectors are drawn in multiples of this, so that how many at a time changes none of them
_TIE = 1e-12  # statistics that differ by less than this, relative to their size, count as equal


def paired_p_values(
    differences: Float64[np.ndarray, "Q m"], seed: int = 0, resamples: int = RESAMPLES
) -> Float64[np.ndarray, "m"]:
    """Two-sided p-value of each column's mean, by random signs of the rows [Fisher 1935; Smucker et al. 2007].

    If two systems were exchangeable, the sign of each query's difference would be a coin's. The p-value is the share
    of coins whose mean is at least as far from 0, the observed one included [Phipson and Smyth 2010], so it is never
    0: the smallest is 1 / (resamples + 1). All columns share the coins. NaN marks a query that a column leaves out.
    """
    rng = np.random.default_rng(seed)
    given = np.nan_to_num(differences)
    observed = np.abs(given.sum(axis=0))
    least = observed - _TIE * np.abs(given).sum(axis=0)
    as_far = np.zeros(given.shape[1], np.int64)
    at_once = max(_SHARED, _NUMBERS_AT_ONCE // max(*given.shape, 1) // _SHARED * _SHARED)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        bits = np.unpackbits(rng.integers(0, 256, (rows, -(-len(given) // 8)), np.uint8), axis=1)[:, : len(given)]
        sums = (2.0 * bits - 1.0) @ given
        as_far += (np.abs(sums) >= least).sum(axis=0)
    return (1 + as_far) / (1 + resamples)


def holm(p_values: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
    """P-values corrected for their number, whatever their dependence [Holm 1979].

    Calling all below a level different is wrong even once with at most that probability.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
