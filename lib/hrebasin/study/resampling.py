"""Means over groups, or over groups and images, with one studentised bootstrap for interval and p value alike."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from scipy import stats
from threadpoolctl import ThreadpoolController

from ..random_streams import generator

LEVEL = 0.95  # of intervals; the p values that go with them are 0.05 where zero lies on an end
RESAMPLES = 19_999  # with the sample itself 20,000: the smallest two-sided p is 0.0001, which Holm multiplies by 30
SMALLEST_BOOTSTRAP = 5  # groups; fewer give too few distinct resamples
MOST_EQUAL = 0.025  # share of resamples without spread, above which Student's t is used
ENOUGH = 6  # groups; in as many, equal values have a two-sided p of 2^(1 - 6) < 0.05
MOST_ENUMERATED = 14  # groups of which all 2^n changes of sign are tried; of more, `RESAMPLES` random ones
ROUNDING = 1e-12  # values that differ by less than this share of their size count as constant
AT_ONCE = 500  # resamples of groups and images in memory
# Products with few groups on one side: threads that wait for one another take up to 30 times as long
alone = ThreadpoolController().wrap(limits=1, user_api="blas")


@dataclass(frozen=True, eq=False)
class Mean:
    """A mean over groups, and what resampling says of its error.

    Args:
        value: the mean.
        error: its standard error; 0 for one group and for values that are all equal.
        n: groups.
        freedom: degrees of freedom of Student's t, which is used where there are no resamples.
        t: of each resample, (resample,).
    """

    value: float
    error: float
    n: int
    freedom: float
    t: np.ndarray | None = None

    def tails(self, at: float) -> tuple[float, float]:
        """One-sided p values: the first is small where the true mean lies above ``at``, the second where below."""
        if self.n < 2:
            return float("nan"), float("nan")
        if not self.error:  # equal values have a sign and nothing else
            return tuple(2.0**-self.n if side * (self.value - at) > 0 else 1.0 for side in (1, -1))
        t = (self.value - at) / self.error
        if self.t is None:
            return float(stats.t.sf(t, self.freedom)), float(stats.t.cdf(t, self.freedom))
        return tuple((1 + int(side.sum())) / (1 + len(self.t)) for side in (self.t >= t, self.t <= t))

    def interval(self, level: float) -> tuple[float, float]:
        """The means that `tails` does not reject at half of 1 - ``level`` on either side."""
        if not self.error:
            return (self.value, self.value) if self.n >= ENOUGH else (float("nan"), float("nan"))
        tail = (1 - level) / 2
        if self.t is None:
            reach = self.error * float(stats.t.ppf(1 - tail, self.freedom))
            return self.value - reach, self.value + reach
        k = max(1, int(tail * (1 + len(self.t)) + ROUNDING))
        low, high = np.partition(self.t, [k - 1, len(self.t) - k])[[k - 1, -k]]
        return self.value - self.error * float(high), self.value - self.error * float(low)


@alone
def mean_over_groups(values) -> Mean:
    """The mean of values (group,), by the studentised bootstrap over groups (Efron and Tibshirani 1993, section 12.5).

    Student's t below `SMALLEST_BOOTSTRAP` groups, and where more than `MOST_EQUAL` of the resamples have no spread.
    """
    values = np.asarray(values, dtype=float)
    n, value = len(values), float(values.mean())
    if n < 2 or np.ptp(values) <= ROUNDING * np.abs(values).max():
        return Mean(value, 0.0, n, n - 1)
    error = float(values.std(ddof=1) / np.sqrt(n))
    if n < SMALLEST_BOOTSTRAP:
        return Mean(value, error, n, n - 1)
    counts, centred = _counts("groups", n, RESAMPLES).astype(float), values - value
    mean = counts @ centred / n
    variance = (counts @ centred**2 - n * mean**2) / (n - 1)
    equal = variance <= ROUNDING * centred.var()
    t = None if equal.mean() > MOST_EQUAL else _t(mean, np.sqrt(np.where(equal, 0, variance) / n))
    return Mean(value, error, n, n - 1, t)


@alone
def mean_over_groups_and_images(values) -> Mean:
    """The mean of values (group, image) where every group saw the same images, whose sampling error all groups share.

    Groups and images are drawn independently (the pigeonhole bootstrap, Owen 2007), and each resample is studentised
    by the two-way analysis of variance: with mean squares R of groups, C of images and E of what is left, the squared
    error of the mean is (R + C - E) / (groups * images), at least that of groups or of images alone. Below
    `SMALLEST_BOOTSTRAP` groups Student's t, with Satterthwaite's degrees of freedom.
    """
    values = np.asarray(values, dtype=float)
    (n, images), value = values.shape, float(values.mean())
    if n < 2 or images < 2 or np.ptp(values) == 0:
        return mean_over_groups(values.mean(1))
    x = values - value
    _, squares = _moments(x, np.ones((1, n)), np.ones((1, images)))
    error = float(np.sqrt(_squared_error(*squares, x.size)[0]))
    freedom = _satterthwaite(*(float(square[0]) for square in squares), n, images)
    if n < SMALLEST_BOOTSTRAP:
        return Mean(value, error, n, freedom)
    drawn = _counts("groups", n, RESAMPLES), _counts("images", images, RESAMPLES)
    pieces = [slice(k, k + AT_ONCE) for k in range(0, RESAMPLES, AT_ONCE)]
    return Mean(value, error, n, freedom, np.concatenate([_crossed(x, *(d[p] for d in drawn)) for p in pieces]))


def _crossed(x: np.ndarray, groups: np.ndarray, images: np.ndarray) -> np.ndarray:
    """t of resamples of centred values (group, image), from how often each group and each image was drawn."""
    mean, squares = _moments(x, groups.astype(float), images.astype(float))
    return _t(mean, np.sqrt(_squared_error(*squares, x.size)))


def _moments(x: np.ndarray, groups: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Mean, and mean squares of groups, of images and of what is left, of resamples, (resample,) each."""
    n, m = x.shape
    by_group, by_image = images @ x.T / m, groups @ x / n
    mean = (groups * by_group).sum(1) / n
    rows = m * ((groups * by_group**2).sum(1) - n * mean**2)
    columns = n * (np.einsum("bi,bi,bi->b", images, by_image, by_image) - m * mean**2)
    whole = (groups * (images @ (x**2).T)).sum(1) - n * m * mean**2
    squares = rows / (n - 1), columns / (m - 1), (whole - rows - columns) / ((n - 1) * (m - 1))
    return mean, tuple(square.clip(min=0) for square in squares)  # below 0 by rounding alone


def _squared_error(rows: np.ndarray, columns: np.ndarray, rest: np.ndarray, size: int) -> np.ndarray:
    return np.maximum.reduce([rows, columns, rows + columns - rest]) / size


def _satterthwaite(rows: float, columns: float, rest: float, n: int, images: int) -> float:
    """Degrees of freedom of rows + columns - rest; never fewer than those of groups alone."""
    parts = rows**2 / (n - 1) + columns**2 / (images - 1) + rest**2 / ((n - 1) * (images - 1))
    return max(n - 1.0, (rows + columns - rest) ** 2 / parts)


def _t(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """t of resamples; infinite, by the sign of the mean, where a resample has no spread."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / error)


@lru_cache(maxsize=16)
def _counts(what: str, n: int, resamples: int) -> np.ndarray:
    """How often each of n things is drawn, (resample, n); the same for every comparison of as many."""
    drawn = torch.randint(n, (resamples, n), generator=generator(f"resamples/{what}/{n}")).numpy()
    flat = (drawn + n * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * n).reshape(resamples, n).astype(np.uint16)


def interval(values):
    """95 % interval of the mean over groups, as `mean_over_groups` gives it.

    Args:
        values: (group, ...), finite; further dimensions share the resampled groups.

    Returns:
        Lower and upper ends, floats for (group,), arrays (...) otherwise.

    >>> low, high = interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    values = np.asarray(values, dtype=float)
    if values.ndim == 0 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values of one group or more, got {values}")
    ends = [mean_over_groups(column).interval(LEVEL) for column in values.reshape(len(values), -1).T]
    low, high = (np.array(end).reshape(values.shape[1:]) for end in zip(*ends, strict=True))
    return (float(low), float(high)) if values.ndim == 1 else (low, high)


@alone
def sign_flips(values, *, at: float = 0.0) -> tuple[float, float]:
    """One-sided p values as of `Mean.tails`, from the signs of values (group,) less ``at`` changed in every way.

    >>> sign_flips([1.0, 2.0, 3.0])
    (0.125, 1.0)
    """
    shifted = np.asarray(values, dtype=float) - at
    n = len(shifted)
    if n < 2:
        return float("nan"), float("nan")
    sums, reach = _signs(n) @ shifted, ROUNDING * np.abs(shifted).sum()
    return float(np.mean(sums >= shifted.sum() - reach)), float(np.mean(sums <= shifted.sum() + reach))


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    if n <= MOST_ENUMERATED:
        return np.array(list(product((1, -1), repeat=n)))
    drawn = torch.randint(2, (RESAMPLES, n), generator=generator(f"signs/{n}")).numpy()
    return np.concatenate([np.ones((1, n)), 2 * drawn - 1])
