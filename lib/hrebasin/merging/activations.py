"""What linear and convolution layers of any network give on images, seen by forward hooks."""

from typing import NamedTuple

import torch

from ..architectures import NetworkArchitecture
from ..bank import Bank
from ..matching.activations import IMAGES_AT_ONCE, hooked, layers_of
from ..resources import side_by_side


class Layer(NamedTuple):
    """A linear or convolution layer of a network.

    Attributes:
        name: of its module.
        axis: of its outputs that holds the units.
        normalised: whether its outputs go into batch norm.
    """

    name: str
    axis: int
    normalised: bool


def layers_called(architecture: NetworkArchitecture, pixels: torch.Tensor) -> list[Layer]:
    """The layers of a network in the order in which it first calls them; those that it never calls are left out.

    Args:
        architecture: of the network.
        pixels: a few images.
    """
    network, given = architecture.network({}).float(), architecture.prepare(pixels)
    axes, norms = layers_of(network), {network.get_submodule(name) for name in architecture.batch_norms}
    outputs, normalised = {}, set()  # outputs are kept, so that no other tensor takes their place in memory

    def see(module, inputs, output):
        if module in norms:
            normalised.update(name for name, seen in outputs.items() if any(each is inputs[0] for each in seen))
        else:
            outputs.setdefault(names[module], []).append(output)

    names = {network.get_submodule(name): name for name in axes}
    with torch.no_grad(), hooked([*names, *norms], see):
        network(given)
    return [Layer(name, axes[name], name in normalised) for name in outputs]


def layers_never_called(architecture: NetworkArchitecture, called: list[Layer]) -> list[str]:
    """Names of layers whose weights others use, such as the projection of `torch.nn.MultiheadAttention`."""
    return sorted(set(layers_of(architecture.template)) - {layer.name for layer in called})


def layer_moments(bank: Bank, pixels: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Mean and standard deviation of every unit of every layer over images and space, (model, unit) float64 each.

    Args:
        bank: networks that are no MLPs.
        pixels: (image, ...) as the networks take them.
    """
    layers = layers_called(bank.architecture, pixels[:2].to("cpu"))

    def measured(model: int) -> dict[str, torch.Tensor]:
        network, sums = bank[model].to(bank.device, torch.float32), {}
        modules = {network.get_submodule(layer.name): layer for layer in layers}

        def add(module, _inputs, output):
            name, axis, _ = modules[module]
            values = output.movedim(axis, 0).flatten(1).double()
            n = torch.full_like(values[:, 0], values.shape[1])
            sums[name] = sums.get(name, 0) + torch.stack([n, values.sum(1), values.square().sum(1)])

        with torch.no_grad(), hooked(modules, add):
            for part in pixels.split(IMAGES_AT_ONCE):
                network(bank.architecture.prepare(part.to(bank.device)))
        return sums

    found = side_by_side(measured, range(len(bank)))
    totals = [torch.stack([sums[layer.name] for sums in found], dim=1) for layer in layers]
    mean = [total / n for n, total, _ in totals]
    std = [(square / n - m.square()).clamp(min=0).sqrt() for (n, _, square), m in zip(totals, mean, strict=True)]
    return mean, std
