"""Intervals and tests over groups, the unit of replication."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from ..random_streams import generator

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


@dataclass(frozen=True, eq=False)
class Test:
    """One comparison over groups.

    Args:
        name: what is compared.
        values: (group,), positive where the claim holds; or, with a margin, distances from ``target`` claimed small.
        units: of the values.
        decides: whether the verdict hangs on it.
        margin: half width of the range that counts as equal; None for a claim that the values are positive.
        target: what was subtracted from the values; effect and interval are reported with it added again.
        excludes: what speaks against an equivalence: ``"zero"``, a difference that is significant at all, or
            ``"margin"``, one that is significantly outside the margin.
        smallest: number of groups below which no p is given; 5 for comparisons of spread.
        refutes: whether values of the opposite sign speak against the claim, or only not for it.
        tries: number of comparisons that this one was chosen from for its effect; p is multiplied by it, and the
            interval holds for all of them at once (Bonferroni).
    """

    __test__ = False  # not a test for pytest

    name: str
    values: np.ndarray
    units: str
    decides: bool = True
    margin: float | None = None
    target: float = 0.0
    excludes: str = "zero"
    smallest: int = 2
    refutes: bool = True
    tries: int = 1

    def __post_init__(self):
        values = np.asarray(self.values, dtype=float)
        if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
            raise ValueError(f"test {self.name!r} needs one finite value a group, got {values}")
        object.__setattr__(self, "values", values)

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.values)

    @property
    def effect(self) -> float:
        """Mean over groups."""
        return float(self.values.mean() + self.target)

    def interval(self, claim: str) -> tuple[float, float]:
        """95 % interval of the effect; the claim names the random stream."""
        low, high = interval(self.values, level=1 - 0.05 / self.tries, name=f"interval/{claim}/{self.name}")
        return low + self.target, high + self.target

    def told(self, claim: str) -> str:
        """Effect, interval and n in words: "-4.2 percentage points (-5.1 to -3.3, n = 8)"; ``claim`` as above."""
        low, high = self.interval(claim)
        units = "" if self.units == "1" else f" {self.units}"
        spread = "one group has no interval" if np.isnan(low) else f"{low:.3g} to {high:.3g}, n = {self.n}"
        return f"{self.effect:.3g}{units} ({spread})"

    def yes_or_no(self, claim: str) -> str:
        """Whether the effect is above zero: "Yes", "No" (below) or "Not resolved"; ``claim`` as above."""
        low, high = self.interval(claim)
        return "Yes" if low > 0 else "No" if high < 0 else "Not resolved"

    def row(self, claim: str) -> dict:
        """What tables show of it; the claim as in `interval`."""
        low, high = self.interval(claim)
        numbers = {"effect": self.effect, "low": low, "high": high, "n": self.n, "p": self.p}
        return {"name": self.name, "units": self.units} | numbers

    @property
    def p(self) -> float:
        """Two-sided p of the mean being zero, or p of the equivalence test."""
        if self.n < self.smallest:
            return float("nan")
        p = paired_p(self.values) if self.margin is None else equivalence_p(self.values, self.margin)
        p = min(1.0, self.tries * p)
        # Equal values in every group have no spread and a t-test's p of 0; a sign test's p cannot be below 2^(1 - n).
        return max(p, 2.0 ** (1 - self.n)) if np.ptp(self.values) == 0 else p

    @property
    def p_for(self) -> float:
        """P value in the claimed direction; 1 when the effect points the other way."""
        if self.margin is not None:
            return self.p
        return self.p if self.values.mean() > 0 or np.isnan(self.p) else 1.0

    @property
    def p_against(self) -> float:
        """P value in the direction opposite to the claim; 1 when the effect points the claimed way or cannot refute."""
        if not self.refutes:
            return self.p if np.isnan(self.p) else 1.0
        if self.margin is None:
            return self.p if self.values.mean() < 0 or np.isnan(self.p) else 1.0
        if self.excludes == "zero":
            return paired_p(self.values)
        beyond = np.sign(self.values.mean()) * self.values - self.margin
        return paired_p(beyond) if beyond.mean() > 0 or self.n < 2 else 1.0


def by_sign(tests: Mapping[str, Test], about: str) -> dict[int, list[str]]:
    """Names of the tests whose effect lies above zero (1), below zero (-1), or cannot be told from zero (0).

    Args:
        tests: by name.
        about: the claim or question; it names the random stream of intervals.
    """
    found = {1: [], -1: [], 0: []}
    for name, test in tests.items():
        low, high = test.interval(about)
        found[int(low > 0) - int(high < 0)].append(name)
    return found


def no_difference(tests: Mapping[str, Test]) -> str:
    """Which of several things tried made no difference that its groups can tell from zero, in words.

    Args:
        tests: by the name of what was tried, each against the same without it.
    """
    known = {name: test for name, test in tests.items() if test.n > 1}
    same = []
    for name, test in known.items():
        low, high = test.interval(name)
        if low <= 0 <= high:
            same.append(f"{name} ({test.effect:+.3g}, {low:.3g} to {high:.3g} {test.units})")
    if not known:
        return "one group cannot tell what makes no difference"
    return f"no difference was found for {', '.join(same)}" if same else "everything tried made a difference"
