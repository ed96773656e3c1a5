"""Comparisons over groups, the unit of replication: effect, interval, p values, and what they say together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from .resampling import LEVEL, Mean, mean_over_groups, mean_over_groups_and_images, sign_flips

LARGE, MOST_DECIMALS = 1e4, 6  # beyond which numbers have three digits, and decimals at most
SMALLEST_TOLD = 0.0001  # of p values: a resampling of 20,000 tells no smaller ones


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
    """One comparison over groups, or over groups and images.

    Args:
        name: what is compared.
        values: (group,), positive where the claim holds; or, with a margin, distances from ``target`` claimed small.
        units: of the values.
        margin: half width of the range that counts as equal; None for a claim that the values are positive.
        target: what was subtracted from the values; effect and interval are reported with it added again.
        refutes: whether values of the opposite sign speak against the claim, or only not for it.
        tries: number of comparisons that this one was chosen from for its effect; p is multiplied by it, and the
            interval holds for all of them at once (Bonferroni).
        by_image: (group, image) where the values are means over images, the same for all groups; groups and images are
            resampled then.
        ratio: whether the values are natural logarithms of ratios; effect and interval are the ratios.
        limits: least and greatest value that the effect can have, where the interval ends; of shares 0 and 1.
    """

    __test__ = False  # not a test for pytest

    name: str
    values: np.ndarray
    units: str
    margin: float | None = None
    target: float = 0.0
    refutes: bool = True
    tries: int = 1
    by_image: np.ndarray | None = None
    ratio: bool = False
    limits: tuple[float, float] = (-np.inf, np.inf)

    def __post_init__(self):
        values = np.asarray(self.values, dtype=float)
        if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
            raise ValueError(f"test {self.name!r} needs one finite value per group, got {values}")
        if self.margin is not None and self.margin <= 0:
            raise ValueError(f"test {self.name!r}: an equivalence margin must be positive, got {self.margin}")
        if self.by_image is not None and not np.allclose(np.mean(self.by_image, axis=1), values):
            raise ValueError(f"test {self.name!r}: the means over images are not the values of the groups")
        object.__setattr__(self, "values", values)

    @cached_property
    def mean(self) -> Mean:
        """Mean over groups, without the target, and its error."""
        return mean_over_groups(self.values) if self.by_image is None else mean_over_groups_and_images(self.by_image)

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.values)

    @property
    def decidable(self) -> bool:
        """Whether there are groups enough for a p value."""
        return self.n > 1

    @property
    def effect(self) -> float:
        """Mean over groups; of ratios, the geometric mean."""
        return self._reported(float(self.values.mean()))

    def interval(self) -> tuple[float, float]:
        """95 % interval of the effect, which leaves out zero (or lies within the margin) where p is at most 0.05."""
        low, high = self.mean.interval(1 - (1 - LEVEL) / self.tries)
        return tuple(float(np.clip(self._reported(end), *self.limits)) for end in (low, high))

    def yes_or_no(self) -> str:
        """Whether the effect is above zero: "Yes", "No" (below) or "Not resolved"."""
        return {1: "Yes", -1: "No", 0: "Not resolved"}[self.sign]

    @property
    def sign(self) -> int:
        """1 where the interval of the effect lies above zero, -1 below, 0 where it does not tell."""
        low, high = self.interval()
        return int(low > 0) - int(high < 0)

    def _reported(self, value: float) -> float:
        return float(np.exp(value + self.target)) if self.ratio else value + self.target

    @property
    def p(self) -> float:
        """Two-sided p of the mean being zero; with a margin the smaller of those of `p_for` and `p_against`."""
        return self._p(self.mean.tails)

    @property
    def p_sign_flip(self) -> float:
        """The same by changing signs over groups in every way, where images are not resampled."""
        return self._p(lambda at: sign_flips(self.values, at=at))

    def _p(self, tails) -> float:
        if not self.decidable:
            return float("nan")
        if self.margin is None:
            return _double(min(tails(0.0)), self.tries)
        return min(self._within(tails), self._beyond(tails))

    def _within(self, tails) -> float:
        """Of two one-sided tests that the mean lies outside the margin, the larger p, doubled: so it is at most 0.05
        where the 95 % interval lies within."""
        return _double(max(tails(-self.margin)[0], tails(self.margin)[1]), self.tries)

    def _beyond(self, tails) -> float:
        """P value of the mean lying within the margin, two-sided."""
        return _double(min(tails(self.margin)[0], tails(-self.margin)[1]), self.tries)

    @property
    def p_for(self) -> float:
        """P value in the claimed direction, 1 when the effect points the other way; or of lying within the margin."""
        if not self.decidable:
            return float("nan")
        if self.margin is not None:
            return self._within(self.mean.tails)
        return self.p if self.mean.value > 0 else 1.0

    @property
    def p_against(self) -> float:
        """P value in the opposite direction, 1 where the claim cannot be refuted; or of lying beyond the margin."""
        if not self.decidable:
            return float("nan")
        if self.margin is not None:
            return self._beyond(self.mean.tails)
        return self.p if self.refutes and self.mean.value < 0 else 1.0

    def row(self) -> dict:
        """What tables show of it."""
        low, high = self.interval()
        numbers = {"effect": self.effect, "low": low, "high": high, "n": self.n}
        numbers |= {"images": np.int8(self.by_image is not None), "p": self.p, "p_sign_flip": self.p_sign_flip}
        return {"comparison": self.name, "units": self.units, "against": self.against} | numbers

    @property
    def against(self) -> str:
        """What p values are taken against, in the units; empty for no effect at all."""
        if self.margin is not None:
            return f"{self.target - self.margin:g} to {self.target + self.margin:g}"
        return f"{self.target:g}" if self.target else ""


class Undefined(Test):
    """A comparison that no group defines, such as a share of nothing: a row of tables, without numbers."""

    effect = p = p_sign_flip = float("nan")

    def __init__(self, name: str, units: str):
        super().__init__(name, np.empty(0), units)

    def __post_init__(self):
        """There are no values to check."""

    def interval(self) -> tuple[float, float]:
        """None: not numbers."""
        return float("nan"), float("nan")


def defined(name: str, values, units: str, *, by_image: np.ndarray | None = None, **more) -> Test:
    """A `Test`, with its arguments, over the groups in which the values are numbers; where none is, `Undefined`."""
    values = np.asarray(values, dtype=float)
    numbers = np.isfinite(values)
    if not numbers.any():
        return Undefined(name, units)
    return Test(name, values[numbers], units, by_image=None if by_image is None else by_image[numbers], **more)


def chance(p: float) -> str:
    """A p value as tables tell it: two digits, since models of the tails say no more; a dash where there is none.

    >>> chance(0.0123), chance(3e-34), chance(float("nan"))
    ('0.012', '< 0.0001', '–')
    """
    if np.isnan(p):
        return "–"
    return f"{p:.2g}" if p >= SMALLEST_TOLD else f"< {SMALLEST_TOLD:g}"


def rounded(effect: float, low: float, high: float) -> tuple[str, str, str]:
    """An effect and the ends of its interval, with as many decimals as give the width of the interval two digits.

    >>> rounded(19.7412, 16.5, 23.0), rounded(0.32, 0.0682, 0.422), rounded(1.0, float("nan"), float("nan"))[0]
    (('19.7', '16.5', '23.0'), ('0.32', '0.07', '0.42'), '1')
    """
    width = high - low
    if not width > 0 or abs(effect) >= LARGE:
        return f"{effect:.3g}", f"{low:.3g}", f"{high:.3g}"
    three = 2 - np.floor(np.log10(max(abs(effect), width)))  # decimals that give the effect three digits
    decimals = int(np.clip(min(1 - np.floor(np.log10(width)), three), 0, MOST_DECIMALS))
    return tuple(f"{round(value, decimals) + 0.0:.{decimals}f}" for value in (effect, low, high))  # + 0.0: no "-0"


def _double(one_sided: float, tries: int) -> float:
    return min(1.0, 2 * tries * one_sided)


class PairedVariances(Test):
    """Whether the second of paired values varies more than the first: Pitman's and Morgan's test (both 1939).

    The effect is the ratio of the variances, second over first; p value and interval are those of the correlation of
    sums with differences (Morgan 1939). For the sign-flip p the two of a pair change places, less their means.

    Args:
        name: what is compared.
        first, second: (pair,) values; pairs are independent of one another.
        groups: how many groups the pairs come from; of one nothing is decided.
    """

    def __init__(self, name: str, first, second, *, groups: int):
        first, second = (np.asarray(side, dtype=float) - np.mean(side) for side in (first, second))
        super().__init__(name, second**2 - first**2, "times")
        object.__setattr__(self, "sides", (first, second))
        object.__setattr__(self, "groups", groups)

    @property
    def decidable(self) -> bool:
        """Whether there are pairs and groups enough for a p value."""
        return self.groups > 1 and self.n > 2 and all(np.ptp(side) > 0 for side in self.sides)

    @property
    def effect(self) -> float:
        """Variance of the second over that of the first."""
        first, second = self.sides
        return float((second**2).sum() / (first**2).sum()) if first.any() else float("nan")

    def interval(self) -> tuple[float, float]:
        """95 % interval of the ratio."""
        if not self.decidable:
            return float("nan"), float("nan")
        free, r = self.n - 2, np.corrcoef(*self.sides)[0, 1]
        k = 1 + 2 * (1 - r**2) * stats.t.ppf((1 + LEVEL) / 2, free) ** 2 / free
        reach = k + np.sqrt(k**2 - 1)
        return float(self.effect / reach), float(self.effect * reach)

    @property
    def p(self) -> float:
        """Two-sided p of the ratio being one."""
        if not self.decidable:
            return float("nan")
        first, second = self.sides
        return float(stats.pearsonr(first + second, second - first).pvalue)


def by_sign(tests: Mapping[str, Test]) -> dict[int, list[str]]:
    """Names of the tests whose effect lies above zero (1), below zero (-1), or is not resolved (0)."""
    found = {1: [], -1: [], 0: []}
    for name, test in tests.items():
        found[test.sign].append(name)
    return found
