"""The study's networks beside MLPs: a small convolutional one with batch norm, a small residual one with layer norm."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from .architectures import RECIPE, NetworkArchitecture
from .networks import Architecture, Normalize, scaled
from .random_streams import generator


class Recognised(nn.Sequential):
    """A network that a file can name: its recipe makes it anew, see `build`."""

    def __init__(self, modules: Mapping[str, nn.Module], recipe: Mapping):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        setattr(self, RECIPE, dict(recipe))


class Residual(nn.Module):
    """x plus two convolutions of x, each behind layer norm over channels and space, and ReLU (He et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x):
        """Add the branch."""
        return x + self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())


def convolutional(
    channels: Sequence[int] = (16, 32, 64),
    *,
    n_classes: int = 10,
    image_shape: Sequence[int] = (3, 32, 32),
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Recognised:
    """Convolutions of 3 x 3 that halve the image, each with batch norm and ReLU, the mean over space, a linear layer.

    Args:
        channels: of each convolution.
        n_classes: number of logits.
        image_shape: (channel, y, x).
        mean, std: per-channel normalisation in pixel units, pixels in [0, 1].
    """
    modules: dict[str, nn.Module] = {"normalize": Normalize(mean, std)}
    before = image_shape[0]
    for number, width in enumerate(channels, start=1):
        modules[f"conv{number}"] = nn.Conv2d(before, width, 3, padding=1, stride=2, bias=False)
        modules[f"norm{number}"], modules[f"relu{number}"] = nn.BatchNorm2d(width), nn.ReLU()
        before = width
    modules |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(before, n_classes)}
    return Recognised(modules, _recipe("convolutional", channels, n_classes, image_shape, mean, std))


def residual(
    channels: Sequence[int] = (16, 32, 64),
    *,
    n_classes: int = 10,
    image_shape: Sequence[int] = (3, 32, 32),
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Recognised:
    """For each width a convolution that halves the image, and a `Residual` block; then as above.

    Arguments as those of `convolutional`.
    """
    modules: dict[str, nn.Module] = {"normalize": Normalize(mean, std)}
    before = image_shape[0]
    for number, width in enumerate(channels, start=1):
        modules[f"conv{number}"] = nn.Conv2d(before, width, 3, padding=1, stride=2)
        modules[f"block{number}"], before = Residual(width), width
    modules |= {"norm": nn.GroupNorm(1, before), "relu": nn.ReLU()}
    modules |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(before, n_classes)}
    return Recognised(modules, _recipe("residual", channels, n_classes, image_shape, mean, std))


KINDS = {"convolutional": convolutional, "residual": residual}


def _recipe(kind: str, channels, n_classes: int, image_shape, mean, std) -> dict:
    lists = {"channels": channels, "image_shape": image_shape, "mean": mean, "std": std}
    return {"kind": kind, "n_classes": n_classes} | {name: list(values) for name, values in lists.items()}


def build(recipe: Mapping) -> Recognised:
    """The network of a recipe, with weights that PyTorch draws.

    Raises:
        ValueError: a recipe of another kind or with other options.
    """
    options = {name: value for name, value in recipe.items() if name != "kind"}
    try:
        return KINDS[recipe["kind"]](**options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no network can be built from {dict(recipe)}; kinds are {list(KINDS)}") from error


def architecture_of(
    kind: str,
    widths: Sequence[int],
    *,
    n_classes: int,
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Architecture | NetworkArchitecture:
    """The architecture of the study's networks: "mlp", or a kind of `build`.

    Args:
        kind: of the network.
        widths: units of an MLP's hidden layers, channels of the others' convolutions.
        n_classes, image_shape, mean, std: as of `convolutional`.
    """
    given = {"n_classes": n_classes, "image_shape": tuple(image_shape), "mean": tuple(mean), "std": tuple(std)}
    if kind == "mlp":
        return Architecture(tuple(widths), **given)
    network = build({"kind": kind, "channels": widths} | given)
    return NetworkArchitecture.of(network, torch.rand(2, *image_shape, generator=generator("example")))


def narrowed(architecture: Architecture | NetworkArchitecture, share: float) -> Architecture | NetworkArchitecture:
    """The same kind of network with a share of the units or channels of every hidden layer, at least one.

    Raises:
        ValueError: networks that are none of the study's own.
    """
    if isinstance(architecture, Architecture):
        return replace(architecture, widths=scaled(architecture.widths, share))
    if not architecture.recipe:
        raise ValueError(f"{architecture.title} has no widths that are known")
    options = dict(architecture.recipe)
    return architecture_of(options.pop("kind"), scaled(options.pop("channels"), share), **options)
