"""Networks that others wrote: torchvision's, and the residual network of Git Re-Basin with its specification."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision import models

from hrebasin.study.benchmarks.any_network import ResNet20
from hrebasin.symmetry import SymmetryRefutedError, derive_symmetry, prove_symmetry, symmetry_from_spec

PERMUTATIONS = {  # at the least
    "resnet18": 12,
    "resnet50": 37,
    "resnext50_32x4d": 53,
    "vgg11_bn": 10,
    "vgg16": 15,
    "alexnet": 7,
    "mobilenet_v2": 25,
    "mobilenet_v3_small": 27,
    "densenet121": 120,
    "efficientnet_b0": 40,
    "squeezenet1_1": 25,
    "regnet_y_400mf": 69,
    "shufflenet_v2_x0_5": 30,
    "convnext_tiny": 22,
    "googlenet": 57,
    "vit_b_32": 49,
    "swin_t": 52,
}
OPTIONS = {
    # heads that only training uses would take no part
    "googlenet": {"aux_logits": False, "init_weights": False},
    "vit_b_32": {"image_size": 64},
}
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def zeros(monkeypatch):
    """Weights begin as zeros, as a proof draws its own: to draw a hundred million takes seconds."""
    for name in (name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor.detach().zero_())


def built(name):
    """A network; the classifiers of the oldest have 256 units, not 4,096: 100 million weights fewer."""
    network = getattr(models, name)(weights=None, **OPTIONS.get(name, {}))
    if name.startswith(("vgg", "alexnet")):
        places = [place for place, layer in enumerate(network.classifier) if isinstance(layer, nn.Linear)]
        sizes = (network.classifier[places[0]].in_features, 256, 256, 1000)
        for place, ends in zip(places, pairwise(sizes), strict=True):
            network.classifier[place] = nn.Linear(*ends)
    return network


@pytest.mark.usefixtures("zeros")
@pytest.mark.parametrize("name", PERMUTATIONS)
def test_torchvision(name):
    network = built(name)
    symmetry = derive_symmetry(network, IMAGE)
    assert symmetry.without_rule == ()
    assert len(symmetry.permutations) >= PERMUTATIONS[name]
    assert prove_symmetry(network, symmetry, IMAGE) <= 1e-10


def resnet20_spec():
    """As `resnet20_permutation_spec` of Git Re-Basin: one permutation a group's stream, one inside every block."""

    def conv(name, p_in, p_out):
        return {f"{name}.weight": (p_out, p_in, None, None)}

    def norm(name, p):
        return {f"{name}.weight": (p,), f"{name}.bias": (p,)}

    spec = conv("conv1", None, "P_bg0") | norm("norm1", "P_bg0")
    for group, p_in in ((1, "P_bg0"), (2, "P_bg0"), (3, "P_bg1")):
        p_out = f"P_bg{group - 1}"
        for n in range(3):
            name, inner = f"blockgroup{group}.{n}", f"P_bg{group}_{n}"
            spec |= conv(f"{name}.conv1", p_out if n else p_in, inner) | norm(f"{name}.norm1", inner)
            spec |= conv(f"{name}.conv2", inner, p_out) | norm(f"{name}.norm2", p_out)
        if group > 1:
            shortcut = f"blockgroup{group}.0.shortcut"
            spec |= conv(f"{shortcut}.0", p_in, p_out) | norm(f"{shortcut}.1", p_out)
    return spec | {"dense.weight": (None, "P_bg2"), "dense.bias": (None,)}


def test_the_specification_of_resnet20_agrees_with_the_derived_one_and_a_forgotten_shortcut_is_found():
    network, images = ResNet20(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    by_hand, derived = symmetry_from_spec(resnet20_spec(), network.state_dict()), derive_symmetry(network, images)
    assert len(derived.permutations) == 12
    assert derived.agrees_with(by_hand)
    assert prove_symmetry(network, by_hand, images) <= 1e-10
    forgotten = resnet20_spec() | {"blockgroup2.0.shortcut.0.weight": ("P_bg1", None, None, None)}
    wrong = symmetry_from_spec(forgotten, network.state_dict())
    assert not derived.agrees_with(wrong)
    with pytest.raises(SymmetryRefutedError, match="because of P_bg0$"):
        prove_symmetry(network, wrong, images)
