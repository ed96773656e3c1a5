"""Arguments that nobody means, and defaults of torch that a caller has set: an error in words, or the usual result."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import hrebasin


def _network():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def _pruned():
    network = _network()
    prune.l1_unstructured(network[0], "weight", 0.5)
    return network


EXAMPLE, LABELS = torch.rand(8, 3), torch.zeros(8, dtype=torch.int64)
NETWORKS = [_network(), _network()]


@pytest.mark.parametrize(
    ("networks", "options", "reason"),
    [
        (None, {}, "networks must be a list of modules, got one NoneType"),
        (NETWORKS[0], {}, "networks must be a list of modules, got one Sequential"),
        ([_pruned(), _pruned()], {}, "Sequential cannot be copied"),
        (NETWORKS, {"symmetry": "P"}, "symmetry must be a Symmetry, got str"),
        (NETWORKS, {"method": ["tree"]}, r"unknown method \['tree'\]"),
        (NETWORKS, {"images": (EXAMPLE,)}, "pair of inputs and labels, got 1 parts"),
        (NETWORKS, {"images": (EXAMPLE, LABELS, LABELS)}, "pair of inputs and labels, got 3 parts"),
        (NETWORKS, {"images": (EXAMPLE, LABELS.float())}, r"labels must be int64 \(image,\), got torch.float32"),
        (
            NETWORKS,
            {"images": (EXAMPLE, LABELS[:, None])},
            r"got torch.int64 \(8, 1\)",
        ),
        (NETWORKS, {"images": (EXAMPLE, [0] * 8)}, r"labels must be int64 \(image,\), got list"),
        (NETWORKS, {"images": (EXAMPLE, LABELS[:3])}, "3 labels do not fit 8 images"),
    ],
)
def test_an_odd_argument_is_named(networks, options, reason):
    with pytest.raises(ValueError, match=reason):
        hrebasin.merge(networks, EXAMPLE, **options)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused():
    with pytest.raises(ValueError, match="network 0 is a TorchScript module"):
        hrebasin.merge([torch.jit.trace(network, EXAMPLE) for network in NETWORKS], EXAMPLE)


def test_state_dicts_need_a_module():
    with pytest.raises(ValueError, match=r"network must be a torch\.nn\.Module, got NoneType"):
        hrebasin.merge_state_dicts(None, [NETWORKS[0].state_dict()] * 2, EXAMPLE)


@pytest.mark.parametrize("defaults", [torch.device("meta"), torch.autocast("cpu", torch.bfloat16)])
def test_defaults_of_torch_change_nothing(defaults):
    usual = hrebasin.merge(NETWORKS, EXAMPLE)
    with defaults:
        merged = hrebasin.merge(NETWORKS, EXAMPLE)
    assert all(map(torch.equal, merged.parameters(), usual.parameters()))


def test_parametrised_weights_are_told():
    networks = [_network(), _network()]
    for network in networks:
        parametrizations.weight_norm(network[0])
    with pytest.warns(UserWarning, match="parametrised weights"):
        hrebasin.merge(networks, EXAMPLE)
