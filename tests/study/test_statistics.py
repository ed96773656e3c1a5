"""Intervals, p values and tests against SciPy, enumeration and simulated studies."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

import calibration
from hrebasin.study import resampling
from hrebasin.study.claims.ledger import CLAIMS
from hrebasin.study.resampling import interval, mean_over_groups, mean_over_groups_and_images, sign_flips
from hrebasin.study.statistics import PairedVariances, Test, holm
from synthetic import normal


@pytest.fixture
def fewer(monkeypatch):
    """A twentieth of the resamples."""
    monkeypatch.setattr(resampling, "RESAMPLES", 999)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_interval_holds_the_mean_of_normal_draws_in_95_percent(n, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 1999)
    low, high = interval(2 + normal((n, 2000), f"coverage/{n}"))
    assert 0.94 <= np.mean((low <= 2) & (high >= 2)) <= 0.96


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
def test_few_groups_or_distinct_resamples_get_students_interval(values):
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    above, below = mean_over_groups(values).tails(0)
    assert 2 * min(above, below) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_equal_values_have_a_sign_and_nothing_else():
    assert interval([2.0] * 8) == (2.0, 2.0)
    assert np.isnan(interval([2.0] * 5)).all()
    assert np.isnan(interval([3.0])).all()
    assert mean_over_groups([2.0] * 8).tails(0) == (2**-8, 1.0)
    assert mean_over_groups([0.1 + 0.2, 0.3]).tails(1) == (1.0, 0.25)
    assert mean_over_groups([0.0, 0.0]).tails(0) == (1.0, 1.0)
    assert Test("share", np.full(2, 0.5), "1").p == 0.5
    assert Test("share", np.full(8, 0.5), "1").p == pytest.approx(2**-7)


@pytest.mark.parametrize("images", [0, 40])
def test_p_is_at_most_005_where_the_interval_leaves_out_the_value(images):
    for k in range(20):
        values = normal((6, images or 1), f"same/{k}") + normal((6, 1), f"groups/{k}")
        mean = mean_over_groups_and_images(values) if images else mean_over_groups(values[:, 0])
        for level in (0.95, 0.99):
            low, high = mean.interval(level)
            for at in (low - 1e-9, low + 1e-9, high - 1e-9, high + 1e-9, 0.0):
                assert (2 * min(mean.tails(at)) <= 1 - level + 1e-12) == (not low <= at <= high), (at, low, high)


def test_columns_share_resamples_and_equal_single_intervals():
    values = normal((9, 2, 3), "columns")
    low, high = interval(values)
    assert low.shape == high.shape == (2, 3)
    assert interval(values[:, 1, 2]) == pytest.approx((low[1, 2], high[1, 2]))


def test_the_error_over_groups_and_images_is_that_of_the_two_way_layout():
    x = normal((7, 30), "two-way")
    rows, columns, mean = x.mean(1), x.mean(0), x.mean()
    rest = ((x - rows[:, None] - columns + mean) ** 2).sum() / (6 * 29)
    squares = 30 * rows.var(ddof=1), 7 * columns.var(ddof=1), rest
    expected = max(squares[0], squares[1], squares[0] + squares[1] - rest) / x.size
    assert mean_over_groups_and_images(x).error ** 2 == pytest.approx(expected)


def test_resamples_of_groups_and_images_are_those_of_the_drawn_table():
    x = normal((5, 8), "drawn")
    x -= x.mean()
    groups, images = (resampling._counts(what, n, 20) for what, n in (("groups", 5), ("images", 8)))
    mean, (rows, columns, _) = resampling._moments(x, groups.astype(float), images.astype(float))
    for k in range(20):
        table = np.repeat(np.repeat(x, groups[k], 0), images[k], 1)
        assert mean[k] == pytest.approx(table.mean())
        assert rows[k] == pytest.approx(8 * table.mean(1).var(ddof=1))
        assert columns[k] == pytest.approx(5 * table.mean(0).var(ddof=1))


@pytest.mark.parametrize("n", [3, 8])
def test_images_that_all_groups_share_are_paid_for(n, fewer):
    """Coverage where images vary as in the data: groups alone hold the mean far too seldom."""
    held = {"both": 0, "groups": 0}
    for k in range(200):
        x = 0.1 * normal((n, 1), f"g/{k}") + normal((1, 50), f"i/{k}") + normal((n, 50), f"gi/{k}")
        for name, mean in (("both", mean_over_groups_and_images(x)), ("groups", mean_over_groups(x.mean(1)))):
            low, high = mean.interval(0.95)
            held[name] += low <= 0 <= high
    assert 0.92 <= held["both"] / 200 <= 0.98
    assert held["groups"] / 200 < 0.9


def test_sign_flips_try_every_sign():
    values = normal(6, "flips") + 0.5
    sums = [np.dot(signs, values) for signs in product((1, -1), repeat=6)]
    assert sign_flips(values)[0] == np.mean(np.array(sums) >= values.sum() - 1e-12)
    assert sign_flips([1.0] * 8)[0] == 2**-8
    assert sign_flips(np.arange(1, 30.0))[0] < 0.001
    assert np.isnan(sign_flips([1.0])).all()


def test_holm_agrees_with_a_worked_example_and_leaves_missing_values_out_of_the_count():
    # sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, which may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    p = np.array([np.nan, 0.6, 0.02])
    assert holm(p) == pytest.approx([np.nan, 0.6, 0.04], nan_ok=True)
    assert np.isnan(p[0])  # the argument is not changed
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


@pytest.mark.parametrize("n", [4, 10])
def test_equality_holds_where_the_interval_lies_within_the_margin(n):
    values = 0.1 * normal(n, "equivalence")
    low, high = Test("t", values, "1").interval()
    reach = max(abs(low), abs(high))
    near, far = (Test("t", values, "1", margin=reach * factor) for factor in (1.01, 0.99))
    assert near.p_for <= 0.05 < far.p_for
    away = Test("t", values + 5, "1", margin=0.5)
    assert away.p == away.p_against <= 0.05 < away.p_for == 1


def test_equality_is_found_at_its_margin_as_often_as_the_level_says(fewer):
    draws = 0.5 + 0.2 * normal((1000, 8), "margin")
    assert 0.01 <= np.mean([Test("t", v, "1", margin=0.5).p_for <= 0.05 for v in draws]) <= 0.04  # 2.5 % on each side


def test_the_best_of_several_pays_for_being_chosen(fewer):
    """Of four comparisons without effect the largest is taken."""
    draws = normal((500, 4, 8), "best of four")
    best = draws[np.arange(500), draws.mean(2).argmax(1)]
    free, paid = (np.mean([Test("t", v, "1", tries=tries).p_for <= 0.05 for v in best]) for tries in (1, 4))
    assert free > 0.06
    assert paid < 0.05
    free, paid = (Test("t", normal(9, "chosen") + 1, "1", tries=tries) for tries in (1, 4))
    assert paid.p == pytest.approx(4 * free.p)
    assert paid.interval()[0] < free.interval()[0]


def test_variances_are_compared_as_pitman_and_morgan_do():
    first, second = normal(30, "first"), 2 * normal(30, "second")
    test = PairedVariances("spread", first, second, groups=8)
    assert test.effect == pytest.approx(second.var() / first.var())
    assert test.p == test.p_for == pytest.approx(stats.pearsonr(first + second, first - second).pvalue)
    for end in test.interval():  # scaled so that the ratio is an end of the interval, p is 5 %
        assert PairedVariances("spread", first * end**0.5, second, groups=8).p == pytest.approx(0.05)
    assert np.isnan(PairedVariances("spread", first, second, groups=1).p)


def test_ratios_signs_limits_and_targets_are_told():
    test = Test("t", np.log([2.0, 2.0, 8.0]), "times", ratio=True)
    assert test.effect == pytest.approx(32 ** (1 / 3))
    assert test.interval() == pytest.approx(tuple(np.exp(Test("t", test.values, "1").interval())))
    assert [Test("a", values, "1").sign for values in ([1, 1.1, 1.2], [-1, -1.1, -1.2], [1, -1, 0.1])] == [1, -1, 0]
    wide, shares = Test("t", [0.05, 0.9, 1.0], "1"), Test("t", [0.05, 0.9, 1.0], "1", limits=(0, 1))
    assert wide.interval()[0] < 0
    assert wide.interval()[1] > 1
    assert (shares.interval(), shares.p) == ((0, 1), wide.p)
    told = [Test("t", [0.2, 0.4, 0.3], "1", **more).row()["against"] for more in ({}, {"target": 1}, {"margin": 0.5})]
    assert told == ["", "1", "-0.5 to 0.5"]


def test_what_cannot_be_used_is_refused():
    for call, message in (
        (lambda: interval([]), "needs finite values"),
        (lambda: interval([1.0, np.nan]), "needs finite values"),
        (lambda: interval(3.0), "needs finite values"),
        (lambda: Test("t", np.ones(3), "1", margin=0), "must be positive, got 0"),
        (lambda: Test("gap", np.array([1.0, np.nan]), "1"), "'gap' needs one finite value per group"),
        (lambda: Test("gap", np.ones(3), "1", by_image=np.zeros((3, 4))), "'gap': the means over images are not the"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_errors_are_as_rare_and_intervals_hold_the_truth_as_often_as_the_level_says(monkeypatch):
    """`make statistics` does this hundreds of times."""
    n = 4
    monkeypatch.setattr(resampling, "RESAMPLES", resampling.RESAMPLES)  # which a study sets
    monkeypatch.setattr(calibration, "RESAMPLES", 999)
    monkeypatch.setattr(calibration, "IMAGES", 100)
    found = calibration.experiments(range(n), at_once=1, groups=8, effects=calibration.NULL)
    null = calibration.with_edges(found, range(n), at_once=1, groups=8)
    assert {name.split()[0].rstrip("abc") for name in null.part.values} == set(CLAIMS)
    most, fewest = stats.binom.ppf(0.9999, n, 0.05), stats.binom.ppf(0.0001, n, 0.95)
    errors = calibration.wrong(null, "alone").sum("seed")
    assert (errors <= most).all(), errors
    assert calibration.family_error(null) * n <= most
    held = null.held.sum("seed").drop_sel(part=list(calibration.UNKNOWN))
    assert (held >= fewest - 1e-9).all(), held


@pytest.mark.parametrize(("groups", "alpha"), [(8, 0.05), (100, 0.005)])
def test_the_smallest_difference_is_found_four_times_in_five(groups, alpha):
    draws = calibration.smallest_difference(groups, alpha) + normal((1000, groups), f"power/{groups}")
    assert 0.76 <= (stats.ttest_1samp(draws, 0, axis=1).pvalue <= alpha).mean() <= 0.84
