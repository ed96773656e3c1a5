"""Activation matching against activations computed by hand, and against networks whose units were moved."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional

from hrebasin import Bank
from hrebasin.matching.activations import match_activations, sites_of
from hrebasin.symmetry import derive_symmetry


def by_hand(bank, pixels) -> list[np.ndarray]:
    """Post-activations (unit, image) of an MLP's hidden layers."""
    x, found = bank.architecture.prepare(pixels).double().numpy(), []
    for weight, bias in list(bank.architecture.layers.values())[:-1]:
        x = np.maximum(x @ bank.tensors[weight][0].double().numpy().T + bank.tensors[bias][0].double().numpy(), 0)
        found.append(x.T)
    return found


@pytest.mark.parametrize("correlated", [False, True])
def test_units_are_matched_by_products_or_correlations_of_activations(trained, train_images, correlated, unchanged):
    unchanged(trained)
    a, b = trained.select([0]), trained.select([1])
    alignment, total = match_activations(a, b, train_images.pixels, correlated=correlated), 0.0
    activations = zip(by_hand(a, train_images.pixels), by_hand(b, train_images.pixels), strict=True)
    for number, (x, y) in enumerate(activations, start=1):
        gains = x @ y.T
        if correlated:
            alive = np.outer(x.std(1) > 1e-6, y.std(1) > 1e-6)
            with np.errstate(invalid="ignore", divide="ignore"):
                gains = np.where(alive, np.corrcoef(x, y)[: len(x), len(x) :], 0)
        best = gains[linear_sum_assignment(gains, maximize=True)].sum()
        perm = alignment.permutations[f"P{number}"][0]
        assert gains[np.arange(len(perm)), perm].sum() == pytest.approx(best, rel=1e-4)
        total += best
    assert alignment.objective.item() == pytest.approx(total, rel=1e-4)


def test_units_behind_a_flattened_image_are_seen_with_their_pixels():
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 9, 2))
    symmetry, inputs = derive_symmetry(network, torch.rand(2, 1, 4, 4)), torch.rand(1, 1, 4, 4)
    [[site]] = sites_of(symmetry, network, inputs).values()
    assert (site.layer, site.taken) == ("3", True)
    assert site.read(torch.arange(54.0).view(2, 27)).tolist()[1] == [9 + k + 27 * n for k in range(9) for n in range(2)]


class Lending(nn.Module):
    """A network that takes the weights of a layer without calling it."""

    def __init__(self, *, by_itself=False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.by_itself = by_itself

    def forward(self, x):
        x = functional.linear(self.a(x).relu(), self.b.weight, self.b.bias).relu()
        return functional.linear(x, self.c.weight, self.c.bias) if self.by_itself else self.c(x)


class Scaled(nn.Module):
    """Weights that no layer holds."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(2, 4))

    def forward(self, x):
        return (x @ self.into.T).relu() @ self.out.T


def test_layers_that_are_never_called_are_not_looked_at_and_what_cannot_be_seen_is_refused(trained, train_images):
    example = torch.rand(20, 5)
    lending, by_itself = (Bank.stack([Lending(by_itself=b) for _ in range(2)], example) for b in (False, True))
    alignment = match_activations(lending, lending, example)
    assert all(torch.equal(perm[0], torch.arange(perm.shape[1])) for perm in alignment.permutations.values())
    scaled, pixels = Bank.stack([Scaled()], torch.rand(2, 3)), train_images.pixels
    for given, message in (
        ((by_itself, by_itself, example), r"activations of P\d of Lending cannot be seen"),
        ((scaled, scaled, torch.rand(2, 3)), "activations of P1 of Scaled cannot be seen: no linear or"),
        ((trained.select([0, 1]), trained.select(slice(3)), pixels), "2 reference networks cannot be paired with 3"),
        ((trained, trained, pixels[:, :1]), "images must be a tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            match_activations(*given)
