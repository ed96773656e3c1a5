import numpy as np
import pytest
import torch

from hrebasin import Bank, attack
from hrebasin.robustness.square import _side, square
from hrebasin.robustness.strong import pgd


@pytest.fixture(scope="module")
def bank(trained):
    return trained.select(slice(2))


@pytest.fixture(scope="module")
def few(test_images):
    return test_images.pixels[:40].float() / 255, test_images.labels[:40]


def right(bank, few) -> np.ndarray:
    return (bank(few[0]).argmax(-1) == few[1]).numpy()


def test_it_breaks_more_the_longer_it_searches_and_only_what_it_may(bank, few):
    clean = right(bank, few)
    once, often = (square(bank, *few, epsilon=0.1, left=clean, queries=n) for n in (1, 200))
    assert (often <= once).all()
    assert often.sum() < once.sum() < clean.sum()
    half = clean & (np.arange(40) < 20)
    found = square(bank, *few, epsilon=0.1, left=half, queries=200)
    np.testing.assert_array_equal(found[:, :20], often[:, :20])  # others do not matter
    assert not found[:, 20:].any()
    np.testing.assert_array_equal(square(bank, *few, epsilon=0.0, left=clean, queries=5), clean)
    assert not square(bank, *few, epsilon=0.1, left=~clean & False).any()


def test_it_finds_about_what_gradients_find_and_needs_none(bank, few):
    clean = right(bank, few)
    found = square(bank, *few, epsilon=0.1, left=clean, queries=500).mean()
    gradients = pgd(bank, *few, epsilons=[0.1], loss="margin", steps=20, restarts=1).mean().item()
    assert found == pytest.approx(gradients, abs=0.1)
    last = list(bank.architecture.layers)[-1]
    sure = Bank(bank.architecture, {k: t * 1e5 if k.startswith(last) else t for k, t in bank.tensors.items()})
    masked = attack(sure, *few, kind="fgsm", epsilons=[0.1])
    assert (masked.zero_gradients > 0.5).all()
    searched = square(sure, *few, epsilon=0.1, left=masked.robust[:, 0].values == 1, queries=300)
    assert searched.sum() < 0.7 * masked.robust.values.sum()


def test_squares_shrink_to_a_pixel():
    sides = [_side(done, 32, 32) for done in np.linspace(0, 0.99, 50)]
    assert sides[0] == 7  # a twentieth of the image
    assert sides[-1] == 1
    assert (np.diff(sides) <= 0).all()
    assert _side(0.0, 2, 40) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"left": np.ones((1, 40), bool)}, r"left must be \(2, 40\), got \(1, 40\)"),
        ({"queries": 0}, "queries .* got 0"),
    ],
)
def test_what_does_not_fit_is_named(bank, few, changed, message):
    with pytest.raises(ValueError, match=message):
        square(bank, *few, **{"epsilon": 0.1, "left": right(bank, few)} | changed)


def test_perturbations_stay_in_the_ball_and_the_image(bank, few, monkeypatch):
    seen = []
    forward = Bank.__call__
    monkeypatch.setattr(Bank, "__call__", lambda self, x: seen.append(x) or forward(self, x))
    square(bank.select([0]), few[0][:5], few[1][:5], epsilon=0.1, left=np.ones((1, 5), bool), queries=30)
    every = torch.stack(seen)
    assert (every - few[0][:5]).abs().max() <= 0.1 + 1e-6
    assert every.min() >= 0
    assert every.max() <= 1
