"""Intervals and tests over groups, the unit of replication."""

import numpy as np
import torch
from scipy import stats

from .seeding import generator

RESAMPLES = 4000  # leaves about 100 resamples beyond each end of a 95 % interval
SMALLEST_BOOTSTRAP = 5  # groups; fewer give too few distinct resamples for a 2.5 % quantile
ROUNDING = 1e-12  # values that differ by less than this share of their size count as constant


def interval(values, *, level: float = 0.95, name: str):
    """Interval of the mean over groups.

    The studentised bootstrap (bootstrap-t; Efron and Tibshirani 1993, section 12.5) over whole groups for 5 groups or
    more, Student's t for 2 to 4, and where too many resamples have no spread; not a number for a single group.

    Args:
        values: (group, ...), finite; further dimensions share the resampled groups.
        level: coverage, between 0 and 1.
        name: of the random stream that draws the groups.

    Returns:
        Lower and upper ends, floats for (group,), arrays (...) otherwise.

    >>> low, high = interval([1.0, 2.0, 3.0], name="docs")
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    values = np.asarray(values, dtype=float)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if values.ndim == 0 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values of one group or more, got {values}")
    columns = values.reshape(len(values), -1)
    ends = _interval(columns, level, name)
    low, high = (end.reshape(values.shape[1:]) for end in ends)
    return (float(low), float(high)) if values.ndim == 1 else (low, high)


def _interval(columns: np.ndarray, level: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    n, mean, tail = len(columns), columns.mean(0), (1 - level) / 2
    if n == 1:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    error = columns.std(0, ddof=1) / np.sqrt(n)
    quantile = stats.t.ppf(1 - tail, n - 1)
    low, high = np.full_like(mean, -quantile), np.full_like(mean, quantile)
    if n >= SMALLEST_BOOTSTRAP:
        t = _studentised(columns - mean, name)
        steady = np.isnan(t).mean(0) <= tail
        if steady.any():
            low[steady], high[steady] = np.nanquantile(t[:, steady], [tail, 1 - tail], axis=0)
    return mean - high * error, mean - low * error


def _studentised(centred: np.ndarray, name: str) -> np.ndarray:
    """t of each resample, (resample, column); not a number where a resample has no spread."""
    n = len(centred)
    drawn = torch.randint(n, (RESAMPLES, n), generator=generator(name)).numpy()
    flat = (drawn + n * np.arange(RESAMPLES)[:, None]).ravel()
    counts = np.bincount(flat, minlength=RESAMPLES * n).reshape(RESAMPLES, n)
    mean = counts @ centred / n
    variance = (counts @ centred**2 - n * mean**2) / (n - 1)
    steady = variance > ROUNDING * centred.var(0)
    return np.where(steady, mean, np.nan) / np.sqrt(np.where(steady, variance, 1) / n)


def paired_p(values) -> float:
    """Two-sided p of the one-sample t-test that the mean over groups is zero.

    Args:
        values: (group,) differences.

    Returns:
        Not a number for fewer than two groups; 1 for differences that are all zero, 0 for constant others.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan")
    if _constant(values):
        return float(not np.any(values))
    return float(stats.ttest_1samp(values, 0).pvalue)


def equivalence_p(values, margin: float) -> float:
    """P value of two one-sided t-tests (TOST): small when the mean over groups lies within +-``margin``."""
    values = np.asarray(values, dtype=float)
    if margin <= 0:
        raise ValueError(f"an equivalence margin must be positive, got {margin}")
    if len(values) < 2:
        return float("nan")
    if _constant(values):
        return float(abs(values[0]) >= margin)
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def _constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def holm(p) -> np.ndarray:
    """Holm-adjusted p values (Holm 1979), (test,); not-a-number entries stay and do not count.

    >>> [round(float(value), 3) for value in holm([0.01, 0.04, 0.03, float("nan")])]
    [0.03, 0.06, 0.06, nan]
    """
    p = np.asarray(p, dtype=float)
    adjusted = p.copy()
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # argsort puts nan last
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted
