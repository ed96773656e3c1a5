import numpy as np
import pytest
from scipy import stats

from hrebasin.study.statistics import Test, equivalence_p, holm, interval, paired_p
from synthetic import normal


@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_interval_holds_the_mean_of_normal_draws_in_95_percent(n):
    low, high = interval(2 + normal((n, 2000), f"coverage/{n}"), name=f"coverage/{n}")
    assert 0.94 <= np.mean((low <= 2) & (high >= 2)) <= 0.96


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
def test_few_groups_or_distinct_resamples_get_students_interval(values):
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert interval(values, name="few") == pytest.approx(expected)
    assert interval([2.0] * 8, name="equal") == (2.0, 2.0)
    assert np.isnan(interval([3.0], name="one")).all()


def test_the_interval_depends_on_its_name_only():
    values = normal(9, "stream")
    assert interval(values, name="a") == interval(values.copy(), name="a")
    assert interval(values, name="a") != interval(values, name="b")


def test_columns_share_resamples_and_equal_single_intervals():
    values = normal((9, 2, 3), "columns")
    low, high = interval(values, name="columns")
    assert low.shape == high.shape == (2, 3)
    assert interval(values[:, 1, 2], name="columns") == pytest.approx((low[1, 2], high[1, 2]))


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0, np.nan], 0.95), ([1.0, 2.0], 1.0), (3.0, 0.95)])
def test_an_interval_refuses_what_it_cannot_use(values, level):
    with pytest.raises(ValueError, match="needs finite values|level must lie"):
        interval(values, level=level, name="bad")


def test_paired_p_is_the_t_test_except_without_spread():
    values = normal(7, "paired")
    assert paired_p(values) == pytest.approx(stats.ttest_rel(values + 3, np.full(7, 3.0)).pvalue)
    assert np.isnan(paired_p([1.0]))
    assert paired_p([0.0, 0.0]) == 1.0
    assert paired_p([0.1 + 0.2, 0.3]) == 0.0  # equal up to rounding


def test_paired_p_rejects_a_true_null_at_about_its_level():
    draws = normal((2000, 6), "null")
    rejected = np.mean([paired_p(values) <= 0.05 for values in draws[:600]])
    assert 0.02 <= rejected <= 0.09


def test_equivalence_needs_the_whole_interval_within_the_margin():
    values = 0.1 * normal(10, "equivalence")
    low, high = stats.t.interval(0.90, 9, values.mean(), stats.sem(values))  # TOST at 5 % is the 90 % interval
    reach = max(abs(low), abs(high))
    assert equivalence_p(values, reach * 1.01) < 0.05 < equivalence_p(values, reach * 0.99)
    assert equivalence_p([0.0, 0.0], 0.5) == 0.0
    assert equivalence_p([0.6, 0.6], 0.5) == 1.0
    assert np.isnan(equivalence_p([0.0], 0.5))
    with pytest.raises(ValueError, match="must be positive, got 0"):
        equivalence_p(values, 0)


def test_holm_agrees_with_a_worked_example():
    # sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, which may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_missing_values_out_of_the_count_and_stops_at_one():
    p = np.array([np.nan, 0.6, 0.02])
    assert holm(p) == pytest.approx([np.nan, 0.6, 0.04], nan_ok=True)
    assert np.isnan(p[0])  # the argument is not changed
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_equal_values_in_few_groups_are_no_proof():
    assert Test("share", np.full(2, 0.5), "1").p == 0.5
    assert Test("share", np.full(8, 0.5), "1").p == pytest.approx(2**-7)


def test_a_test_refuses_missing_values():
    with pytest.raises(ValueError, match="'gap' needs one finite value a group"):
        Test("gap", np.array([1.0, np.nan]), "1")
