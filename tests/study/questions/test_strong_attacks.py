import numpy as np
import pytest

from hrebasin.robustness.attacks import attack
from hrebasin.study.questions.strong_attacks import answer
from synthetic_questions import effects


@pytest.fixture
def found(measured):
    return measured["strong"]


def test_the_worst_is_no_better_than_any_attack(found, trees, test_images):
    assert (found.robust_accuracy.sel(attack="worst") <= found.robust_accuracy).all()
    few, epsilons = test_images.first(30), found.epsilon.values.tolist()
    expected = attack(trees, few.pixels, few.labels, kind="fgsm", epsilons=epsilons).robust_accuracy
    np.testing.assert_allclose(found.robust_accuracy.sel(attack="fgsm"), expected, atol=1e-9)
    assert "transfer-unmerged-0" in found.attack.values
    assert (found.zero_gradients == 0).all()


def test_robustness_that_holds_and_that_does_not_reads_so(found):
    stage = found.stage * (found.method == "tree")
    planted = 0.5 + 2 * (found.epsilon - 0.012) * stage
    planted = planted.broadcast_like(found.robust_accuracy).transpose(*found.robust_accuracy.dims)
    holds = found.assign(robust_accuracy=planted)
    assert answer(holds)[1].startswith("stage 2 is ahead of stage 0 under every strong attack;")
    weak = found.assign(robust_accuracy=planted.where(planted.attack == "fgsm", 1 - planted))
    told = "stage 2 is ahead of stage 0 under FGSM, behind stage 0 under FGSM in float64, "
    assert answer(weak)[1].startswith(told)
    crossing = effects("strong", holds)["pgd-margin: crossing of stages 0 and 2 (2 of 2 groups)"]
    assert crossing == pytest.approx(0.012, abs=1e-6)
