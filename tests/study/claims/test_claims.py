from collections.abc import Mapping

import numpy as np
import pytest
import xarray as xr

import synthetic
from hrebasin.study import records, resampling
from hrebasin.study.claims import robustness
from hrebasin.study.claims.ledger import CLAIMS, PARTS, ledger
from hrebasin.study.claims.verdicts import REPORTED, Part, assemble, wholes
from hrebasin.study.contrasts import robust_difference
from hrebasin.study.groups import of_stage, tree
from hrebasin.study.statistics import Test, holm

GROUPS = 24  # enough for the comparison of spreads
STAGES = ("merge", "attack", "regularity", "ablations")  # that claims are decided by


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 1999)


def decided(results: Mapping, *claims: str) -> xr.Dataset:
    """The ledger of some claims (by default of all), without what is only reported."""
    parts = [part for part in PARTS if part.name and part.claim in (claims or CLAIMS)]
    found = assemble(parts, CLAIMS, results)
    return found.isel(part=(found.verdict != REPORTED).values)


def verdicts(found: xr.Dataset) -> dict:
    return {whole.claim: whole.verdict for whole in wholes(found)}


@pytest.fixture(scope="module")
def planted():
    return synthetic.results(groups=GROUPS, stages=STAGES)


def test_planted_effects_are_reproduced_with_the_p_of_each_comparison(planted):
    found = decided(planted)
    assert verdicts(found) == dict.fromkeys(CLAIMS, "reproduced")
    assert set(found.verdict.values) == {"reproduced"}
    np.testing.assert_allclose(found.p_holm, holm(found.p.values))  # of all parts, which point the claimed way
    excludes = (found.low > 0) | (found.high < 0)
    others = ["C3 4", "C3 8", "C7b", "C7c", "C8a", "C8b", "C9", "C11"]  # whose p is not that of a paired difference
    plain = ~found.part.isin(others) & ~found.part.str.startswith("C5c") & ~found.part.str.startswith("C6")
    assert plain.sum() > 10
    assert ((found.p <= 0.05) == excludes)[plain.values].all()
    strengths = found.isel(part=found.part.str.startswith("C6").values)
    assert all("L2 0.001 minus" in name for name in strengths.comparison.values), "the more robust one decides"
    assert strengths.effect.values == pytest.approx(3, abs=0.3)  # planted: above the best other at every size


def test_reversed_effects_are_contradicted():
    reversed_ = synthetic.results(groups=GROUPS, stages=STAGES, **dict.fromkeys(CLAIMS, -1))
    assert verdicts(decided(reversed_)) == dict.fromkeys(CLAIMS, "contradicted")


def test_no_effect_is_not_resolved():
    # One draw, so a verdict may come out wrong by chance; how often is tested in test_calibration.
    for claim in CLAIMS:
        made = synthetic.results(groups=12, stages=STAGES, **{claim: 0})
        assert verdicts(decided(made, claim)) == {claim: "not resolved"}


def test_one_group_gives_numbers_without_interval_or_verdict():
    found = decided(synthetic.results(groups=1, stages=STAGES))
    assert set(found.verdict.values) == {"no verdict"}
    assert np.isfinite(found.effect).all()
    for name in ("low", "high", "p", "p_holm", "p_sign_flip"):
        assert np.isnan(found[name]).all(), name


def test_a_line_above_its_ends_half_way_does_not_refute_a_barrier(planted):
    pairs = planted["ablations"].copy(deep=True)
    hump = 4 * pairs["lambda"] * (1 - pairs["lambda"])
    # lower in the middle, higher at a quarter: there is a barrier, and half-way cannot show it
    pairs["loss"] = pairs.loss - 3 * hump.where(abs(pairs["lambda"] - 0.5) < 0.1, 0)
    found = decided(planted | {"ablations": pairs}, "C4").set_index(part="part")
    assert found.verdict.sel(part="C4c") == "not resolved"
    assert verdicts(found.reset_coords()) == {"C4": "not resolved"}


def test_what_was_not_measured_says_why():
    merge = synthetic.results(groups=5, stages=["merge"])["merge"]
    found = verdicts(decided({"merge": merge}))
    assert [claim for claim, verdict in found.items() if verdict != "not measured"] == ["C1", "C2", "C3", "C4", "C11"]
    nothing = decided({})
    assert set(nothing.verdict.values) == {"not measured"}
    assert nothing.reason.values[0] == "the data set of stage 'merge' is missing"
    first = merge.isel(model=((merge.method != "merge-many") | (merge.node == 0)).values)
    spread = decided({"merge": first}, "C3")
    assert spread.reason.values.tolist() == [
        f"MergeMany merged 5 of the {n} disjoint sets of {k}" for n, k in ((20, 4), (10, 8))
    ]
    assert verdicts(decided({"merge": first}))["C1"] == "reproduced"


@pytest.mark.parametrize("groups", [0, 5])
def test_the_ledger_can_be_written_and_read(groups, tmp_path):
    results = synthetic.results(groups=groups, stages=STAGES) if groups else {}
    kept = {stage: dataset.copy(deep=True) for stage, dataset in results.items()}
    found = ledger(results)
    assert found.identical(ledger(results)), "the same twice"
    assert all(kept[stage].identical(dataset) for stage, dataset in results.items())
    if groups:
        assert found.verdict.sel(part="C9: first minus second permuted, the same layer order") == REPORTED
    assert found.indexes["part"].is_unique
    records.write(found, tmp_path / "ledger.nc", stage="ledger")
    again = records.read(tmp_path / "ledger.nc", stage="ledger")
    assert [whole.claim for whole in wholes(again)] == list(CLAIMS)
    assert again.comparison.values.tolist() == found.comparison.values.tolist()


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_degenerate_results_are_not_measured_in_their_rows_alone(value):
    results = synthetic.results(groups=3, leaves=4, stages=("ablations", "attack"))
    pairs = results["ablations"]
    found = ledger(results | {"ablations": pairs.assign(accuracy_barrier=pairs.accuracy_barrier * value)})
    barriers = found.effect[found.part.str.startswith("C4: accuracy barrier").values]
    assert barriers.size
    assert np.isnan(barriers).all() == np.isnan(value)
    assert np.isfinite(found.effect.sel(part=["C4b", "C9"])).all()
    found = ledger(results | {"ablations": pairs.assign(loss=pairs.loss * value).where(pairs.group > 0)})
    assert (found.verdict.sel(part="C4c") == "not measured") == np.isnan(value)
    assert found.n.sel(part="C9") == 2
    found = ledger({"attack": results["attack"].sel(epsilon=[0.0])})
    assert found.reason.sel(part="C6 fgsm") == "no attack of a size above 0 was measured"


def test_of_several_comparisons_the_least_convincing_is_shown_and_all_must_hold():
    values = synthetic.normal(10, "steps")
    weak, strong, reverse = (Test(str(shift), values + shift, "1") for shift in (0.1, 9.0, -9.0))
    for tests, verdict, shown in (
        ([strong, weak], "not resolved", "0.1"), ([strong, strong], "reproduced", "9.0"),
        ([strong, reverse, weak], "contradicted", "-9.0"),
    ):  # fmt: skip
        found = assemble([Part("C1", "C1a", "", lambda _, tests=tests: tests)], CLAIMS, {}).isel(part=0)
        assert (found.verdict, found.comparison) == (verdict, shown)


def test_the_planted_crossing_is_reported_and_curves_that_do_not_cross_have_none(planted):
    found = ledger({"attack": planted["attack"]})
    crossing = found.sel(part="C5: FGSM: crossing of stages 0 and 4")
    assert crossing.effect == pytest.approx(synthetic.CROSSING, abs=2e-4)
    assert crossing.low < synthetic.CROSSING < crossing.high
    apart = synthetic.results(groups=2, noise=0, C5=-1, stages=("attack",))
    assert not any("crossing" in name for name in ledger(apart).part.values)


def test_a_geometric_decay_is_not_linear(planted):
    regularity = planted["regularity"]
    geometric = 53 * 0.8**regularity.stage
    changed = regularity.assign(weight_norm=regularity.weight_norm * geometric / regularity.weight_norm.sum("layer"))
    noise = 1 + 1e-3 * synthetic.normal(changed.sizes["model"], "norm")[:, None]
    found = decided({"regularity": changed.assign(weight_norm=changed.weight_norm * noise)}, "C7")
    assert found.verdict.values.tolist()[:2] == ["reproduced", "contradicted"]
    assert found.effect.values[1] == pytest.approx(0.8**3, abs=0.01)


def test_differences_by_image_have_the_published_means_and_tell_which_groups_saw_images():
    attack = synthetic.by_image(synthetic.results(groups=5, stages=("attack",))["attack"], 60, 0)
    strong = (attack.epsilon.values >= 0.015) / 6
    values, images = robust_difference(attack, "fgsm", of_stage(4), of_stage(0), strong)
    robust = attack.robust.sel(attack="fgsm").isel(epsilon=slice(15, None)).mean("epsilon")
    top, leaves = (robust[attack.stage.values == s] for s in (4, 0))
    tree_only = np.isin(attack.method.values[attack.stage.values == 4], ["tree"])
    unmerged = attack.method.values[attack.stage.values == 0] == "unmerged"
    expected = top[tree_only].groupby("group").mean() - leaves[unmerged].groupby("group").mean()
    np.testing.assert_allclose(images, 100 * expected.transpose("group", "image"), atol=1e-9)
    np.testing.assert_allclose(images.mean(1), values)
    blank = attack.assign(robust=attack.robust.where(attack.group != 2, -1).astype("int8"))
    again, filled = robust_difference(blank, "fgsm", of_stage(4), of_stage(0), strong)
    np.testing.assert_allclose(again, values)
    np.testing.assert_allclose(filled.mean(1), values)
    found = decided({"attack": attack}, "C5", "C10")
    assert found.images.values.tolist() == [1] * 10
    without = decided({"attack": attack.drop_vars(["robust", "correct_draws"])}, "C10", "C12")
    assert without.images.values.tolist() == [0] * 6


@pytest.mark.parametrize("what", ["accuracy", "share retained"])
def test_slopes_under_noise_are_the_means_of_what_each_image_adds(what):
    attack = synthetic.by_image(synthetic.results(groups=5, stages=("attack",))["attack"], n := 30, 0)
    counts = attack.correct_draws.where(attack.group != 2, -1).astype("int16")  # of which nothing is kept by image
    for data in (attack, attack.assign(correct_draws=counts)):
        test = robustness._noise({"attack": data}, "uniform", what)
        share = data.noise_accuracy.sel(noise="uniform").mean("draw")
        share = share / share.sel(magnitude=0) if what == "share retained" else share
        mean = share.sel(magnitude=data.magnitude > 0).mean("magnitude").rename("share")
        stages = np.arange(5)
        lines = np.stack([tree(mean, stage).values for stage in stages])
        np.testing.assert_allclose(test.values, 100 * np.polyfit(stages, lines, 1)[0])
        np.testing.assert_allclose(test.by_image.mean(1), test.values)
    # the error of a ratio of two means over images, by a tenth of the images left out at a time
    whole = robustness._noise({"attack": attack}, "uniform", what).by_image.mean(0)
    left = []
    for k in range(n):
        few = attack.isel(image=np.arange(n) != k)
        accuracy = (few.correct_draws.mean("image") / 5).expand_dims(draw=5).transpose(*attack.noise_accuracy.dims)
        left.append(robustness._noise({"attack": few.assign(noise_accuracy=accuracy)}, "uniform", what).values.mean())
    jackknife = np.std(left) * np.sqrt(n - 1)
    assert whole.std(ddof=1) / np.sqrt(n) == pytest.approx(jackknife, rel=0.1)
