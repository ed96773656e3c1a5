import pytest
import torch
from torch import nn

from hrebasin.symmetry import SymmetryRefutedError, derive_symmetry, prove_symmetry, symmetry_from_spec


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.gain = nn.Parameter(torch.full((8, 1, 1), 1e-6))

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.last((x + self.gain * self.inner(x)).mean((2, 3)))


RIGHT = {
    "first.weight": ("P", None, None, None),
    "first.bias": ("P",),
    **{f"norm.{name}": ("P",) for name in ("weight", "bias", "running_mean", "running_var")},
    "inner.weight": ("P", "P", None, None),
    "inner.bias": ("P",),
    "last.weight": (None, "P"),
    "last.bias": (None,),
    "gain": ("P", None, None),
}


def test_the_right_specification_passes():
    network = Residual()
    symmetry = symmetry_from_spec(RIGHT, network.state_dict())
    assert prove_symmetry(network, symmetry, draw(2, 3, 5, 5)) < 1e-13
    assert symmetry.agrees_with(derive_symmetry(network, draw(2, 3, 5, 5)))


@pytest.mark.parametrize(
    "wrong",
    [
        # on fresh networks, all but the first and the last of these would pass without drawing
        {"first.weight": (None, None, None, None)},
        *({f"norm.{name}": (None,)} for name in ("weight", "bias", "running_mean", "running_var")),
        {"gain": (None, None, None)},
        {"inner.weight": ("P", "Q", None, None)},
        {"inner.weight": ("Q", "P", None, None), "inner.bias": ("Q",)},
        {"last.weight": (None, None)},
    ],
)
def test_every_wrong_axis_is_found(wrong):
    network = Residual()
    with pytest.raises(SymmetryRefutedError) as refuted:
        prove_symmetry(network, symmetry_from_spec(RIGHT | wrong, network.state_dict()), draw(2, 3, 5, 5))
    assert refuted.value.error > 1e-4
    assert set(refuted.value.permutations) <= {"P", "Q"}


def deep():
    return nn.Sequential(*(layer for _ in range(9) for layer in (nn.Linear(6, 6), nn.ReLU())), nn.Linear(6, 2))


def deep_symmetry(**wrong):
    spec = {}
    for k in range(10):
        spec[f"{2 * k}.weight"] = (f"P{k}" if k < 9 else None, f"P{k - 1}" if k else None)
        spec[f"{2 * k}.bias"] = spec[f"{2 * k}.weight"][:1]
    return symmetry_from_spec(spec | wrong, deep().state_dict())


WRONG = {"4.bias": (None,)}


def test_the_permutations_that_break_it_are_named():
    with pytest.raises(SymmetryRefutedError, match="because of P2, P5$") as refuted:
        prove_symmetry(deep(), deep_symmetry(**WRONG | {"12.weight": ("P6", None)}), draw(3, 6))
    assert refuted.value.permutations == ("P2", "P5")


SMALL = {"0.weight": ("P", None), "0.bias": (None,), "2.weight": (None, "P"), "2.bias": (None,)}  # wrong


def test_small_permutations_move_whatever_the_seed():
    network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    for seed in range(8):
        with pytest.raises(SymmetryRefutedError):
            prove_symmetry(network, symmetry_from_spec(SMALL, network.state_dict()), draw(4, 3), seed=seed)


def test_seeds_and_the_tolerance_count_and_the_weights_given_do_not():
    network = deep()
    errors = [prove_symmetry(network, deep_symmetry(), draw(64, 6), seed=seed) for seed in ("one", "one", "two")]
    assert 1e-12 >= errors[0] == errors[1] != errors[2]
    assert prove_symmetry(network, deep_symmetry(**WRONG), draw(8, 6), tolerance=1e3) > 1e-6
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # dead: any symmetry would pass
    assert 0 < prove_symmetry(network, deep_symmetry(), draw(8, 6)) <= 1e-12
    with pytest.raises(SymmetryRefutedError):
        prove_symmetry(network, deep_symmetry(**WRONG), draw(8, 6))


class Out(nn.Module):
    """A layer with a function of what it gives."""

    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 3), function

    def forward(self, x):
        return self.function(self.layer(x))


def with_integers():
    network = nn.Sequential(nn.Linear(3, 4))
    network.register_buffer("counts", torch.arange(4))
    return network


def tied():
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    network[1].weight = network[0].weight
    return network


FIXED = {"layer.weight": (None, None), "layer.bias": (None,)}
PERMUTED = {"0.weight": (None, None), "0.bias": (None,), "counts": ("P",)}


@pytest.mark.parametrize(
    ("network", "symmetry", "message"),
    [
        (Out(torch.relu), deep_symmetry(), "'layer.weight' is not in the symmetry"),
        (nn.Sequential(nn.Linear(6, 6)), deep_symmetry(), r"tensors that the network lacks: \['2.weight'"),
        (
            nn.Sequential(*deep()[:-1], nn.Linear(6, 3)),
            deep_symmetry(),
            r"'18.weight' must have shape \(2, 6\), got \(3, 6\)",
        ),
        (with_integers(), PERMUTED, "'counts' holds integers"),
        (tied(), {"0.weight": ("P", None), "1.weight": (None, "P")}, "'0.weight' and '1.weight' are tied"),
        (Out(lambda x: x / 0), FIXED, "not finite"),
        (Out(lambda x: x * 0), FIXED, "are 0"),
    ],
)
def test_what_cannot_be_proven_is_refused(network, symmetry, message):
    if isinstance(symmetry, dict):
        symmetry = symmetry_from_spec(symmetry, network.state_dict())
    with pytest.raises(ValueError, match=message):
        prove_symmetry(network, symmetry, draw(2, 3))


def test_masks_with_infinities_stay():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.mask = nn.Parameter(torch.full((4, 4), -torch.inf).triu(1), requires_grad=False)
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return (self.layer(x) @ self.layer(x).mT + self.mask).softmax(-1)

    network, example = Masked(), draw(2, 4, 3)
    symmetry = derive_symmetry(network, example)
    assert symmetry.permutations == {"P1": 4}
    assert prove_symmetry(network, symmetry, example) <= 1e-12


def test_the_same_in_every_process():
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    symmetry = symmetry_from_spec(SMALL, network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    error = prove_symmetry(network, symmetry, torch.arange(12.0).view(2, 6).sin(), tolerance=1e3)
    assert error == pytest.approx(0.009921100639045152, rel=1e-9)  # as another process once found
