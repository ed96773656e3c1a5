from itertools import product

import numpy as np
import pytest
from scipy import stats

from hrebasin.study import resampling
from hrebasin.study.resampling import interval, mean_over_groups, mean_over_groups_and_images, sign_flips
from synthetic import normal


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


@pytest.mark.parametrize("images", [0, 40])
def test_p_is_at_most_005_where_the_interval_leaves_out_the_value(images):
    for k in range(40):
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


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0, np.nan], 0.95), ([1.0, 2.0], 1.0), (3.0, 0.95)])
def test_an_interval_refuses_what_it_cannot_use(values, level):
    with pytest.raises(ValueError, match="needs finite values|level must lie"):
        interval(values, level=level)


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
    mean, (rows, columns, rest) = resampling._moments(x, groups.astype(float), images.astype(float))
    for k in range(20):
        table = np.repeat(np.repeat(x, groups[k], 0), images[k], 1)
        assert mean[k] == pytest.approx(table.mean())
        assert rows[k] == pytest.approx(8 * table.mean(1).var(ddof=1))
        assert columns[k] == pytest.approx(5 * table.mean(0).var(ddof=1))


@pytest.mark.parametrize("n", [3, 8])
def test_images_that_all_groups_share_are_paid_for(n, monkeypatch):
    """Coverage where images vary as in the data: groups alone hold the mean far too seldom."""
    monkeypatch.setattr(resampling, "RESAMPLES", 999)
    held = {"both": 0, "groups": 0}
    for k in range(300):
        x = 0.1 * normal((n, 1), f"g/{k}") + normal((1, 50), f"i/{k}") + normal((n, 50), f"gi/{k}")
        for name, mean in (("both", mean_over_groups_and_images(x)), ("groups", mean_over_groups(x.mean(1)))):
            low, high = mean.interval(0.95)
            held[name] += low <= 0 <= high
    assert 0.92 <= held["both"] / 300 <= 0.98
    assert held["groups"] / 300 < 0.9


def test_sign_flips_try_every_sign():
    values = normal(6, "flips") + 0.5
    sums = [np.dot(signs, values) for signs in product((1, -1), repeat=6)]
    assert sign_flips(values)[0] == np.mean(np.array(sums) >= values.sum() - 1e-12)
    assert sign_flips([1.0] * 8)[0] == 2**-8
    assert sign_flips(np.arange(1, 30.0))[0] < 0.001
    assert np.isnan(sign_flips([1.0])).all()
