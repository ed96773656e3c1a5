"""Attacks with many steps, with the images of other networks, and without gradients; and numbers that hide weakness."""

import numpy as np
import pytest
import torch
from foolbox import PyTorchModel
from foolbox.attacks import LinfPGD
from foolbox.criteria import Misclassification

from hrebasin import Bank, attack
from hrebasin.robustness.foolbox_model import BankModel
from hrebasin.robustness.square import _side, square
from hrebasin.robustness.strong import LOSSES, pgd, transferred

EPSILONS = [0.0, 0.05, 0.1, 0.5]


@pytest.fixture(scope="module")
def bank(trained):
    return trained.select(slice(3))


@pytest.fixture(scope="module")
def few(test_images):
    return test_images.pixels[:40].float() / 255, test_images.labels[:40]


@pytest.fixture(scope="module")
def fgsm(bank, few):
    return attack(bank, *few, kind="fgsm", epsilons=EPSILONS)


@pytest.fixture(scope="module")
def clean(bank, few):
    return (bank(few[0]).argmax(-1) == few[1]).numpy()


def surer(bank, factor):
    """The bank with its logits times a factor: of the same decisions."""
    last = list(bank.architecture.layers)[-1]
    tensors = {name: t * factor if name.startswith(last) else t for name, t in bank.tensors.items()}
    return Bank(bank.architecture, tensors, bank.labels)


@pytest.mark.parametrize("loss", LOSSES)
def test_pgd_breaks_at_least_what_weaker_attacks_break_nearly(bank, few, fgsm, loss):
    found = pgd(bank, *few, epsilons=EPSILONS, loss=loss, steps=20, restarts=2).mean("image")
    assert found.dims == ("model", "epsilon")
    weaker = fgsm.robust_accuracy
    np.testing.assert_array_equal(found.isel(epsilon=0), weaker.isel(epsilon=0))
    assert (found <= weaker + 0.05).all()
    assert (found.isel(epsilon=-1) < weaker.isel(epsilon=0) - 0.2).all()
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
    assert (pgd(bank, *few, restarts=3, **settings) <= together).all()


def test_what_is_transferred_from_itself_is_the_attack(bank, few, fgsm):
    found = transferred(bank, bank.select([1]), *few, epsilons=EPSILONS).mean("image")
    np.testing.assert_allclose(found[1], fgsm.robust_accuracy[1], atol=1e-9)
    assert (found[0] >= fgsm.robust_accuracy[0] - 1e-9).mean() > 0.7  # others' images are weaker
    searched = transferred(bank, bank.select([1]), *few, epsilons=[0.05], kind="pgd", steps=10)
    alone = pgd(bank, *few, epsilons=[0.05], loss="margin", steps=10, restarts=1)
    np.testing.assert_array_equal(searched[1].where(fgsm.robust[1, 0] == 1, 0), alone[1])
    for sources, kind, message in (
        (bank, "fgsm", "from one network, got 3"),
        (bank.select([1]), "bim", "'fgsm' or 'pgd', got 'bim'"),
    ):
        with pytest.raises(ValueError, match=message):
            transferred(bank, sources, *few, epsilons=EPSILONS, kind=kind)


def test_float32_finds_what_float64_finds_but_not_on_networks_sure_of_themselves(bank, few, fgsm):
    found = attack(bank, *few, kind="fgsm-float32", epsilons=EPSILONS)
    assert abs(found.robust_accuracy - fgsm.robust_accuracy).max() <= 0.05
    assert (found.zero_gradients == 0).all()
    sure = surer(bank, 100)
    seeming, exact = (attack(sure, *few, kind=kind, epsilons=EPSILONS) for kind in ("fgsm-float32", "fgsm"))
    assert (seeming.zero_gradients > 0.2).all()
    assert (exact.zero_gradients == 0).all()
    gain = (seeming.robust_accuracy - exact.robust_accuracy).isel(epsilon=3)
    assert (gain > 0.1).all()
    # the margin's gradient does not vanish
    margin = pgd(sure, *few, epsilons=EPSILONS[3:], loss="margin", steps=10, restarts=1).mean("image")
    assert (margin.isel(epsilon=0) < seeming.robust_accuracy.isel(epsilon=3)).all()


def test_a_search_breaks_more_the_longer_and_only_what_it_may(bank, few, clean):
    once, often = (square(bank, *few, epsilon=0.1, left=clean, queries=n) for n in (1, 200))
    assert (often <= once).all()
    assert often.sum() < once.sum() < clean.sum()
    half = clean & (np.arange(40) < 20)
    found = square(bank, *few, epsilon=0.1, left=half, queries=200)
    np.testing.assert_array_equal(found[:, :20], often[:, :20])  # others do not matter
    assert not found[:, 20:].any()
    np.testing.assert_array_equal(square(bank, *few, epsilon=0.0, left=clean, queries=5), clean)
    assert not square(bank, *few, epsilon=0.1, left=clean & False, queries=5).any()
    one = np.ones((1, 40), bool)
    for changed, message in (({"left": one}, r"left must be \(3, 40\)"), ({"queries": 0}, "queries .* got 0")):
        with pytest.raises(ValueError, match=message):
            square(bank, *few, **{"epsilon": 0.1, "left": clean} | changed)


def test_a_search_finds_about_what_gradients_find_and_needs_none(bank, few, clean):
    found = square(bank, *few, epsilon=0.1, left=clean, queries=500).mean()
    gradients = pgd(bank, *few, epsilons=[0.1], loss="margin", steps=20, restarts=1).mean().item()
    assert found == pytest.approx(gradients, abs=0.1)
    sure = surer(bank, 1e5)
    masked = attack(sure, *few, kind="fgsm", epsilons=[0.1])
    assert (masked.zero_gradients > 0.5).all()
    searched = square(sure, *few, epsilon=0.1, left=masked.robust[:, 0].values == 1, queries=300)
    assert searched.sum() < 0.7 * masked.robust.values.sum()


def test_squares_shrink_to_a_pixel_and_stay_in_the_ball_and_the_image(bank, few, monkeypatch):
    sides = [_side(done, 32, 32) for done in np.linspace(0, 0.99, 50)]
    assert (sides[0], sides[-1]) == (7, 1)  # from a twentieth of the image
    assert (np.diff(sides) <= 0).all()
    assert _side(0.0, 2, 40) == 2
    seen = []
    forward = Bank.__call__
    monkeypatch.setattr(Bank, "__call__", lambda self, x: seen.append(x) or forward(self, x))
    square(bank.select([0]), few[0][:5], few[1][:5], epsilon=0.1, left=np.ones((1, 5), bool), queries=30)
    every = torch.stack(seen)
    assert (every - few[0][:5]).abs().max() <= 0.1 + 1e-6
    assert every.min() >= 0
    assert every.max() <= 1
