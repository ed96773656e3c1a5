import copy
import dataclasses
import warnings

import pytest
import torch
from torch import nn

from hrebasin.symmetry import derive_symmetry, prove_symmetry, symmetry_from_spec

EXAMPLE = torch.zeros(2, 4)


class Plain(nn.Module):
    """Two linear layers and a function of the network and its 8 hidden units between them, with more parts."""

    def __init__(self, middle=lambda net, x: x.relu(), **parts):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.middle = middle
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.last(self.middle(self, self.first(x)))


def perceptron():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def proven(network, example):
    symmetry = derive_symmetry(network, example)
    assert prove_symmetry(network, symmetry, example) <= 1e-10
    return symmetry


def test_a_perceptron_has_the_specification_that_is_known_whatever_the_batch():
    spec = {
        "0.weight": ("P1", None),
        "0.bias": ("P1",),
        "2.weight": ("P2", "P1"),
        "2.bias": ("P2",),
        "4.weight": (None, "P2"),
        "4.bias": (None,),
    }
    network = perceptron()
    expected = symmetry_from_spec(spec, network.state_dict())
    assert derive_symmetry(network, EXAMPLE) == expected
    with torch.no_grad():
        assert derive_symmetry(network, torch.zeros(8, 4)) == expected  # 8 images, 8 units
    assert derive_symmetry(network, torch.zeros(1, 4, dtype=torch.float64)) == expected
    assert derive_symmetry(network.double(), torch.zeros(4)) == expected


def test_the_network_and_the_random_state_are_left_as_they_are():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(36, 3)).train()
    network[4].weight.requires_grad_(False)
    before, state, example = copy.deepcopy(network.state_dict()), torch.random.get_rng_state(), torch.ones(2, 3, 5, 5)
    proven(network, example)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert [network[place].weight.requires_grad for place in (0, 4)] == [True, False]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(example, torch.ones(2, 3, 5, 5))


# ---- tensors


def test_tied_weights_have_the_same_axes():
    network = nn.Sequential(nn.Linear(5, 9), nn.Linear(9, 9, bias=False), nn.ReLU(), nn.Linear(9, 9), nn.Linear(9, 5))
    network[3].weight = network[1].weight
    symmetry = proven(network, torch.randn(2, 5))
    assert symmetry.axes["3.weight"] == symmetry.axes["1.weight"]
    assert list(symmetry.permutations.values()) == [9]


def test_word_embeddings_tied_to_the_output():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(11, 6), nn.Parameter(torch.zeros(1, 5, 6))
            self.layer, self.out = nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
            self.out.weight = self.words.weight

        def forward(self, tokens):
            x = self.words(tokens) + self.places
            return self.out(x + self.layer(x).relu())

    assert proven(Language(), torch.arange(10).view(2, 5)).permutations == {"P1": 6}


def test_buffers_integers_and_scalars():
    network = Plain(lambda net, x: net.gain * net.scale * x.relu() + net.one, gain=nn.Parameter(torch.tensor(0.0)))
    network.one = nn.Parameter(torch.zeros(1))
    network.register_buffer("scale", torch.ones(8))
    network.register_buffer("shift", torch.zeros(8), persistent=False)
    network.last.register_forward_hook(lambda layer, given, logits: logits * network.get_buffer("signs"))
    network.register_buffer("signs", torch.ones(3, dtype=torch.int64))
    symmetry = proven(network, torch.randn(2, 4))
    assert symmetry.permutations == {"P1": 8}
    assert "shift" not in symmetry.axes
    assert symmetry.axes["gain"] == ()
    assert [axis[0][0].name for axis in (*symmetry.axes["scale"], *symmetry.axes["signs"])] == ["P1", None]
    for persistent, dtype in ((True, torch.int64), (False, torch.float32)):
        network = Plain(lambda net, x: x * net.scale)
        network.register_buffer("scale", torch.arange(8).to(dtype), persistent=persistent)
        assert derive_symmetry(network, EXAMPLE).permutations == {}


def test_a_network_without_parameters_and_tensors_without_part_in_the_outputs():
    symmetry = proven(nn.Flatten(), torch.ones(2, 3, 3))
    assert (symmetry.permutations, symmetry.axes) == ({}, {})
    with pytest.warns(UserWarning, match="head.weight, head.bias take no part in the outputs"):
        symmetry = derive_symmetry(Plain(head=nn.Linear(8, 2)), EXAMPLE)
    assert symmetry.permutations == {"P1": 8}
    assert {factor.name for axis in symmetry.axes["head.weight"] for s in axis for factor in s} == {None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.half(), "'first.weight' has dtype torch.float16"),
        (lambda net: net.to(torch.complex64), "'first.weight' is complex"),
        (lambda net: net.to("meta"), "'first.weight' is on the meta device"),
        (lambda net: setattr(net, "last", nn.LazyLinear(3)), "'last.weight' is not initialised"),
        (
            lambda net: net.register_buffer("q", torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8)),
            "'q' is quantised",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(change, message):
    network = Plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's: complex modules and quantised tensors are unusual
        change(network)
    for act in (derive_symmetry, lambda net, example: prove_symmetry(net, None, example)):
        with pytest.raises(ValueError, match=message):
            act(network, EXAMPLE)


# ---- inputs and outputs


def test_several_inputs_by_place_and_by_name():
    class Pair(Plain):
        def forward(self, x, *, y, scale=1.0):
            return self.last((self.first(x) * self.first(y)).relu()) * scale

    x, y = torch.randn(2, 4), torch.randn(2, 4)
    assert proven(Pair(), {"x": x, "y": y}).permutations == {"P1": 8}
    assert derive_symmetry(Pair(), {"x": x, "y": y, "scale": 2.0}).permutations == {"P1": 8}
    assert derive_symmetry(nn.Bilinear(4, 4, 2), (x, y)).permutations == {}


@dataclasses.dataclass
class Outputs:
    logits: torch.Tensor
    features: torch.Tensor | None


@pytest.mark.parametrize(
    "kind",
    [
        lambda logits, features: {"all": [logits, (features, None, 3)]},
        Outputs,
    ],
    ids=["nested", "dataclass"],
)
def test_outputs_of_many_kinds_all_stay(kind):
    class Several(Plain):
        def forward(self, x):
            features = self.first(x)
            return kind(self.last(features.relu()), features)

    assert derive_symmetry(Several(), EXAMPLE).permutations == {}


class Silent(Plain):
    def forward(self, x):
        return None


@pytest.mark.parametrize(
    ("network", "example", "message"),
    [
        (Plain(), torch.zeros(2, 5), r"Plain does not run on the example of shape \(2, 5\): RuntimeError: .*shapes"),
        (Plain(), (EXAMPLE, torch.zeros(1)), r"shape \(2, 4\), \(1,\): TypeError"),
        (Plain(), {"y": EXAMPLE}, "unexpected keyword argument 'y'"),
        (Plain(), "images", "shape str"),
        (Plain().state_dict(), EXAMPLE, "must be a torch.nn.Module, got OrderedDict"),
        (Silent(), EXAMPLE, "the outputs of Silent hold no tensor"),
        (Plain(lambda net, x: x.relu() + x.nonzero().sum()), EXAMPLE, "symmetry_from_spec"),
    ],
)
def test_what_cannot_be_read_is_refused(network, example, message):
    with pytest.raises(ValueError, match=message):
        derive_symmetry(network, example)


# ---- graphs


def test_branches_on_values_are_refused_with_advice_and_proven_by_hand():
    network = Plain(lambda net, x: x.relu() if x.sum() > 0 else x)
    with pytest.raises(ValueError, match=r"cannot read .* Plain .*symmetry_from_spec") as raised:
        derive_symmetry(network, EXAMPLE)
    assert "\n" not in str(raised.value)
    spec = {"first.weight": ("P", None), "first.bias": ("P",), "last.weight": (None, "P"), "last.bias": (None,)}
    symmetry = symmetry_from_spec(spec, network.state_dict())
    assert prove_symmetry(network, symmetry, torch.randn(2, 4)) <= 1e-10
    switched = Plain(lambda net, x: x.relu() if net.deep and x.shape[0] > 1 else x, deep=True)
    assert derive_symmetry(switched, EXAMPLE).permutations == {"P1": 8}


def test_an_operation_without_a_rule_fixes_what_it_touches_and_is_named_once():
    class Gathered(nn.Module):
        def __init__(self):
            super().__init__()
            self.free, self.read, self.last = nn.Linear(4, 7), nn.Linear(7, 8), nn.Linear(8, 3)
            self.register_buffer("order", torch.arange(8).flip(0).expand(2, 8))

        def forward(self, x):
            read = self.read(self.free(x).relu())
            return self.last(read.gather(1, self.order).relu().gather(1, self.order))

    with pytest.warns(UserWarning, match="no rule for aten.gather.default: all axes") as told:
        symmetry = proven(Gathered(), torch.randn(2, 4))
    assert len(told) == 1
    assert symmetry.without_rule == ("aten.gather.default",)
    assert symmetry.permutations == {"P1": 7}


def test_operations_of_extensions_and_random_numbers_fix_what_they_touch():
    @torch.library.custom_op("hrebasin_test::mark_first", mutates_args=("x",))
    def mark_first(x: torch.Tensor) -> None:
        x[:, 0] = 1

    def marked(net, x):
        x = x.relu()
        mark_first(x)  # only changes its input
        return x

    noisy = Plain(lambda net, x: x + torch.rand_like(x))
    for network, name in (
        (Plain(marked), "hrebasin_test.mark_first"),
        (noisy, "rand_like"),
    ):
        with pytest.warns(UserWarning, match=name):
            symmetry = derive_symmetry(network, EXAMPLE)
        assert symmetry.permutations == {}
    with pytest.raises(ValueError, match="differ between two runs"):
        prove_symmetry(noisy, symmetry, torch.randn(2, 4))
