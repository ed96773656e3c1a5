from collections.abc import Mapping

import numpy as np
import pytest
import xarray as xr

import synthetic
from hrebasin.study import records, statistics
from hrebasin.study.claims.accuracy import c1, c2, c3
from hrebasin.study.claims.ledger import CLAIMS, ledger
from hrebasin.study.claims.regularity import c7, c9
from hrebasin.study.claims.robustness import c5, c6
from hrebasin.study.claims.verdicts import assemble
from hrebasin.study.groups import crossings

GROUPS = 24  # enough for the comparison of spreads


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)


def verdicts(results: Mapping) -> dict:
    found = ledger(results)
    return dict(zip(found.claim.values.tolist(), found.verdict.values.tolist(), strict=True))


def test_planted_effects_are_reproduced():
    assert verdicts(synthetic.results(groups=GROUPS)) == dict.fromkeys(CLAIMS, "reproduced")


def test_reversed_effects_are_contradicted():
    reversed_ = synthetic.results(groups=GROUPS, **dict.fromkeys(CLAIMS, -1))
    assert verdicts(reversed_) == dict.fromkeys(CLAIMS, "contradicted")


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_effect_is_inconclusive(claim):
    # One draw, so a verdict may come out wrong by chance; how often is tested below.
    found = ledger_of(claim, synthetic.results(groups=12, **{claim: 0}))
    assert found.verdict.item() == "inconclusive", found.sentence.item()


def ledger_of(claim: str, results: Mapping) -> xr.Dataset:
    """The ledger of one claim alone."""
    return assemble({claim: CLAIMS[claim](results)}, {claim: ""}).isel(claim=0)


def test_one_group_gives_numbers_without_interval_or_verdict():
    found = ledger(synthetic.results(groups=1))
    assert set(found.verdict.values) == {"no verdict"}
    assert (found.n == 1).all()
    assert np.isfinite(found.effect).all()
    for name in ("low", "high", "p", "p_holm", "test_low", "test_high"):
        assert np.isnan(found[name]).all()
    assert all(sentence.startswith("n = 1: no verdict") for sentence in found.sentence.values)


def test_a_line_below_its_ends_half_way_does_not_refute_a_barrier():
    results = synthetic.results(groups=GROUPS)
    pairs = results["ablations"].copy(deep=True)
    hump = 4 * pairs["lambda"] * (1 - pairs["lambda"])
    # lower in the middle, higher at a quarter: there is a barrier, and half-way cannot show it
    pairs["loss"] = pairs.loss - 3 * hump.where(abs(pairs["lambda"] - 0.5) < 0.1, 0)
    found = ledger(results | {"ablations": pairs}).sel(claim="C4")
    assert found.verdict == "inconclusive"
    assert "not shown: loss excess half-way" in str(found.sentence.values)


def test_a_missing_stage_is_not_tested():
    found = verdicts({"merge": synthetic.results(groups=5)["merge"]})
    assert [claim for claim, verdict in found.items() if verdict != "not tested"] == ["C1", "C2", "C3"]
    nothing = ledger({})
    assert set(nothing.verdict.values) == {"not tested"}
    assert nothing.sentence.values[0] == "Not tested: the data set of stage 'merge' is missing."


def test_small_trees_leave_claims_about_large_ones_untested():
    found = verdicts(synthetic.results(groups=3, leaves=4))
    assert found["C2"] == "not tested"
    assert found["C1"] != "not tested"


@pytest.mark.parametrize("results", [{}, {"groups": 1}, {"groups": 5}], ids=["nothing", "one group", "five groups"])
def test_the_ledger_can_be_written_and_read(results, tmp_path):
    found = ledger(synthetic.results(**results) if results else {})
    records.write(found, tmp_path / "ledger.nc", stage="ledger")
    again = records.read(tmp_path / "ledger.nc", stage="ledger")
    assert again.claim.values.tolist() == list(CLAIMS)
    assert set(again.test_claim.values) <= set(CLAIMS)
    assert again.sentence.values.tolist() == found.sentence.values.tolist()


def test_p_is_the_largest_over_the_tests_that_decide_then_holms():
    found = ledger(synthetic.results(groups=8))
    for claim in ("C1", "C2", "C4", "C10"):
        mine = (found.test_claim == claim) & (found.test_decides == 1)
        assert found.p.sel(claim=claim).item() == found.test_p.values[mine.values].max()
    np.testing.assert_allclose(found.p_holm, statistics.holm(found.p.values))


def test_results_come_out_the_same_twice_and_data_stay_as_they_are():
    results = synthetic.results(groups=5)
    kept = {stage: dataset.copy(deep=True) for stage, dataset in results.items()}
    assert ledger(results).identical(ledger(results))
    assert all(kept[stage].identical(dataset) for stage, dataset in results.items())


def test_curves_that_do_not_cross_have_no_crossing():
    attack = synthetic.results(groups=2, noise=0, C5=-1)["attack"]
    assert np.isnan(crossings(attack).crossing).all()
    assert not any("crossing" in test.name for test in c5({"attack": attack}).tests)


def test_a_crossing_far_from_001_speaks_against_c5():
    attack = synthetic.results(groups=8)["attack"]
    shifted = attack.assign_coords(epsilon=attack.epsilon + 0.004)
    crossing = [test for test in c5({"attack": shifted}).tests if "crossing of stages 0 and 4" in test.name][0]
    assert crossing.effect == pytest.approx(synthetic.CROSSING + 0.004, abs=5e-4)
    assert crossing.p_against < 0.05 < crossing.p_for


def test_spread_is_not_judged_on_few_groups():
    finding = c3({"merge": synthetic.results(groups=4)["merge"]})
    assert all(np.isnan(test.p) for test in finding.tests)


def test_the_l2_strength_that_decides_is_the_more_robust_one():
    finding = c6({"attack": synthetic.results(groups=3)["attack"]})
    assert {test.name.split("L2 ")[1].split()[0] for test in finding.tests if test.decides} == {"0.001"}
    assert finding.headline.effect == 1.0


def test_a_geometric_decay_speaks_against_the_line():
    regularity = synthetic.results(groups=8)["regularity"]
    geometric = 53 * 0.8**regularity.stage
    changed = regularity.assign(weight_norm=regularity.weight_norm * geometric / regularity.weight_norm.sum("layer"))
    changed["weight_norm"] = changed.weight_norm * (
        1 + 1e-3 * synthetic.normal(changed.sizes["model"], "norm")[:, None]
    )
    shape = [test for test in c7({"regularity": changed}).tests if "AIC" in test.name][0]
    assert shape.effect < 0


def test_the_limit_at_which_merge_many_overtakes_is_told():
    merge = synthetic.results(groups=4, noise=0)["merge"]
    assert "at 4 models MergeMany stays behind the tree at every limit of sweeps" in c1({"merge": merge}).reading
    # 3 points behind when converged, 4, 5 and 6 when stopped after 5, 2 and 1 sweeps
    raised = merge.assign(test_accuracy=merge.test_accuracy + 0.045 * (merge.method == "merge-many"))
    assert "at 4 models MergeMany is ahead stopped after 5 sweeps and not yet after 2" in c1({"merge": raised}).reading


def test_a_norm_that_follows_from_the_children_says_so():
    finding = c7({"regularity": synthetic.results(groups=3, noise=0.01)["regularity"]})
    tests = {test.name: test for test in finding.tests}
    error = tests["norm at stage 1 over the value from its children's norms and cosine, less 1"]
    assert error.effect == pytest.approx(0, abs=1e-9)
    share = tests["norm at stage 1 over its children's, less that of orthogonal children"]
    assert share.effect == pytest.approx(46 / 53 - 0.5**0.5, abs=1e-3)
    assert not any(test.decides for test in finding.tests if "cosine" in test.name or "orthogonal" in test.name)


def test_the_same_layer_order_does_not_decide_c9():
    finding = c9({"ablations": synthetic.results(groups=5)["ablations"]})
    assert {test.name: test.decides for test in finding.tests} == {
        "first minus second permuted, other layer order": True,
        "first minus second permuted, same layer order": False,
    }


def test_whether_lower_distances_mean_better_merges_stands_beside_c2():
    merge = synthetic.results(groups=3)["merge"]  # planted: 40 minus the accuracy
    tests = {test.name: test for test in c2({"merge": merge}).tests}
    title = "share of pairs of merges of which the one with lower distances is more accurate, 8 models"
    assert tests[title].effect == 1
