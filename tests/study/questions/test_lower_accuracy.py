import numpy as np
import pytest
import torch
import xarray as xr

from hrebasin.bank import Bank
from hrebasin.evaluation import accuracy
from hrebasin.merging.averages import merge_naive
from hrebasin.robustness.attacks import attack
from hrebasin.study.questions.lower_accuracy import (
    FAMILIES,
    LEVELS,
    _common,
    _nearest,
    answer,
    line,
    narrow,
    noised,
    stopped,
)


@pytest.fixture
def found(measured) -> xr.Dataset:
    return measured["controls"]


def test_every_stage_has_a_network_of_every_kind_in_every_group(found):
    counts = found.test_accuracy.groupby(["method", "stage", "group"]).count()
    assert set(counts.method.values) == {"unmerged", "tree", *FAMILIES}
    assert (counts.sel({"method": list(FAMILIES)}) == 1).all()
    assert found.indexes["model"].is_unique


def test_stage_0_of_every_kind_is_the_first_leaf(found):
    first = found.isel(model=(found.stage == 0).values)
    for group in (0, 1):
        rows = first.isel(model=(first.group == group).values)
        assert np.ptp(rows.test_accuracy.values) == 0
        assert np.ptp(rows.robust_accuracy.values, axis=0).max() == 0


def test_robust_accuracy_is_that_of_the_attacks(found, trees, test_images):
    few = test_images.first(30)
    top = trees.where(method="tree", stage=2)
    for kind in ("fgsm", "deepfool-linf"):
        expected = attack(
            top, few.pixels, few.labels, kind=kind, epsilons=found.epsilon.values.tolist()
        ).robust_accuracy
        same = found.robust_accuracy.sel(attack=kind, model=expected.model)
        np.testing.assert_allclose(same, expected, atol=1e-9)


def test_shares_are_of_images_that_all_compared_networks_get_right(found):
    shared = found.common_images > 0
    assert shared.any()
    for name in ("robust_at_stage", "robust_at_method"):
        values = found[name].isel(epsilon=0).where(shared, drop=True)
        assert (values == 1).all()  # nothing is lost without attack
        assert (found[name] <= 1).where(found[name].notnull(), True).all()
    same_stage = found.common_images.groupby(["group", "stage"])
    assert (same_stage.max() == same_stage.min()).all()
    assert (found.common_images <= 30 * found.robust_accuracy.isel(epsilon=0, attack=0) + 1e-9).all()


def test_common_images_by_hand():
    right = xr.DataArray([[1, 1, 0], [1, 0, 1], [0, 1, 1]], dims=("model", "image")).astype(bool)
    kinds = np.array(["a", "a", "b"])
    found = _common(right, lambda k: kinds == kinds[k])
    np.testing.assert_array_equal(found, [[1, 0, 0], [1, 0, 0], [0, 1, 1]])


def test_the_nearest_candidate_is_taken(trees, test_images):
    nodes = trees.where(group=0, method=["unmerged", "tree"], node=0)
    leaf = trees.where(method="unmerged", group=0).select([0])
    candidates = noised(leaf, np.linspace(0, 3, 40))
    wanted, offered = accuracy(nodes, test_images).values, accuracy(candidates, test_images).values
    chosen = _nearest(nodes, wanted, [candidates], test_images)
    assert [bank.labels["stage"][0] for bank in chosen] == nodes.labels["stage"].tolist()[1:]
    for bank, aim in zip(chosen, wanted[1:], strict=True):
        assert abs(accuracy(bank, test_images).item() - aim) == pytest.approx(np.abs(offered - aim).min())


def test_noise_is_one_draw_at_every_level(trees):
    leaf = trees.where(method="unmerged").select([3])
    bank = noised(leaf)
    assert len(bank) == len(LEVELS)
    torch.testing.assert_close(bank.tensors["fc1.weight"][0], leaf.tensors["fc1.weight"][0])
    added = bank.tensors["fc2.weight"] - leaf.tensors["fc2.weight"]
    torch.testing.assert_close(added[20], 2 * added[10])
    spread = leaf.tensors["fc2.weight"].std()
    assert added[20].std() / spread == pytest.approx(LEVELS[20], rel=0.5)
    torch.testing.assert_close(bank.tensors["fc1.bias"][20], leaf.tensors["fc1.bias"][0])
    other = noised(trees.where(method="unmerged").select([2]))
    assert not torch.allclose(other.tensors["fc2.weight"][20] - other.tensors["fc2.weight"][0], added[20])
    with pytest.raises(ValueError, match="one network, got 2"):
        noised(trees.select([0, 1]))


def test_the_line_ends_at_the_naive_average(trees):
    first, second = trees.select([0]), trees.select([1])
    end = line(first, second).select([-1])
    average = merge_naive(Bank.concat([first, second]))
    torch.testing.assert_close(end.tensors["fc1.weight"], average.tensors["fc1.weight"])


def test_widths_that_learn_nothing_are_left_out(trees, train_images, recipe):
    given = train_images, [0], recipe, trees.architecture
    with pytest.warns(UserWarning, match=r"widths \(1, 1, 1\) are left out: the network of seed 0 learned nothing"):
        [left] = narrow(*given, [0.01, 1.0])
    assert left.architecture == trees.architecture
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match=r"no narrow network .* \[0.01\]"):
        narrow(*given, [0.01])


def test_controls_are_trained_as_the_leaves_were(trees, train_images, trained, recipe):
    given = train_images, [0, 1], recipe, trees.architecture
    whole, half = stopped(*given, [recipe.epochs, 3])
    torch.testing.assert_close(whole.tensors["fc1.weight"], trained.tensors["fc1.weight"][:2])
    assert not torch.allclose(half.tensors["fc1.weight"], whole.tensors["fc1.weight"])
    [full, less] = narrow(*given, [1.0, 0.5])
    torch.testing.assert_close(full.tensors["fc1.weight"], trained.tensors["fc1.weight"][:2])
    assert less.architecture.widths == tuple(round(width / 2) for width in trees.architecture.widths)


def test_how_near_the_accuracy_of_a_control_is_stands_beside_it(found):
    tests, told = answer(found)
    [gap] = [test for test in tests if test.name == "accuracy: stage 2 minus networks with noise on their weights"]
    side = "less" if gap.effect > 0 else "more"
    assert f"networks with noise on their weights ({abs(gap.effect):.1f} points {side} accurate)" in told
