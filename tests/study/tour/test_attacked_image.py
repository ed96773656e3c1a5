import numpy as np
import pytest
import torch

from hrebasin import Bank, attack
from hrebasin.study.tour.attacked_image import closeup, first_correct


@pytest.fixture(scope="module")
def few(trained):
    return trained.select([0, 1, 2])


def test_the_first_image_that_all_classify_correctly_is_found(few, test_images):
    right = (few(test_images.pixels).argmax(-1) == test_images.labels).all(0)
    position = first_correct(few, test_images)
    assert right[position]
    assert not right[:position].any()


def test_networks_that_agree_on_nothing_have_no_such_image(few, test_images):
    last = list(few.architecture.layers)[-1]
    biases = torch.eye(few.architecture.n_classes)[:3] * 1e6  # each always answers with another class
    stubborn = Bank(few.architecture, few.tensors | {f"{last}.bias": biases})
    with pytest.raises(ValueError, match="no image of 60 is classified correctly by all 3 networks"):
        first_correct(stubborn, test_images)


def test_every_pixel_moves_by_epsilon_and_each_network_has_its_own_perturbation(few, test_images):
    shown = closeup(few, test_images, 5, epsilon=0.05)
    change = shown.attacked - shown.original
    inside = (shown.original > 0.05) & (shown.original < 0.95)
    np.testing.assert_allclose(np.abs(change.where(inside)).max("model"), 0.05 * inside.where(inside), atol=1e-6)
    assert float(np.abs(change).max()) <= 0.05 + 1e-6
    assert not np.allclose(change[0], change[1])
    np.testing.assert_allclose(shown.probability.sum("class"), 1, rtol=1e-5)
    assert shown.attrs == {"label": test_images.classes[test_images.labels[5]], "epsilon": 0.05}


def test_answers_are_those_of_the_attack_on_all_images(few, test_images):
    epsilon, n = 0.1, 12
    robust = attack(
        few, test_images.pixels[:n], test_images.labels[:n], kind="fgsm", epsilons=[epsilon]
    ).robust_accuracy
    held = np.zeros(3)
    for position in range(n):
        shown = closeup(few, test_images, position, epsilon=epsilon)
        answers = shown.probability.sel(state="after").argmax("class").values
        held += answers == int(test_images.labels[position])
    np.testing.assert_allclose(held / n, robust.sel(epsilon=epsilon))
    assert 0 < held.sum() < 3 * n


@pytest.mark.parametrize(("position", "epsilon", "message"), [
    (60, 0.1, "position 60 is not among the 60 images"),
    (-1, 0.1, "position -1"),
    (0, 1.5, r"epsilon must lie in \[0, 1\], got 1.5"),
    (0, float("nan"), "got nan"),
])  # fmt: skip
def test_what_cannot_be_shown_is_refused(few, test_images, position, epsilon, message):
    with pytest.raises(ValueError, match=message):
        closeup(few, test_images, position, epsilon=epsilon)
