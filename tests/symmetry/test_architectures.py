"""Networks that others wrote: torchvision's, small, and the residual network of Git Re-Basin with its specification."""

import pytest
import torch
from torchvision import models
from torchvision.models import convnext, mobilenetv3, resnet

from hrebasin.study.benchmarks.any_network import ResNet20
from hrebasin.symmetry import SymmetryRefutedError, derive_symmetry, prove_symmetry, symmetry_from_spec


def mobilenet_v3():
    block = mobilenetv3.InvertedResidualConfig
    return models.MobileNetV3(
        [block(16, 3, 16, 16, True, "RE", 2, 1, 1), block(16, 5, 32, 16, True, "HS", 1, 1, 1)], 32
    )


NETWORKS = {  # what makes one, and how many permutations it has
    "ResNeXt": (lambda: models.ResNet(resnet.Bottleneck, [1] * 4, groups=4, width_per_group=4), 17),
    "DenseNet": (lambda: models.DenseNet(8, (2, 2), 16), 10),
    "MobileNetV3": (mobilenet_v3, 7),
    "ShuffleNet": (lambda: models.ShuffleNetV2([2, 2, 2], [8, 16, 16, 16, 32]), 14),
    "ConvNeXt": (lambda: models.ConvNeXt([convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]), 4),
    "ViT": (lambda: models.VisionTransformer(64, 32, 2, 2, 12, 16), 7),
    "Swin": (lambda: models.SwinTransformer([4, 4], 12, [2, 2], [2, 4], [4, 4]), 14),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvision(name):
    make, permutations = NETWORKS[name]
    network, image = make(), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    symmetry = derive_symmetry(network, image)
    assert symmetry.without_rule == ()
    assert len(symmetry.permutations) == permutations
    assert prove_symmetry(network, symmetry, image) <= 1e-10


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
