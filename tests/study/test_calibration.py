"""The ledger on made-up results with known answers, a few times; `make statistics` does it a thousand times."""

import numpy as np
import pytest
from scipy import stats

import calibration
from hrebasin.study.statistics import Test
from synthetic import normal

N = 8


@pytest.fixture(scope="module")
def null():
    return calibration.experiments(range(N), at_once=1, groups=8, effects=calibration.NULL)


def test_errors_are_as_rare_as_the_level_says(null):
    most = stats.binom.ppf(0.9995, N, 0.05)
    errors = calibration.error_rates(null).drop_sel(claim="C4") * N
    assert (errors <= most).all(), errors
    assert calibration.family_error(null) * N <= most


def test_intervals_hold_the_truth_as_often_as_they_say(null):
    fewest = stats.binom.ppf(0.0005, N, 0.95)
    covered = calibration.coverage(null) * N
    assert (covered >= fewest).all(), covered


def test_the_best_of_several_pays_for_being_chosen():
    """Of four comparisons without effect the largest is taken."""
    draws = normal((1000, 4, 8), "best of four")
    best = draws[np.arange(1000), draws.mean(2).argmax(1)]
    free, paid = (np.mean([Test("t", v, "1", tries=tries).p_for <= 0.05 for v in best]) for tries in (1, 4))
    assert free > 0.06
    assert paid < 0.05


def test_equality_is_found_at_its_margin_as_often_as_the_level_says():
    draws = 0.5 + 0.5 * normal((1000, 8), "margin")
    assert 0.03 <= np.mean([Test("t", v, "1", margin=0.5).p_for <= 0.05 for v in draws]) <= 0.07


@pytest.mark.parametrize(("groups", "alpha"), [(8, 0.05), (100, 0.005)])
def test_the_smallest_difference_is_found_four_times_in_five(groups, alpha):
    draws = calibration.smallest_difference(groups, alpha) + normal((1000, groups), f"power/{groups}")
    assert 0.76 <= (stats.ttest_1samp(draws, 0, axis=1).pvalue <= alpha).mean() <= 0.84
