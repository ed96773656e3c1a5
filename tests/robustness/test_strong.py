import numpy as np
import pytest
import torch
from foolbox import PyTorchModel
from foolbox.attacks import LinfPGD
from foolbox.criteria import Misclassification

from hrebasin import Bank, attack
from hrebasin.robustness.foolbox_model import BankModel
from hrebasin.robustness.strong import (
    LOSSES,
    fgsm_in_float64,
    fgsm_with_rescaled_logits,
    pgd,
    transferred,
    zero_gradients,
)

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
    assert (found.diff("epsilon") <= 0.05).all()


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
    with pytest.raises(ValueError, match="from one network, got 3"):
        transferred(bank, bank, *few, epsilons=EPSILONS)


def test_float64_finds_what_float32_finds_on_healthy_networks(bank, few):
    found = fgsm_in_float64(bank, *few, epsilons=EPSILONS)
    assert abs(found.mean("image") - fgsm(bank, few)).max() <= 0.05


def test_rescaled_logits_leave_decisions_and_a_factor_of_one_everything(bank, few):
    same = fgsm_with_rescaled_logits(bank, *few, epsilons=EPSILONS, factor=1.0).mean("image")
    np.testing.assert_allclose(same, fgsm(bank, few), atol=1e-9)
    scaled = fgsm_with_rescaled_logits(bank, *few, epsilons=EPSILONS, factor=0.01).mean("image")
    np.testing.assert_array_equal(scaled.isel(epsilon=0), same.isel(epsilon=0))
    assert not np.array_equal(scaled, same)


def test_saturated_networks_have_no_gradient_and_only_seem_robust(bank, few):
    assert (zero_gradients(bank, *few) == 0).all()
    last = list(bank.architecture.layers)[-1]
    huge = {k: t * 1e4 if k.startswith(last) else t for k, t in bank.tensors.items()}
    masked = Bank(bank.architecture, huge, bank.labels)
    assert (zero_gradients(masked, *few) > 0.5).all()
    seeming = attack(masked, *few, kind="fgsm", epsilons=EPSILONS).robust_accuracy
    assert (seeming.isel(epsilon=2) > fgsm(bank, few).isel(epsilon=2) + 0.1).all()
    # the margin's gradient does not vanish, and rescaling brings it back for cross-entropy
    margin = pgd(masked, *few, epsilons=EPSILONS[:3], loss="margin", steps=10, restarts=1).mean("image")
    assert (margin.isel(epsilon=2) < seeming.isel(epsilon=2)).all()
    unmasked = fgsm_with_rescaled_logits(masked, *few, epsilons=EPSILONS, factor=1e-4).mean("image")
    np.testing.assert_allclose(unmasked, fgsm(bank, few), atol=0.05)
