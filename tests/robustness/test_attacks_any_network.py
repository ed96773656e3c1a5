"""Attacks on banks of any networks against one network at a time."""

import copy

import numpy as np
import pytest
import torch
from foolbox import PyTorchModel
from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack, LinfFastGradientAttack
from foolbox.criteria import Misclassification
from torch.nn.functional import cross_entropy

from hrebasin.bank import Bank
from hrebasin.networks import is_mlp
from hrebasin.random_streams import generator
from hrebasin.robustness.attacks import attack
from hrebasin.robustness.foolbox_model import BankModel
from hrebasin.robustness.strong import pgd, transferred
from hrebasin.training.recipe import Recipe
from hrebasin.training.train import train
from other_networks import KINDS, SHAPE, untrained

EPSILONS = [0.0, 0.02, 0.05, 0.1]
ROUNDING = 1 / 40  # one image of 40: networks of a bank run with channels last, whose sums are rounded otherwise
PLAIN = {
    "fgsm": LinfFastGradientAttack(random_start=False),
    "deepfool-linf": LinfDeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits"),
    "deepfool-l2": L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits"),
}


@pytest.fixture(scope="module", params=["mlp", *KINDS], ids=lambda kind: getattr(kind, "__name__", kind))
def given(request, make_images, trained, test_images):
    """A bank, pixels and labels."""
    if request.param == "mlp":
        return trained, test_images.pixels.float() / 255, test_images.labels
    train_images, images = (
        make_images(split, n, shape=SHAPE, noise=90.0) for split, n in (("train", 96), ("test", 40))
    )
    recipe = Recipe(learning_rate=1e-2, batch_size=16, epochs=4)
    bank = train(untrained(request.param).architecture, train_images, range(2), recipe)
    return bank, images.pixels.float() / 255, images.labels


@pytest.fixture(scope="module")
def bank(given):
    return given[0]


@pytest.fixture(scope="module")
def few(given):
    return given[1:]


def gradient(network, pixels, labels):
    x = pixels.clone().requires_grad_()
    cross_entropy(network(x), labels, reduction="sum").backward()
    return x.grad


def fgsm_alone(network, pixels, labels):
    """Whether each image is still classified correctly, (epsilon, image)."""
    sign = gradient(copy.deepcopy(network).double(), pixels.double(), labels).sign().float()
    with torch.no_grad():
        moved = [(pixels + epsilon * sign).clamp(0, 1) for epsilon in EPSILONS]
        return np.stack([(network(x).argmax(1) == labels).numpy() for x in moved])


@pytest.mark.parametrize("kind", PLAIN)
def test_each_network_is_attacked_as_by_plain_foolbox(bank, few, kind):
    found = attack(bank, *few, kind=kind, epsilons=EPSILONS, samples_at_once=24)
    for k, network in enumerate(bank):
        model = PyTorchModel(network.eval(), bounds=(0, 1), device="cpu")
        raw, clipped, broken = PLAIN[kind](model, few[0], Misclassification(few[1]), epsilons=EPSILONS)
        name = "robust_accuracy" if kind == "fgsm" else "robust_accuracy_clipped"
        rounding = 0 if is_mlp(bank[k]) else ROUNDING  # flags of MLPs are Foolbox's
        np.testing.assert_allclose(found[name][k], 1 - broken.double().mean(1), atol=rounding + 1e-9)
        if kind == "fgsm":  # the sign of plain autograd in float64
            assert (found.robust[k] == fgsm_alone(network, *few)).mean() >= 1 - rounding / 4
        else:
            change = (raw[0] - few[0]).flatten(1)
            norm = change.abs().amax(1) if kind == "deepfool-linf" else change.norm(dim=1)
            assert np.isclose(found.perturbation_norm[k], norm, rtol=0.01, atol=1e-4).mean() >= 1 - ROUNDING
            assert found.success[k].mean() > 0.9


def test_one_step_of_the_other_attacks_by_hand(bank, few):
    """Images of one network given to the others, PGD, and noise."""
    pixels, labels = few
    handed = transferred(bank, bank.select([0]), *few, epsilons=EPSILONS)
    searched = pgd(bank, *few, epsilons=[0.05], steps=1, restarts=1)
    noisy = attack(bank, *few, kind="gaussian", epsilons=[0.0, 0.3], draws=2).robust_accuracy
    sign = gradient(bank[0], *few).sign()
    start = 2 * torch.rand(pixels.shape, generator=generator("pgd/starts")) - 1
    first = (pixels + 0.05 * start).clamp(0, 1)
    noise = torch.randn(pixels.shape, generator=generator("noise/gaussian/1"))
    for k, network in enumerate(bank):

        def right(images, network=network):
            return (network(images.clamp(0, 1)).argmax(1) == labels).numpy()

        for place, epsilon in enumerate(EPSILONS):
            assert (handed[k, place].values == right(pixels + epsilon * sign)).mean() >= 1 - ROUNDING
        moved = first + 2.5 * 0.05 * gradient(network, first, labels).sign()
        survives = right(pixels + (moved - pixels).clamp(-0.05, 0.05)) & right(pixels)
        assert (searched[k, 0].values == survives).mean() >= 1 - ROUNDING
        assert noisy[k, 1, 1].item() == pytest.approx(right(pixels + 0.3 * noise).mean(), abs=ROUNDING + 1e-9)


class Blurred(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kernel", torch.full((3, 3, 2, 2), 1 / 12), persistent=False)
        self.norm, self.head = torch.nn.BatchNorm2d(3), torch.nn.Linear(147, 4)

    def forward(self, x):
        return self.head(self.norm(torch.nn.functional.conv2d(x, self.kernel)).flatten(1))


def test_float64_leaves_counters_and_takes_constants_along(make_images):
    images = make_images("test", 40, shape=SHAPE)
    few = images.pixels.float() / 255, images.labels
    network = Blurred().eval()
    bank = Bank.stack([network], few[0][:2])
    found = attack(bank, *few, kind="fgsm", epsilons=EPSILONS).robust
    np.testing.assert_array_equal(found[0], fgsm_alone(network, *few))
    kinds = {name: t.dtype for name, t in BankModel(bank).in_float64.tensors.items()}
    assert kinds.pop("norm.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float64}


def test_what_autograd_keeps_of_an_image_is_counted():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    bank = Bank.stack([network], torch.rand(2, 3, 2, 2))
    assert bank.architecture.bytes_kept == 4 * 5  # what ReLU gives; weights are not counted
