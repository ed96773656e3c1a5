"""Weight matching on networks of any kind: exact products and an objective that never falls; planted permutations."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from hrebasin.bank import Bank
from hrebasin.matching.activations import match_activations
from hrebasin.matching.descent import Descent
from hrebasin.matching.straight_through import match_straight_through
from hrebasin.matching.transport import match_transport
from hrebasin.matching.weights import match_weights
from hrebasin.random_streams import generator
from hrebasin.symmetry import symmetry_from_spec
from other_networks import KINDS, SHAPE, untrained

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


@pytest.fixture(params=SPECS)
def pair(request):
    """A symmetry and the tensors of two networks."""
    spec, shapes, *sizes = SPECS[request.param]
    drawn = (
        {key: torch.randn(shape, generator=generator(f"{name}/{key}")) for key, shape in shapes.items()}
        for name in "ab"
    )
    return symmetry_from_spec(spec, shapes, sizes=sizes[0] if sizes else None), *drawn


def objective(symmetry, a, b, permutations):
    moved = symmetry.apply(b, permutations)
    return sum(float((a[key].double() * moved[key].double()).sum()) for key in a)


def test_products_are_the_derivative_of_the_objective(pair):
    """Where a permutation stands once in each parameter, C holds the objective of every order, up to a constant."""
    symmetry, a, b = pair
    start = symmetry.random_permutations(generator("start"))
    descent = Descent(a, b, symmetry, permutations=start)
    for name, size in symmetry.permutations.items():
        if name in descent.twice:
            continue
        gains = descent.constants[name] + sum(descent._product(*place) for place in descent.varying[name])
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
        self.inner, self.square, self.outer = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x):
        h = self.inner(x)
        return self.outer(h + self.square(h))


MATCHES = {
    "weights": match_weights,
    "transport": match_transport,
    "activations": match_activations,
    "correlations": lambda *given: match_activations(*given, correlated=True),
    "straight-through": lambda a, b, inputs: match_straight_through(
        a, b, inputs, torch.arange(len(inputs)) % 4, seed=range(len(a)), steps=2
    ),
}


@pytest.fixture(scope="module", params=["mlp", *KINDS, Tied], ids=lambda kind: getattr(kind, "__name__", kind))
def planted(request, trained, pixels):
    """Networks, the same with their units in orders of their own, and inputs."""
    bank, inputs = trained.select([0, 1]), pixels[:20]
    if request.param is Tied:
        inputs = torch.randn(20, 6, generator=generator("test/inputs"))
        bank = Bank.stack([Tied()], inputs[:2])
    elif request.param != "mlp":
        bank, inputs = untrained(request.param), torch.rand(20, *SHAPE, generator=generator("test/inputs"))
        assert len(Bank.stack(list(bank))) == len(bank), "the library's own networks need no example"
    symmetry, stream = bank.architecture.symmetry, generator("test/moved")
    drawn = [symmetry.random_permutations(stream) for _ in range(len(bank))]
    stacked = {name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}
    return bank, Bank(bank.architecture, symmetry.apply(bank.tensors, stacked), bank.labels), inputs


@pytest.mark.parametrize("name", MATCHES)
def test_moved_units_are_found_again_in_any_network(planted, name, unchanged):
    bank, moved, inputs = planted
    unchanged(bank, moved)
    given = () if name in ("weights", "transport") else (inputs,)
    found = MATCHES[name](bank, moved, *given)
    back = found.apply(moved)
    torch.testing.assert_close(back(inputs), bank(inputs), rtol=1e-4, atol=1e-4)
    if name == "weights":  # the planted order is a better optimum than any that starts from it
        torch.testing.assert_close(found.objective, match_weights(bank, bank).objective, rtol=1e-3, atol=0)
    elif name != "straight-through":
        torch.testing.assert_close(back.tensors, bank.tensors)
