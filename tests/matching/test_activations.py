"""Activation matching against activations computed by hand, and against networks whose units were moved."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional

from hrebasin import Bank
from hrebasin.matching.activations import match_activations, sites_of
from hrebasin.random_streams import generator
from hrebasin.symmetry import derive_symmetry
from other_networks import KINDS, SHAPE, untrained


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
    for name, x, y in zip(
        ("P1", "P2", "P3"), by_hand(a, train_images.pixels), by_hand(b, train_images.pixels), strict=True
    ):
        gains = x @ y.T
        if correlated:
            alive = np.outer(x.std(1) > 1e-6, y.std(1) > 1e-6)
            with np.errstate(invalid="ignore", divide="ignore"):
                gains = np.where(alive, np.corrcoef(x, y)[: len(x), len(x) :], 0)
        best = gains[linear_sum_assignment(gains, maximize=True)].sum()
        perm = alignment.permutations[name][0]
        assert gains[np.arange(len(perm)), perm].sum() == pytest.approx(best, rel=1e-4)
        total += best
    assert alignment.objective.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_moved_units_are_found_again_in_any_network(kind, correlated):
    bank = untrained(kind)
    stream = generator("test/activations")
    symmetry, inputs = bank.architecture.symmetry, torch.rand(20, *SHAPE, generator=stream)
    drawn = [symmetry.random_permutations(stream) for _ in range(len(bank))]
    planted = {name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}
    moved = Bank(bank.architecture, symmetry.apply(bank.tensors, planted))
    back = match_activations(bank, moved, inputs, correlated=correlated).apply(moved)
    for name, tensor in bank.tensors.items():
        torch.testing.assert_close(back.tensors[name], tensor)


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


def test_layers_that_are_never_called_are_not_looked_at():
    example = torch.rand(20, 5, generator=generator("test/lending"))
    bank = Bank.stack([Lending() for _ in range(2)], example)
    alignment = match_activations(bank, bank, example)
    assert all(torch.equal(perm[0], torch.arange(perm.shape[1])) for perm in alignment.permutations.values())
    bank = Bank.stack([Lending(by_itself=True) for _ in range(2)], example)
    with pytest.raises(ValueError, match=r"activations of P\d of Lending cannot be seen"):
        match_activations(bank, bank, example)


def test_what_cannot_be_matched_is_refused(trained, train_images):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.out = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(2, 4))

        def forward(self, x):
            return (x @ self.into.T).relu() @ self.out.T

    with pytest.raises(ValueError, match="activations of P1 of Scaled cannot be seen: no linear or"):
        sites_of(derive_symmetry(Scaled(), torch.rand(2, 3)), Scaled(), torch.rand(2, 3))
    with pytest.raises(ValueError, match="2 reference networks cannot be paired with 3"):
        match_activations(trained.select(slice(2)), trained.select(slice(3)), train_images.pixels)
    with pytest.raises(ValueError, match="images must be a tensor"):
        match_activations(trained, trained, train_images.pixels[:, :1])
