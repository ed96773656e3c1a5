"""Weight matching on networks of any kind: exact products, an objective that never falls, planted permutations."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from hrebasin.bank import Bank
from hrebasin.convolutional import convolutional, residual
from hrebasin.matching.descent import Descent
from hrebasin.matching.weights import match_weights
from hrebasin.random_streams import generator
from hrebasin.symmetry import symmetry_from_spec

# A square layer, three permuted axes, a product, and a concatenation
SPECS = {
    "square": ({"w": ("P1", "P1"), "b": ("P1",)}, {"w": (5, 5), "b": (5,)}),
    "three axes": ({"w": ("P1", "P2", "P3")}, {"w": (3, 4, 5)}),
    "three times": ({"w": ("P1", "P1", "P1"), "b": ("P1", "P2")}, {"w": (4, 4, 4), "b": (4, 3)}),
    "product": ({"w": (("P1", "P2"), "P3"), "v": ("P1", ("P3", 2))}, {"w": (12, 5), "v": (3, 10)}, {"P1": 3, "P2": 4}),
    "bias of a product": (
        {"w": ("P1", "P3"), "b": (("P1", "P2"),), "c": (["P1", "P2"],)},
        {"w": (3, 5), "b": (12,), "c": (7,)},
        {"P1": 3, "P2": 4},
    ),
    "concatenation": ({"w": (["P1", ("P2", 2), 3], "P2"), "b": ("P1",)}, {"w": (15, 4), "b": (4,)}),
    "flattened": ({"w": (None, ("P1", 9)), "k": ("P1", None, None)}, {"w": (2, 36), "k": (4, 3, 3)}),
}


def drawn(shapes, name):
    return {key: torch.randn(shape, generator=generator(f"{name}/{key}")) for key, shape in shapes.items()}


@pytest.fixture(params=SPECS)
def pair(request):
    spec, shapes, *sizes = SPECS[request.param]
    symmetry = symmetry_from_spec(spec, shapes, sizes=sizes[0] if sizes else None)
    return symmetry, drawn(shapes, "a"), drawn(shapes, "b")


def objective(symmetry, a, b, permutations):
    moved = symmetry.apply(b, permutations)
    return sum(float((a[key].double() * moved[key].double()).sum()) for key in a)


def test_products_are_the_derivative_of_the_objective(pair):
    """Where a permutation stands once in each parameter, C holds the objective of every order, up to a constant."""
    symmetry, a, b = pair
    start = symmetry.random_permutations(generator("start"))
    descent = Descent(a, b, symmetry, permutations=start)
    for name in symmetry.permutations:
        if descent.twice[name]:
            continue
        gains = descent.constants[name] + sum(descent._product(*place) for place in descent.varying[name])
        size = symmetry.permutations[name]
        first, second = (torch.randperm(size, generator=generator(f"{name}/{k}")) for k in range(2))
        expected = objective(symmetry, a, b, start | {name: first}) - objective(symmetry, a, b, start | {name: second})
        rows = torch.arange(size)
        assert float((gains[rows, first] - gains[rows, second]).sum()) == pytest.approx(expected, abs=1e-4)


def test_the_objective_never_falls_and_is_that_of_the_permutations_found(pair):
    symmetry, a, b = pair
    start = symmetry.random_permutations(generator("start"))
    found = [objective(symmetry, a, b, start)]
    for sweeps in (1, 2, 100):
        descent = Descent(a, b, symmetry, permutations=start)
        descent.run("x", sweeps)
        assert descent.objective() == pytest.approx(objective(symmetry, a, b, descent.permutations), rel=1e-9)
        found.append(descent.objective())
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(found))
    assert len(set(symmetry.permutations)) == 1 or found[-1] > found[0]


class Tied(nn.Module):
    """A square layer on a residual stream: its two axes have one permutation."""

    def __init__(self):
        super().__init__()
        self.inner, self.square, self.outer = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        h = self.inner(x)
        return self.outer(h + self.square(h))


@pytest.mark.parametrize(
    "make", [lambda: convolutional((6, 8)), lambda: residual((6, 8)), Tied], ids=["convolutional", "residual", "square"]
)
def test_a_planted_permutation_is_undone_up_to_noise(make):
    """The planted order is a better optimum than any that starts from it, and outputs do not change by permuting."""
    networks = []
    with torch.random.fork_rng():
        torch.manual_seed(1)
        networks.append(make())
    bank = Bank.stack(networks, example=None if make is not Tied else torch.randn(2, 6))
    symmetry = bank.architecture.symmetry
    planted = {name: perm[None] for name, perm in symmetry.random_permutations(generator("planted")).items()}
    moved = Bank(bank.architecture, symmetry.apply(bank.tensors, planted))
    images = torch.rand(4, *bank.architecture.image_shape, generator=generator("images"))
    torch.testing.assert_close(moved(images), bank(images), rtol=1e-4, atol=1e-5)
    found = match_weights(bank, moved, seed="x")
    aligned = found.apply(moved)
    torch.testing.assert_close(aligned(images), bank(images), rtol=1e-4, atol=1e-5)
    itself = float(match_weights(bank, bank).objective)
    assert float(found.objective) == pytest.approx(itself, rel=1e-3)
