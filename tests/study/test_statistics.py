import numpy as np
import pytest
from scipy import stats

from hrebasin.study.statistics import PairedVariances, Test, holm
from synthetic import normal


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


@pytest.mark.parametrize("n", [4, 10])
def test_equality_holds_where_the_interval_lies_within_the_margin(n):
    values = 0.1 * normal(n, "equivalence")
    low, high = Test("t", values, "1").interval()
    reach = max(abs(low), abs(high))
    near, far = (Test("t", values, "1", margin=reach * factor) for factor in (1.01, 0.99))
    assert near.p_for <= 0.05 < far.p_for
    away = Test("t", values + 5, "1", margin=0.5)
    assert away.p == away.p_against <= 0.05 < away.p_for == 1
    with pytest.raises(ValueError, match="must be positive, got 0"):
        Test("t", values, "1", margin=0)


def test_the_best_of_several_pays_for_being_chosen():
    values = normal(9, "chosen") + 1
    free, paid = Test("t", values, "1"), Test("t", values, "1", tries=4)
    assert paid.p == pytest.approx(4 * free.p)
    assert paid.interval()[0] < free.interval()[0]


def test_ratios_are_reported_as_ratios():
    test = Test("t", np.log([2.0, 2.0, 8.0]), "times", ratio=True)
    assert test.effect == pytest.approx(32 ** (1 / 3))
    assert test.interval() == pytest.approx(tuple(np.exp(Test("t", test.values, "1").interval())))


def test_a_test_refuses_missing_values_and_images_of_other_means():
    with pytest.raises(ValueError, match="'gap' needs one finite value a group"):
        Test("gap", np.array([1.0, np.nan]), "1")
    with pytest.raises(ValueError, match="'gap': the means over images are not the values"):
        Test("gap", np.ones(3), "1", by_image=np.zeros((3, 4)))


def test_variances_are_compared_as_pitman_and_morgan_do():
    first, second = normal(30, "first"), 2 * normal(30, "second")
    test = PairedVariances("spread", first, second, groups=8)
    assert test.effect == pytest.approx(second.var() / first.var())
    assert test.p == pytest.approx(stats.pearsonr(first + second, first - second).pvalue)
    assert test.p == test.p_for
    low, high = test.interval()
    for end in (low, high):  # scaled so that the ratio is an end of the interval, p is 5 %
        assert PairedVariances("spread", first * end**0.5, second, groups=8).p == pytest.approx(0.05)
    assert np.isnan(PairedVariances("spread", first, second, groups=1).p)


def test_a_sign_is_that_of_the_interval():
    assert [Test("a", values, "1").sign for values in ([1, 1.1, 1.2], [-1, -1.1, -1.2], [1, -1, 0.1])] == [1, -1, 0]


def test_an_interval_ends_where_the_effect_does():
    wide, shares = Test("t", [0.05, 0.9, 1.0], "1"), Test("t", [0.05, 0.9, 1.0], "1", limits=(0, 1))
    assert wide.interval()[0] < 0
    assert wide.interval()[1] > 1
    assert shares.interval() == (0, 1)
    assert shares.p == wide.p


def test_rows_name_what_p_is_taken_against():
    values = np.array([0.2, 0.4, 0.3])
    told = [Test("t", values, "1", **more).row()["against"] for more in ({}, {"target": 1}, {"margin": 0.5})]
    assert told == ["", "1", "-0.5 to 0.5"]
