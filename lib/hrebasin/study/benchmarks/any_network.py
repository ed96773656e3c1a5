"""Weight matching of ResNet20 and VGG16 beside public code with a specification; deriving and proving ResNet50."""

import time

import torch
import xarray as xr
from torch import nn

from ...architectures import NetworkArchitecture
from ...bank import Bank
from ...evaluation import accuracy
from ...images.sources import Images
from ...matching.weights import match_weights
from ...merging.batch_norm import measure_batch_norm
from ...merging.tree import merge_pairs
from ...random_streams import generator
from ...small_networks import architecture_of
from ...symmetry import derive_symmetry, prove_symmetry
from ...training.recipe import Recipe
from ...training.run import initial_bank
from ...training.train import train
from . import baselines
from .speed import Row, matching

VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")

NOISE = 0.02  # of a planted copy: standard deviation, relative to that of each parameter


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(1, n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(1, n_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False))
            self.shortcut.append(nn.GroupNorm(1, n_out))

    def forward(self, x):
        """Add both ways."""
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


class ResNet20(nn.Module):
    """The CIFAR-10 network of Ainsworth et al. 2023: three groups of three blocks, layer norm over whole images."""

    def __init__(self, wide: int = 1):
        super().__init__()
        widths = [16 * wide, 32 * wide, 64 * wide]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(1, widths[0])
        for group, (n_in, n_out) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
            blocks = [Block(n_in if k == 0 else n_out, n_out, 2 if group and k == 0 else 1) for k in range(3)]
            self.add_module(f"blockgroup{group + 1}", nn.Sequential(*blocks))
        self.dense = nn.Linear(widths[-1], 10)

    def forward(self, x):
        """Logits."""
        x = self.norm1(self.conv1(x)).relu()
        x = self.blockgroup3(self.blockgroup2(self.blockgroup1(x)))
        return self.dense(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def vgg16(scale: float) -> nn.Sequential:
    """VGG16 for images of 32 x 32, with one linear layer behind its thirteen convolutions; widths times ``scale``."""
    modules, before = [], 3
    for entry in VGG16:
        if entry == "pool":
            modules.append(nn.MaxPool2d(2))
            continue
        width = max(1, round(scale * entry))
        modules += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(before, 10))


def rows(*, pairs: int = 2, small: bool = False) -> dict[str, Row]:
    """Matching of untrained networks, which takes as long as that of trained ones; two rows for each architecture.

    Args:
        pairs: of each architecture beside the public procedure; beside the package ``rebasin``, which takes a minute
            for VGG16, there is one.
        small: widths of a quarter, for tests.
    """
    networks = {
        "resnet20": ("ResNet20, four times as wide", ResNet20(1 if small else 4)),
        "vgg16": ("VGG16", vgg16(0.25 if small else 1)),
    }
    found = {}
    for name, (title, network) in networks.items():
        bank = initial_bank(NetworkArchitecture.of(network, torch.zeros(2, 3, 32, 32)), range(2 * pairs))
        first, second = bank.select(slice(0, None, 2)), bank.select(slice(1, None, 2))
        way = "every permutation in every sweep, one pair at a time"
        found[name] = matching(f"weight matching of {pairs} pairs of {title}", way, first, second, 5)
        found[f"{name}-rebasin"] = _beside_rebasin(title, first.select([0]), second.select([0]))
    return found


def _beside_rebasin(title: str, first: Bank, second: Bank) -> Row:
    return Row(
        f"weight matching of {len(first)} pair of {title}",
        "the package rebasin",
        lambda: match_weights(first, second),
        lambda: baselines.rebasin(first, second),
        lambda ours, aligned: baselines.excess_of(first, aligned, ours),
        "% of the objective, the alternative's above ours",
        10,
    )


def beside_mlps(train_images: Images, test_images: Images, *, small: bool = False) -> xr.Dataset:
    """What `derivation_seconds` and `planted_loss` measure, as scalars.

    Args:
        train_images, test_images: as of `planted_loss`.
        small: a smaller image and a shorter training, for tests.
    """
    derived, proven = derivation_seconds(64 if small else 224)
    lost = planted_loss(train_images, test_images, Recipe(batch_size=64, epochs=2 if small else 10))
    copied = "accuracy lost by a merge with a permuted, noisy copy"
    return xr.Dataset(
        {
            "derivation_seconds": ((), derived, {"long_name": "deriving the symmetry of ResNet50", "units": "s"}),
            "proving_seconds": ((), proven, {"long_name": "proving the symmetry of ResNet50", "units": "s"}),
            "planted_loss": ((), lost, {"long_name": copied, "units": "percentage points"}),
        }
    )


def planted_loss(train_images: Images, test_images: Images, recipe: Recipe) -> float:
    """Points of test accuracy that a trained convolutional network loses by a merge with its own permuted, noisy copy.

    Args:
        train_images: to train on, and to measure batch norm on.
        test_images: to be accurate on.
        recipe: of training.
    """
    mean, std = train_images.statistics()
    shape = {"n_classes": len(train_images.classes), "image_shape": train_images.shape, "mean": mean, "std": std}
    bank = train(architecture_of("convolutional", (32, 64, 128), **shape), train_images, [0], recipe)
    symmetry, stream = bank.architecture.symmetry, generator("planted")
    planted = {name: perm[None] for name, perm in symmetry.random_permutations(stream).items()}
    moved = symmetry.apply(bank.tensors, planted)
    for name in bank.architecture.parameters:
        moved[name] = moved[name] + NOISE * moved[name].std() * torch.randn(moved[name].shape, generator=stream)
    copy = Bank(bank.architecture, moved, bank.labels)
    merged = merge_pairs(Bank.concat([bank, copy]), pixels=train_images.pixels)
    before = measure_batch_norm(bank, train_images.pixels)
    return 100 * float((accuracy(before, test_images).values - accuracy(merged, test_images).values)[0])


def derivation_seconds(image_size: int) -> tuple[float, float]:
    """Wall time, in seconds, of deriving and of proving torchvision's ResNet50 on one image."""
    from torchvision.models import resnet50

    network, example = resnet50(), torch.rand(1, 3, image_size, image_size)
    start = time.perf_counter()
    symmetry = derive_symmetry(network, example)
    derived = time.perf_counter()
    prove_symmetry(network, symmetry, example)
    return derived - start, time.perf_counter() - derived
