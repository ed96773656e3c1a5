"""Networks that cannot be merged, through every door: refused for the reason at hand, with network and tensor.

A row is ``(networks, example, *reasons)``: the message must hold every reason.
"""

import copy
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from hrebasin.bank import Bank
from hrebasin.images.sources import Images
from hrebasin.matching.weights import match_weights
from hrebasin.merging.merge import merge, merge_state_dicts
from hrebasin.merging.methods import MERGES
from hrebasin.networks import mlp
from hrebasin.random_streams import generator

EXAMPLE = torch.rand(2, 3, 8, 8, generator=generator("test/bad"))
PIXELS = torch.randint(256, (8, 3, 8, 8), dtype=torch.uint8, generator=generator("test/bad/images"))
IMAGES = Images(PIXELS, torch.arange(8) % 4, tuple("abcd"), "noise")


class Net(nn.Module):
    """A convolution, a function between, and a linear layer."""

    def __init__(self, *, width=6, between=torch.relu, classes=4):
        super().__init__()
        self.conv, self.head, self.between = nn.Conv2d(3, width, 3), nn.Linear(width, classes), between

    def forward(self, x):
        return self.head(self.between(self.conv(x)).mean((2, 3)))


class Asking(Net):
    """A forward pass that branches on values."""

    def forward(self, x):
        return super().forward(-x if x.sum() > 1e9 else x)


def both(make):
    return [make(), make()]


def pair(change, network=1):
    """Two networks of which one is changed, or another."""
    networks = [Net(), Net()]
    networks[network] = change(networks[network])
    return networks


def planted(value, tensor="conv.weight", network=1):
    def plant(net):
        net.get_parameter(tensor).data.view(-1)[2] = value
        return net

    return pair(plant, network)


def large(value, *, first=2):
    networks = [Net() for _ in range(4)]
    for network in networks[first:]:
        network.conv.weight.data.mul_(value / network.conv.weight.abs().max().item())
    return networks


def quantised(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear})


def masked():
    networks = both(Net)
    for number, network in enumerate(networks):
        network.register_buffer("mask", torch.arange(4) > number)
    return networks


def flat(*layers):
    return lambda: nn.Sequential(nn.Flatten(), *(layer() for layer in layers))


def with_dropout():
    return Net(between=lambda x: functional.dropout(x, 0.5, training=True))


def centred():
    return Net(between=lambda x: x - x.mean(0))


def normed():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.Flatten())


ACTIVATED = [flat(lambda: nn.Linear(192, 8), act, lambda: nn.Linear(8, 4))() for act in (nn.ReLU, nn.GELU)]
MLPS = [mlp((8,), n_classes=4, image_shape=(3, 8, 8), mean=[m] * 3) for m in (0.4, 0.5)]
AMONG = "Net gives an image other outputs among others than alone"
NETWORKS = {
    "other widths": (pair(lambda n: Net(width=7)), "network 1 has 'conv.bias' of shape (7,), but network 0 has"),
    "other layers": (pair(lambda n: nn.Linear(3, 4)), "network 1 has 'bias' of shape (4,), but network 0 has n"),
    "other modules": (ACTIVATED, "network 1 has (2): GELU(approximate='none'), but network 0 has (2): ReLU()"),
    "other masks": (masked(), "network 1 has other numbers in 'mask' than network 0"),
    "no logits": (both(lambda: nn.Conv2d(3, 6, 3)), "Conv2d must give logits (image, class), got shape (2, 6, 6"),
    "dropout": (both(with_dropout), "Net gives other outputs at every call in evaluation mode", "random numbers"),
    "batch statistics": (both(normed), "other outputs among others than alone", "of the batch"),
    "half": (pair(Net.half), "network 1: 'conv.weight' has dtype torch.float16", "network.float()"),
    "two precisions": (pair(lambda n: n.head.double() and n), "network 1: ", "'head.bias' has torch.float64: convert"),
    "no parameters": (both(flat()), "the networks have no parameters"),
    "nan": (planted(torch.nan), "network 1: 'conv.weight' holds values that are not finite"),
    "quantised": (pair(quantised), "network 1: 'head._packed_params.dtype' is no tensor", "quantised?"),
    "lazy": (both(flat(lambda: nn.LazyLinear(4))), "network 0: '1.weight' is not init"),
    "meta": (pair(lambda n: n.to("meta")), "network 1: 'conv.weight' is on the meta device"),
    "no module": (pair(lambda n: torch.relu), "network 1 is no torch.nn.Module but builtin_function_or_method"),
    "a state dict": (pair(Net.state_dict), "network 1 is a state dict: merge_state_dicts takes those"),
    "branches": (both(Asking), "torch.export cannot read the forward pass of Asking", "symmetry_from_spec"),
    "no symmetry": (both(flat(lambda: nn.Linear(192, 4))), "Sequential of 772 parameters has no permutation sy"),
    "one network": ([Net()], "merging needs at least 2 networks, got 1"),
    "three in a tree": (both(Net) + [Net()], "a tree needs 2, 4, 8, ... networks, got 3", "by merge-many"),
}
EXAMPLES = {
    "other mlps": (MLPS, None, "network 1 has Architecture(", "mean=(0.5, 0.5, 0.5)", "network 0 has Architecture("),
    "no example": (both(Net), None, "Net needs inputs of its shape: give images= to a merge, or example=images[:2]"),
    "too few channels": (both(Net), EXAMPLE[:, :2], "Net does not run on the example of shape (2, 2, 8, 8): Run"),
    "too few axes": (both(Net), EXAMPLE[0, 0, 0], "an example must be a tensor (image, ...) of at least one image"),
    "an array": (both(Net), EXAMPLE.numpy(), "an example must be a tensor (image, ...)", "got ndarray"),
    "no images": (both(Net), EXAMPLE[:0], "at least one image, got shape (0, 3, 8, 8)"),
    "dropout, one image": (both(with_dropout), EXAMPLE[:1], "Net gives other outputs at every call in evaluation mode"),
    "a batch of one": (both(centred), EXAMPLE[:1], AMONG),
    "a batch of zeros": (both(centred), torch.zeros(4, 3, 8, 8), AMONG),
}
ROWS = EXAMPLES | {name: (networks, EXAMPLE, *reasons) for name, (networks, *reasons) in NETWORKS.items()}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_networks_that_cannot_be_merged_are_refused_by_name(row):
    networks, example, *reasons = row
    with pytest.raises(ValueError, match=".") as error:
        merge(networks, example)
    for reason in reasons:
        assert reason in str(error.value)


def test_images_are_some_bytes_or_floats_dense_finite_and_like_the_example():
    tokens = torch.zeros(2, 3, 8, 8, dtype=torch.int64)
    for images, example, reason in (
        (torch.tensor(1.0), None, "dense torch.Tensor (image, ...), got one that is a number"),
        (EXAMPLE.to_sparse(), EXAMPLE, "got one that is torch.sparse_coo"),
        (EXAMPLE.to("meta"), EXAMPLE, "got one that is on the meta device"),
        (EXAMPLE.long(), EXAMPLE, "images must be some, uint8 or floats, got 2 of torch.int64"),
        (EXAMPLE[:0], EXAMPLE, "images must be some, uint8 or floats, got 0"),
        (torch.full((4, 3, 8, 8), 1e300, dtype=torch.float64), EXAMPLE, "images must be finite, in float32 too"),
        (EXAMPLE, tokens, "images are uint8 or floats, but the example is torch.int64"),
    ):
        with pytest.raises(ValueError, match=re.escape(reason)):
            merge(both(Net), example, images=images)


class Extra(Net):
    def get_extra_state(self):
        return {"epoch": 3}

    def set_extra_state(self, state):
        self.epoch = state["epoch"]


def test_extra_state_hinders_nothing_and_state_dicts_keep_their_precision():
    assert merge(both(Extra), EXAMPLE)(EXAMPLE).isfinite().all()
    states = [Net().double().state_dict() for _ in range(2)]
    merged = merge_state_dicts(Net(), states, EXAMPLE)
    assert {tensor.dtype for tensor in merged.values()} == {torch.float64}


@pytest.mark.parametrize("reference", [EXAMPLE, (EXAMPLE,), (EXAMPLE[:0], torch.zeros(0, 4))])
def test_a_reference_is_a_pair(reference):
    with pytest.raises(ValueError, match="reference must be two real tensors"):
        merge_state_dicts(Net(), [Net().state_dict()] * 2, EXAMPLE, reference=reference)


# ---- weights whose products leave float32


@pytest.mark.parametrize("method", [name for name in MERGES if name != "naive"])  # which multiplies nothing
def test_weights_that_are_too_large_are_named(method):
    what = "activations" if MERGES[method].needs == "pixels" else "products of weights"
    message = rf"{what} left float32: conv.weight of the network of seed [0-3] holds weights of 1.0e\+20"
    with pytest.raises(ValueError, match=message):
        merge(large(1e20, first=0), EXAMPLE, method=method, images=IMAGES if MERGES[method].needs else None)


@pytest.mark.parametrize("place", [0, 1])
def test_the_networks_of_a_pair_are_told_apart(place):
    bank = Bank.stack([mlp((8,), n_classes=4, image_shape=(3, 8, 8)) for _ in range(2)])
    other = bank.select([0, 0])
    bank.tensors["fc2.weight"][1], other.tensors["fc2.weight"][1] = 3e20, 2e20
    with pytest.raises(ValueError, match=r"fc2.weight of the network at position 0 holds weights of 3.0e\+20"):
        match_weights(*((bank, other) if place else (other, bank)))


def test_large_weights_that_can_be_matched_are():
    networks = [Net(), Net()]
    for network in networks:
        network.conv.weight.data.mul_(1e15)
    assert merge(networks, EXAMPLE)(EXAMPLE).isfinite().all()
    merge(large(1e25), EXAMPLE, method="naive")  # nothing is multiplied


def test_state_dicts_are_refused_as_networks_are():
    with pytest.raises(ValueError, match="conv.weight of the network of seed [23] holds weights of"):
        merge_state_dicts(Net(), [each.state_dict() for each in large(1e25)], EXAMPLE)


# ---- what is allowed


def test_a_network_in_training_mode_is_taken_in_evaluation_mode():
    networks = [nn.Sequential(Net(), nn.Dropout(0.5)).train() for _ in range(2)]
    merged = merge(networks, EXAMPLE)
    assert torch.equal(merged(EXAMPLE), merge([copy.deepcopy(each).eval() for each in networks], EXAMPLE)(EXAMPLE))


def test_a_network_without_symmetry_can_be_averaged():
    networks = both(flat(lambda: nn.Linear(192, 4)))
    merged = merge(networks, EXAMPLE, method="naive")
    torch.testing.assert_close(merged[1].weight, (networks[0][1].weight + networks[1][1].weight) / 2)


# ---- what only outputs tell apart


class Kept(nn.Module):
    """A network whose outputs hang on ties, a function and a number that neither its weights nor its text tell."""

    def __init__(self, act=torch.relu, scale=1.0, mean=0.0, tied=True):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.act, self.scale = act, scale
        nn.init.zeros_(self.first.bias)
        if tied:
            self.second.weight = self.first.weight
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x):
        return self.last(self.second(self.act(self.first(x - self.mean)) * self.scale).relu())


@pytest.mark.parametrize(
    "other",
    [{"act": torch.tanh}, {"scale": 100.0}, {"mean": 5.0}, {"tied": False}],
    ids=lambda other: next(iter(other)),
)
@pytest.mark.parametrize("example", [torch.randn(4, 6), torch.zeros(4, 6), torch.zeros(4, 6, dtype=torch.uint8)])
def test_networks_that_only_their_outputs_tell_apart_are_refused(other, example):
    with pytest.raises(ValueError, match="network 1 gives other outputs than network 0 .* they differ in ties"):
        Bank.stack([Kept(), Kept(**other)], example)
