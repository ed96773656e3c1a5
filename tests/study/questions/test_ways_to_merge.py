from itertools import product

import numpy as np
import pytest

from hrebasin.calibration import calibrated
from hrebasin.evaluation import accuracy, evaluate
from hrebasin.merging.ensemble import ensemble
from hrebasin.merging.many import merge_many
from hrebasin.merging.methods import MERGES
from hrebasin.merging.tree import merge_pairs
from hrebasin.robustness.attacks import attack
from hrebasin.study.questions.ways_to_merge import BESIDE, NAMES, answer, recommendation
from synthetic import some
from synthetic_questions import effects, mergers

RIVALS = ("cycle-consistent", "correlations", "straight-through", "star")  # of the fixture
DRAWN = [name for name in (*BESIDE, *RIVALS, "merge-many") if MERGES[name].draws]


def test_every_way_merges_the_same_networks(measured):
    data = measured["mergers"]
    per_group = 4 + 2 * (len(BESIDE) + len(RIVALS) + 2 + 1) + len(DRAWN) + 3 * 4
    assert data.sizes["model"] == 2 * per_group
    assert data.indexes["model"].is_unique
    ways = set(data.method.values) - {"unmerged", "leave-one-out"}
    assert ways == {*BESIDE, *RIVALS, "merge-many", "ensemble"}
    for size, way in product((2, 4), ways):
        assert len(some(data, n_merged=size, method=way, order=0, group=1)) > 0
    merged = data.isel(model=~np.isin(data.method.values, ["unmerged", "leave-one-out"]))
    assert np.isfinite(merged.strong_accuracy).all()
    merged = merged.isel(model=(merged.method != "ensemble").values)
    assert np.isfinite(merged.repaired_accuracy).all()
    assert (merged.seconds > 0).all()


def test_measures_are_those_of_the_library(measured, trees, test_images, train_images):
    data, leaves = measured["mergers"], trees.where(method="unmerged", group=1)
    again = MERGES["star"](leaves.select([0, 1]), "0/order-1", train_images)
    drawn = some(data, method="star", n_merged=2, group=1, order=1)
    np.testing.assert_allclose(drawn.test_accuracy, accuracy(again, test_images))
    tree = some(data, method="tree", n_merged=4, group=1, order=0)
    np.testing.assert_allclose(tree.test_accuracy, accuracy(trees.where(method="tree", stage=2, group=1), test_images))
    many = some(data, method="merge-many", n_merged=4, group=1, order=0, sweeps=100)
    expected = merge_many(leaves)
    np.testing.assert_allclose(many.pairwise_distance, expected.history.pairwise_distance)
    few = test_images.first(30)
    robust = attack(expected, few.pixels, few.labels, kind="fgsm", epsilons=[0.015, 0.02]).robust_accuracy
    np.testing.assert_allclose(many.strong_accuracy, robust.mean("epsilon"))
    repaired = MERGES["merge-many"](leaves, 0, train_images, repaired=True)
    np.testing.assert_allclose(many.repaired_accuracy, accuracy(repaired, test_images))
    whole = some(data, method="ensemble", n_merged=4, group=1)
    team = ensemble(leaves)
    np.testing.assert_allclose(whole.test_loss, evaluate(team, test_images).loss, rtol=1e-5)
    expected = calibrated(team, team(test_images.pixels), test_images.labels)
    np.testing.assert_allclose(whole.ece_fitted, expected.ece_fitted, rtol=1e-4)


def test_means_of_all_but_one_and_barriers_of_pairs_are_measured(measured, trees, test_images):
    left = some(measured["mergers"], method="leave-one-out", group=0)
    assert sorted(set(left.sweeps.values)) == [0, 1, 100]
    plain = MERGES["naive"](trees.where(method="unmerged", group=0).select([0, 1, 3]))
    found = some(left, sweeps=0, node=2)
    np.testing.assert_allclose(found.test_loss, evaluate(plain, test_images).loss, rtol=1e-5)
    assert found.n_merged.values.tolist() == [3]
    assert set(measured["mergers"].images.values) == {len(test_images)}
    # barriers stand beside the first of each pair
    leaves = some(measured["mergers"], method="unmerged", group=1)
    assert leaves.loss_barrier.notnull().all("alignment").values.tolist() == [True, False, True, False]
    pair = trees.where(method="unmerged", group=1).select([0, 1])
    middle, ends = (evaluate(bank, test_images).loss.values for bank in (merge_pairs(pair), pair))
    assert leaves.loss_barrier.sel(alignment="after").values[0] >= middle[0] - ends.mean() - 0.2
    assert (leaves.loss_barrier_fitted.sel(alignment="before").values[::2] > 0).all()


def test_every_way_stands_beside_the_tree(measured):
    data, found = measured["mergers"], effects("mergers", measured["mergers"])
    four = some(data, n_merged=4)
    mean = {name: some(four, method=name).test_accuracy.mean().item() for name in (*RIVALS, *BESIDE, "ensemble")}
    for name in (*RIVALS, "naive", "ensemble", "merge-many-from-tree"):
        told = found[f"{NAMES.get(name, name)} minus tree, 4 models"]
        assert told == pytest.approx(100 * (mean[name] - mean["tree"]), abs=1e-9)
    assert "time of C2M3 over the tree's, 4 models" in found
    assert "time of ensemble over the tree's, 4 models" not in found
    assert "deviation between orders of star, 2 models" in found
    leaves = some(data, method="unmerged")
    assert found["calibration error of the tree of 1"] == pytest.approx(leaves.ece.mean().item())
    assert found["loss barrier of neighbours before matching"] == pytest.approx(
        leaves.loss_barrier.sel(alignment="before").mean().item()
    )
    said = answer(data)[1]
    assert said.startswith("Not resolved. The accuracy of converged MergeMany of 4 minus the tree's is ")
    assert "C2M3 has the highest mean accuracy of " in said
    assert "ensemble" not in said


def test_seeds_trees_and_means_outside_of_a_basin_are_told_and_a_recommendation_names_the_best():
    data = mergers(groups=6, stages=3, noise=1.0, seed=0)
    many = some(data, method="merge-many", sweeps=100, n_merged=8).test_accuracy.values.reshape(6, 2) * 100
    own, trees = many.std(1, ddof=1).mean(), many.mean(1).std(ddof=1)
    shift = 0.1 * (1 + data.group) * (data.method == "leave-one-out")
    for sign, told in ((1, "is 0."), (-30, "is -")):
        said = answer(data.assign(test_loss=data.test_loss + sign * shift))[1]
        assert f"the loss of such a mean minus that of the tree's worst network {told}" in said
    late = data.assign(test_loss=data.test_loss + 50 * shift * (data.sweeps == 1))
    assert "At its worst, after 1 sweep, the loss of such a mean" in answer(late)[1]
    assert f"Over 2 matching seeds, the accuracy of 8 models deviates by {own:.2g} points" in said
    assert f"Over 6 trees it deviates by {trees:.2g} points." in said
    told = recommendation(data)
    assert told.startswith("Converged MergeMany has the highest mean accuracy of ")
    assert "`merge-many` for converged MergeMany" in told
