import numpy as np
import pytest
import xarray as xr

from hrebasin.robustness.attacks import attack
from hrebasin.study.questions.strong_attacks import answer, chosen
from synthetic import results
from synthetic_questions import effects


def test_the_worst_is_no_better_than_any_attack(measured, trees, test_images):
    found = measured["strong"]
    assert (found.robust_accuracy.sel(attack="worst") <= found.robust_accuracy).all()
    few, epsilons = test_images.first(30), found.epsilon.values.tolist()
    expected = attack(trees, few.pixels, few.labels, kind="fgsm", epsilons=epsilons).robust_accuracy
    same = found.robust_accuracy.sel(attack="fgsm", model=expected.model)
    np.testing.assert_allclose(same, expected, atol=1e-9)
    worst = found.robust_accuracy.sel(attack="worst", epsilon=0.02)
    np.testing.assert_array_equal(found.searched, (30 * worst).round())
    assert (found.found <= found.searched).all()
    kept = found.withstood.sel(attack="pgd-margin").mean("image")  # one strong size
    np.testing.assert_allclose(kept, found.robust_accuracy.sel(attack="pgd-margin", epsilon=0.02))


def test_of_early_stopped_networks_those_nearest_to_a_stage_are_attacked(trees, test_images):
    many = trees.where(group=0, method="unmerged").select([0] * 6)
    stopped = many.relabel(method="stopped", strength=np.arange(1, 7), node=0)
    bank = type(trees).concat([trees.where(group=0), stopped])
    few = chosen(bank, test_images, 1)
    counts = {method: int((few.labels["method"] == method).sum()) for method in ("unmerged", "tree", "stopped")}
    assert counts == {"unmerged": 1, "tree": 2, "stopped": 2}
    assert (few.labels["node"] == 0).all()


def test_robustness_that_holds_under_every_attack_and_that_does_not_is_told():
    made = results(stages=["strong"])["strong"]
    strong, transferred = (made.attack.str.startswith(name) for name in ("pgd", "transfer"))
    strong |= made.attack == "worst"
    nothing = xr.zeros_like(made.attack, dtype=bool)
    weakened = ((nothing, "No."), (strong | transferred, "Yes."), (strong, "Partly."), (transferred, "Partly."))
    for weak, word in (*weakened, (made.attack == "fgsm", "Yes. Under PGD on the margin")):
        fewer = made.withstood.where(~weak | (made.method != "tree"), 0).astype(np.int8)
        assert answer(made.assign(withstood=fewer))[1].startswith(word)
    # without images, as published first
    bare = made.drop_vars(["withstood", "zero_gradients_float32", "searched", "found"])
    assert answer(bare)[1].startswith("No. Under PGD on the margin")
    planted = 0.5 + 2 * (made.epsilon - 0.012) * made.stage
    planted = planted.broadcast_like(made.robust_accuracy).transpose(*made.robust_accuracy.dims)
    found = effects("strong", made.assign(robust_accuracy=planted))
    assert found["PGD on the margin: crossing of stages 0 and 4 (8 of 8)"] == pytest.approx(0.012, abs=1e-6)
