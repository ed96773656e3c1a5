import numpy as np
import pytest
import torch
from foolbox import PyTorchModel
from foolbox.attacks import LinfPGD
from foolbox.criteria import Misclassification

from hrebasin import Bank, attack
from hrebasin.robustness.foolbox_model import BankModel
from hrebasin.robustness.strong import LOSSES, pgd, transferred

EPSILONS = [0.0, 0.05, 0.1, 0.5]


@pytest.fixture(scope="module")
def bank(trained):
    return trained.select(slice(3))


@pytest.fixture(scope="module")
def few(test_images):
    return test_images.pixels[:40].float() / 255, test_images.labels[:40]


def fgsm(bank, few):
    return attack(bank, *few, kind="fgsm", epsilons=EPSILONS).robust_accuracy


@pytest.mark.parametrize("loss", LOSSES)
def test_pgd_breaks_at_least_what_weaker_attacks_break_nearly(bank, few, loss):
    found = pgd(bank, *few, epsilons=EPSILONS, loss=loss, steps=20, restarts=2).mean("image")
    assert found.dims == ("model", "epsilon")
    clean = fgsm(bank, few).isel(epsilon=0)
    np.testing.assert_array_equal(found.isel(epsilon=0), clean)
    assert (found <= fgsm(bank, few) + 0.05).all()
    assert (found.isel(epsilon=-1) < clean - 0.2).all()
    assert (found.diff("epsilon") <= 0).all()


def test_pgd_is_at_least_as_strong_as_foolboxs_own(bank, few):
    ours = pgd(bank, *few, epsilons=[0.1], steps=40, restarts=1).mean("image").values[:, 0]
    torch.manual_seed(0)
    for index in range(len(bank)):
        model = PyTorchModel(BankModel(bank.select([index])).eval(), bounds=(0, 1), device="cpu")
        _, _, broken = LinfPGD()(model, few[0], Misclassification(few[1]), epsilons=[0.1])
        assert ours[index] <= (~broken[0]).double().mean().item() + 0.025  # one image


def test_pgd_does_not_depend_on_the_company_and_more_restarts_break_more(bank, few):
    settings = {"epsilons": [0.05], "steps": 5}
    together = pgd(bank, *few, restarts=2, **settings)
    alone = pgd(bank.select([1]), *few, restarts=2, **settings)
    assert (together[1] == alone[0]).mean() > 0.99
    more = pgd(bank, *few, restarts=3, **settings)
    assert (more <= together).all()


def test_what_is_transferred_from_itself_is_the_attack(bank, few):
    found = transferred(bank, bank.select([1]), *few, epsilons=EPSILONS).mean("image")
    np.testing.assert_allclose(found[1], fgsm(bank, few)[1], atol=1e-9)
    assert (found[0] >= fgsm(bank, few)[0] - 1e-9).mean() > 0.7  # others' images are weaker
    searched = transferred(bank, bank.select([1]), *few, epsilons=[0.05], kind="pgd", steps=10)
    clean = attack(bank, *few, kind="fgsm", epsilons=[0.0]).robust
    alone = pgd(bank, *few, epsilons=[0.05], loss="margin", steps=10, restarts=1)
    np.testing.assert_array_equal(searched[1].where(clean[1, 0] == 1, 0), alone[1])
    with pytest.raises(ValueError, match="from one network, got 3"):
        transferred(bank, bank, *few, epsilons=EPSILONS)
    with pytest.raises(ValueError, match="'fgsm' or 'pgd', got 'bim'"):
        transferred(bank, bank.select([1]), *few, epsilons=EPSILONS, kind="bim")


def test_float32_finds_what_float64_finds_on_healthy_networks(bank, few):
    found = attack(bank, *few, kind="fgsm-float32", epsilons=EPSILONS)
    assert abs(found.robust_accuracy - fgsm(bank, few)).max() <= 0.05
    assert (found.zero_gradients == 0).all()


def test_networks_sure_of_themselves_only_seem_robust_in_float32(bank, few):
    last = list(bank.architecture.layers)[-1]
    huge = {k: t * 100 if k.startswith(last) else t for k, t in bank.tensors.items()}
    sure = Bank(bank.architecture, huge, bank.labels)
    seeming = attack(sure, *few, kind="fgsm-float32", epsilons=EPSILONS)
    exact = attack(sure, *few, kind="fgsm", epsilons=EPSILONS)
    assert (seeming.zero_gradients > 0.2).all()
    assert (exact.zero_gradients == 0).all()
    gain = (seeming.robust_accuracy - exact.robust_accuracy).isel(epsilon=3)
    assert (gain > 0.1).all()
    # the margin's gradient does not vanish
    margin = pgd(sure, *few, epsilons=EPSILONS[3:], loss="margin", steps=10, restarts=1).mean("image")
    assert (margin.isel(epsilon=0) < seeming.robust_accuracy.isel(epsilon=3)).all()
