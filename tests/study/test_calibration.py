"""The ledger on made-up results with known answers, a few times; `make statistics` does it hundreds of times."""

import numpy as np
import pytest
from scipy import stats

import calibration
from hrebasin.study import resampling
from hrebasin.study.claims.ledger import CLAIMS
from hrebasin.study.statistics import Test
from synthetic import normal

N = 6


@pytest.fixture(scope="module")
def null():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "RESAMPLES", resampling.RESAMPLES)  # which a study sets
        patch.setattr(calibration, "RESAMPLES", 999)
        patch.setattr(calibration, "IMAGES", 100)
        found = calibration.experiments(range(N), at_once=1, groups=8, effects=calibration.NULL)
        return calibration.with_edges(found, range(N), at_once=1, groups=8)


def test_errors_are_as_rare_as_the_level_says(null):
    assert {name.split()[0].rstrip("abc") for name in null.part.values} == set(CLAIMS)
    most = stats.binom.ppf(0.9999, N, 0.05)
    errors = calibration.wrong(null, "alone").sum("seed")
    assert (errors <= most).all(), errors
    assert calibration.family_error(null) * N <= most


def test_intervals_hold_the_truth_as_often_as_they_say(null):
    fewest = stats.binom.ppf(0.0001, N, 0.95)
    held = null.held.sum("seed").drop_sel(part=list(calibration.UNKNOWN))
    assert (held >= fewest - 1e-9).all(), held


def test_the_best_of_several_pays_for_being_chosen(monkeypatch):
    """Of four comparisons without effect the largest is taken."""
    monkeypatch.setattr(resampling, "RESAMPLES", 999)
    draws = normal((500, 4, 8), "best of four")
    best = draws[np.arange(500), draws.mean(2).argmax(1)]
    free, paid = (np.mean([Test("t", v, "1", tries=tries).p_for <= 0.05 for v in best]) for tries in (1, 4))
    assert free > 0.06
    assert paid < 0.05


def test_equality_is_found_at_its_margin_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 999)
    draws = 0.5 + 0.2 * normal((1000, 8), "margin")
    assert 0.01 <= np.mean([Test("t", v, "1", margin=0.5).p_for <= 0.05 for v in draws]) <= 0.04  # 2.5 % on each side


@pytest.mark.parametrize(("groups", "alpha"), [(8, 0.05), (100, 0.005)])
def test_the_smallest_difference_is_found_four_times_in_five(groups, alpha):
    draws = calibration.smallest_difference(groups, alpha) + normal((1000, groups), f"power/{groups}")
    assert 0.76 <= (stats.ttest_1samp(draws, 0, axis=1).pvalue <= alpha).mean() <= 0.84
