import re
from collections import Counter

import numpy as np
import pytest
import torch
import xarray as xr

from hrebasin.evaluation import accuracy
from hrebasin.merging.ensemble import ensemble
from hrebasin.robustness.attacks import attack
from hrebasin.robustness.strong import pgd
from hrebasin.study.questions.control_networks import narrow, noised
from hrebasin.study.questions.equal_accuracy import Curve, compare, curve, over_unmerged, robust_by_image
from hrebasin.study.questions.families import LEVELS, answer, draw
from hrebasin.study.questions.family_figure import ROOM
from synthetic import results, some
from synthetic_questions import effects


@pytest.fixture
def made() -> xr.Dataset:
    return results(stages=["controls"])["controls"]


def test_every_family_is_there_with_the_robust_accuracy_of_the_attacks(measured, trees, test_images):
    found = measured["controls"]
    expected = {"unmerged": 2, "stopped": 2, "tree": 3, "narrow": 2, "ensemble": 2, "activations": 3}
    expected["noised"] = len(LEVELS)
    for group in (0, 1):
        assert Counter(some(found, group=group).method.values) == expected
    assert found.indexes["model"].is_unique
    few = test_images.first(30)
    given = trees.where(method="tree", stage=2), few.pixels, few.labels
    fgsm = attack(*given, kind="fgsm", epsilons=found.epsilon.values.tolist())
    margin = pgd(*given, epsilons=[0.02], loss="margin", steps=3, restarts=1)
    own = found.sel(model=fgsm.model)
    np.testing.assert_array_equal(own.robust_accuracy.sel(attack="fgsm"), fgsm.robust_accuracy)
    strong = own.robust_accuracy.sel(attack="pgd-margin", epsilon=0.02)
    np.testing.assert_array_equal(strong, margin[:, 0].mean("image"))
    assert own.robust_accuracy.sel(attack="pgd-margin", epsilon=0.01).isnull().all()
    np.testing.assert_array_equal(own.withstood.sel(attack="fgsm"), fgsm.robust.sel(epsilon=0.02))
    whole = ensemble(trees.where(method="unmerged", group=1).select([0, 1]))
    pair = some(found, method="ensemble", group=1, n_merged=2)
    assert pair.test_accuracy.item() == pytest.approx(accuracy(whole, test_images).item())


def test_merged_networks_are_paired_with_the_unmerged_ones_of_their_group(made):
    labels = {"method": "tree", "stage": 2}
    found = over_unmerged(made, "fgsm", labels)
    own, alone = (
        [100 * robust_by_image(some(made, group=group, **kind), "fgsm").mean() for group in np.unique(made.group)]
        for kind in (labels, {"method": "unmerged"})
    )
    np.testing.assert_allclose(found.values, np.subtract(own, alone))
    assert over_unmerged(made, "square", labels) is None


def test_the_curve_is_straight_between_neighbours_and_ends_where_it_ends():
    line = Curve(np.array([0.2, 0.3, 0.25, 0.5]), np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.0, 0.5]]))
    robust, beyond = line.at(0.225)
    np.testing.assert_allclose(robust, [0.25, 1.0])  # the first time that it gets there
    assert beyond == 0
    np.testing.assert_allclose(line.at(0.4)[0], [0.2, 0.5])
    for aim, end, gap in ((0.1, 0, 0.1), (0.6, 3, -0.1)):
        robust, beyond = line.at(aim)
        np.testing.assert_array_equal(robust, line.robust[end])
        assert beyond == pytest.approx(gap)


@pytest.mark.parametrize("family", ["stopped", "l2"])
def test_a_family_rises_to_the_unmerged_networks(made, family):
    one = some(made, group=0)
    line = curve(one, robust_by_image(one, "fgsm"), family)
    assert (np.diff(line.accuracy) > 0).all()
    assert line.accuracy[-1] == pytest.approx(some(one, method="unmerged").test_accuracy.item())
    assert len(line.accuracy) == 1 + some(one, method=family).sizes["model"]
    dull = one.assign(test_accuracy=xr.where(one.method == "unmerged", 0.45, one.test_accuracy))
    shorter = curve(dull, robust_by_image(dull, "fgsm"), family)
    assert shorter.accuracy[-1] > 0.45  # what is trained on beyond the best is left out
    assert curve(one, robust_by_image(one, "fgsm"), "star") is None


def beside(data, labels, family):
    return compare(data, robust_by_image(data, "fgsm"), labels, family)


def test_merged_networks_are_five_points_ahead_as_planted(made):
    pair = beside(made, {"method": "tree", "stage": 3}, "stopped")
    assert pair.equal
    test = pair.test("planted")
    assert test.effect == pytest.approx(5, abs=1)
    assert test.by_image.shape == (8, 100)
    # what images tell is what means tell, where images are not known
    bare = beside(made.drop_vars("withstood"), {"method": "tree", "stage": 3}, "stopped").test("planted")
    np.testing.assert_allclose(bare.values, test.values)
    assert bare.by_image is None
    # groups that do not reach the accuracy are left out or told
    low = xr.where((made.method == "tree") & (made.stage == 4), 0.1, made.test_accuracy)
    one_less = made.assign(test_accuracy=xr.where(made.group == 0, low, made.test_accuracy))
    assert len(beside(one_less, {"method": "tree", "stage": 4}, "stopped").own) == 7
    pair = beside(made.assign(test_accuracy=low), {"method": "tree", "stage": 4}, "stopped")
    assert not pair.equal
    assert (pair.beyond > 0.2).all()
    assert "beside the nearest, 25" in answer(made.assign(test_accuracy=low))[0][15].name


def test_the_answer_says_who_is_ahead_at_the_same_accuracy_and_who_has_none_beside(made):
    told = answer(made)[1]
    assert told.startswith("Yes. At the same accuracy (39 %), networks merged from 16 classify ")
    for kind in ("FGSM", "PGD on the margin"):
        assert re.search(
            rf"Under {kind}, networks merged from 2, 4 and 8 lead by 5\.\d, 5\.\d and 5\.\d points\.", told
        )
    assert all(effect > 0 for name, effect in effects("controls", made).items() if "tree of 16" in name)
    # the same robustness as others lose it
    flat = made.withstood - 2 * ((made.method == "tree") * (made.withstood.mean("image") > 0)).astype(np.int8)
    worse = made.assign(withstood=flat.clip(min=0).transpose(*made.withstood.dims))
    assert answer(worse)[1].startswith("No. At the same accuracy")
    assert "The difference is -" in answer(worse)[1]
    assert answer(some(made, group=0))[1].startswith("Not resolved. At ")
    low = xr.where(made.method == "tree", 0.1, made.test_accuracy)
    apart = answer(made.assign(test_accuracy=low))[1]
    assert apart.startswith("Not comparable. The least accurate early-stopped networks are 25")
    assert apart.endswith(" points more accurate than networks merged from 16.")


def test_only_others_near_in_accuracy_are_told_as_such(made):
    def shifted(family, gap):
        return answer(made.assign(test_accuracy=made.test_accuracy + gap * (made.method == family)))[1]

    told = "than narrower networks, networks with noisy weights{} and L2-regularised networks under FGSM."
    assert shifted("l1", 0.0).endswith(told.format(", L1-regularised networks"))
    assert shifted("l1", 0.3).endswith(told.format(""))
    # early-stopped networks as accurate as those merged from 2, 4 and 8, and to a gap as those merged from 16
    least = float(made.test_accuracy[(made.method == "stopped").values].min())
    nearest = "Networks merged from 16 are 0.5 points less accurate than the nearest early-stopped networks, and"
    for gap, words in ((0.005, nearest), (0.05, "so we cannot compare")):
        low = xr.where((made.method == "tree") & (made.stage == 4), least - gap, made.test_accuracy)
        assert words in answer(made.assign(test_accuracy=low))[1]


def test_noise_is_one_draw_at_every_level(trees):
    leaf = trees.where(method="unmerged").select([3])
    bank = noised(leaf, [0.0, 0.5, 1.0])
    assert bank.labels["strength"].tolist() == [0.0, 0.5, 1.0]
    torch.testing.assert_close(bank.tensors["fc1.weight"][0], leaf.tensors["fc1.weight"][0])
    added = bank.tensors["fc2.weight"] - leaf.tensors["fc2.weight"]
    torch.testing.assert_close(added[2], 2 * added[1])
    assert added[2].std() / leaf.tensors["fc2.weight"].std() == pytest.approx(1, rel=0.5)
    torch.testing.assert_close(bank.tensors["fc1.bias"][2], leaf.tensors["fc1.bias"][0])
    other = noised(trees.where(method="unmerged").select([2]), [0.0, 0.5])
    assert not torch.allclose(other.tensors["fc2.weight"][1] - other.tensors["fc2.weight"][0], added[1])
    with pytest.raises(ValueError, match="one network, got 2"):
        noised(trees.select([0, 1]), LEVELS)


def test_narrow_networks_are_trained_as_the_leaf_was(trees, train_images, trained, recipe):
    leaf = trees.where(method="unmerged", group=1, node=1)
    with pytest.warns(UserWarning, match="0.01 of the widths is left out: the network of seed 5 learned nothing"):
        full, less = narrow(leaf, train_images, recipe, [1.0, 0.01, 0.5])
    torch.testing.assert_close(full.tensors["fc1.weight"], trained.tensors["fc1.weight"][5:6])
    assert less.architecture.widths == tuple(round(width / 2) for width in leaf.architecture.widths)
    assert [less.labels[name].item() for name in ("method", "group", "strength")] == ["narrow", 1, 0.5]


def test_the_figure_leaves_out_what_is_far_less_accurate_than_merged_networks():
    data = results(groups=2, leaves=4, stages=("controls",))["controls"]
    accuracies = {"unmerged": 0.9, "tree": 0.88, "stopped": 0.5}
    values = np.array([accuracies.get(method, 0.87) for method in data.method.values])
    panel = draw(data.assign(test_accuracy=("model", values, data.test_accuracy.attrs))).axes[0]
    left, right = panel.get_xlim()
    assert left == pytest.approx(90 - ROOM * 2)
    assert 90 < right < 91
    assert "stopped early" not in [text.get_text() for text in panel.texts]
