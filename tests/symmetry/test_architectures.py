"""Networks that others wrote: torchvision's, and the residual network of Git Re-Basin with its specification."""

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
    "vit_b_32": 37,
    "swin_t": 40,
}
OPTIONS = {
    # heads that only training uses would take no part
    "googlenet": {"aux_logits": False, "init_weights": False},
    "vit_b_32": {"image_size": 64},
}
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def vgg(name):
    """VGG with 256 units instead of 4,096 in its classifier, which would hold 100 million weights."""
    with torch.device("meta"):
        network = getattr(models, name)(weights=None)
        network.classifier[0], network.classifier[3] = nn.Linear(512 * 49, 256), nn.Linear(256, 256)
        network.classifier[6] = nn.Linear(256, 1000)
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()  # a proof draws its own
    return network


@pytest.mark.parametrize("name", PERMUTATIONS)
def test_torchvision(name):
    network = vgg(name) if name.startswith("vgg") else getattr(models, name)(weights=None, **OPTIONS.get(name, {}))
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

    def block(name, p_in, p_inner, p_out):
        return {
            **conv(f"{name}.conv1", p_in, p_inner),
            **norm(f"{name}.norm1", p_inner),
            **conv(f"{name}.conv2", p_inner, p_out),
            **norm(f"{name}.norm2", p_out),
        }

    def shortcut(name, p_in, p_out):
        return {**conv(f"{name}.shortcut.0", p_in, p_out), **norm(f"{name}.shortcut.1", p_out)}

    return {
        **conv("conv1", None, "P_bg0"),
        **norm("norm1", "P_bg0"),
        **{k: v for n in range(3) for k, v in block(f"blockgroup1.{n}", "P_bg0", f"P_bg1_{n}", "P_bg0").items()},
        **block("blockgroup2.0", "P_bg0", "P_bg2_0", "P_bg1"),
        **shortcut("blockgroup2.0", "P_bg0", "P_bg1"),
        **{k: v for n in (1, 2) for k, v in block(f"blockgroup2.{n}", "P_bg1", f"P_bg2_{n}", "P_bg1").items()},
        **block("blockgroup3.0", "P_bg1", "P_bg3_0", "P_bg2"),
        **shortcut("blockgroup3.0", "P_bg1", "P_bg2"),
        **{k: v for n in (1, 2) for k, v in block(f"blockgroup3.{n}", "P_bg2", f"P_bg3_{n}", "P_bg2").items()},
        "dense.weight": (None, "P_bg2"),
        "dense.bias": (None,),
    }


class TestResNet20:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def test_the_specification_by_hand_agrees_with_the_derived_one(self):
        network = ResNet20()
        by_hand = symmetry_from_spec(resnet20_spec(), network.state_dict())
        derived = derive_symmetry(network, self.images)
        assert len(derived.permutations) == 12
        assert derived.agrees_with(by_hand)
        assert prove_symmetry(network, by_hand, self.images) <= 1e-10

    def test_a_shortcut_that_is_forgotten_is_found(self):
        network = ResNet20()
        spec = resnet20_spec() | {"blockgroup2.0.shortcut.0.weight": ("P_bg1", None, None, None)}
        wrong = symmetry_from_spec(spec, network.state_dict())
        assert not derive_symmetry(network, self.images).agrees_with(wrong)
        with pytest.raises(SymmetryRefutedError, match="because of P_bg0$"):
            prove_symmetry(network, wrong, self.images)
