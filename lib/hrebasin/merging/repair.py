"""What merging does to activations, and REPAIR (Jordan et al. 2023), which gives merged networks their spread back."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..bank import Bank, check_finite
from ..checks import check_bank, check_inputs, check_pixels, check_relu_mlp, is_relu_mlp
from ..random_streams import Seed
from ..resources import plain_torch
from .activations import layer_moments, layers_called, layers_never_called
from .batch_norm import measure_batch_norm
from .tree import align_tree, average_blocks

IMAGES_AT_ONCE = 1000
SMALLEST = 1e-6  # spreads below this belong to units that never change; they are only shifted


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of every unit's pre-activation over images, and over space behind a convolution.

    Attributes:
        mean, std: one (model, unit) float64 tensor for each linear or convolution layer, in the order of their calls;
            the last of an MLP is the logits.
    """

    mean: list[torch.Tensor]
    std: list[torch.Tensor]

    def average(self, members: Sequence[Sequence[int]]) -> "Moments":
        """Means of both over the given networks, one row for each of ``members``."""
        mean, std = (
            [torch.stack([layer[list(some)].mean(0) for some in members]) for layer in layers]
            for layers in (self.mean, self.std)
        )
        return Moments(mean, std)


def moments(bank: Bank, pixels: torch.Tensor) -> Moments:
    """Moments of all pre-activations of a bank over images (image, channel, y, x)."""
    if not is_relu_mlp(bank.architecture):
        check_inputs(bank.architecture, pixels)
        check_finite(bank, "activations")
        return Moments(*layer_moments(bank, pixels))
    # (model, 1, unit): shifted by the bias, which is near the mean, squares are of small numbers and lose less
    biases = [bank.tensors[bias].double()[:, None] for _, bias in bank.architecture.layers.values()]
    sums, n = [0.0] * len(biases), len(pixels)
    for values in pre_activations(bank, pixels):
        shifted = (v.double() - b for v, b in zip(values, biases, strict=True))
        sums = [known + torch.stack([s.sum(1), s.square().sum(1)]) for known, s in zip(sums, shifted, strict=True)]
    mean = [total / n for total, _ in sums]
    std = [(square / n - m.square()).clamp(min=0).sqrt() for (_, square), m in zip(sums, mean, strict=True)]
    return Moments([m + b[:, 0] for m, b in zip(mean, biases, strict=True)], std)


@plain_torch()
def repair(bank: Bank, targets: Moments, pixels: torch.Tensor) -> Bank:
    """Rescale and shift every unit's pre-activation to the target moments, fused into weights and biases.

    Layer by layer from the input, so that a layer is measured behind repaired ones. A unit that does not change over
    the images is only shifted. A layer whose outputs go into batch norm is left to it: running statistics measured anew
    do the same there. So is, with a warning, a layer that has no bias of its own to shift.

    Args:
        bank: merged networks; not changed.
        targets: moments that network k should have, usually the average of those of its aligned parents.
        pixels: training images (image, channel, y, x) to measure on, of other networks than MLPs as they take them.
    """
    check_bank(bank)
    repaired = measure_batch_norm(bank, pixels)
    for position, layer in _to_repair(bank, pixels).items():
        now = moments(repaired, pixels)
        mean, std = now.mean[position], now.std[position]
        factor = torch.where(std > SMALLEST, targets.std[position] / std.clamp(min=SMALLEST), 1.0)
        weight, bias = repaired.tensors[f"{layer}.weight"], repaired.tensors[f"{layer}.bias"]
        shifted = (bias.double() - mean) * factor + targets.mean[position]
        scaled = weight.double() * factor.view(*factor.shape, *[1] * (weight.ndim - 2))
        changed = {f"{layer}.weight": scaled.to(weight), f"{layer}.bias": shifted.to(bias)}
        repaired = Bank(bank.architecture, repaired.tensors | changed, bank.labels, bank.history)
        repaired = measure_batch_norm(repaired, pixels)  # of the layers behind
    return repaired


def _to_repair(bank: Bank, pixels: torch.Tensor) -> dict[int, str]:
    """Place among `Moments` -> name of the layers that can be repaired; a warning names what cannot."""
    architecture = bank.architecture
    if is_relu_mlp(architecture):
        return dict(enumerate(architecture.layers))
    called = layers_called(architecture, pixels[:2].to("cpu"))
    places = {place: layer.name for place, layer in enumerate(called) if not layer.normalised}
    own = set(bank.tensors) - _tied(architecture.template)
    to_repair = {place: name for place, name in places.items() if {f"{name}.weight", f"{name}.bias"} <= own}
    left = [name for place, name in places.items() if place not in to_repair]
    if left := left + layers_never_called(architecture, called):
        warnings.warn(
            f"REPAIR leaves {', '.join(left)} as they are: it needs layers that are called by themselves and have a "
            "weight and a bias of their own",
            stacklevel=4,
        )
    return to_repair


def _tied(network: torch.nn.Module) -> set[str]:
    """Names of parameters that have several."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    counts = Counter(parameters.values())
    return {name for name, parameter in parameters.items() if counts[parameter] > 1}


def repaired_tree(bank: Bank, pixels: torch.Tensor, *, seed: Seed = 0) -> Bank:
    """A tree with and without REPAIR at every stage: unmerged networks and nodes, named by their method.

    ``tree`` is not repaired. ``repair-children`` and ``repair-leaves`` are its nodes with the average moments of their
    two aligned children or of all their aligned leaves. ``repair-along`` repairs every node with its children's moments
    before it is merged further.

    Args:
        bank: 2**k unmerged networks of one group.
        pixels: training images (image, channel, y, x).
        seed: of the layer orders.
    """
    found, along, stages = [bank], bank, align_tree(bank, seed=seed)
    for stage, leaves in enumerate(stages[1:], start=1):
        size = 2**stage
        merged = measure_batch_norm(average_blocks(leaves, size), pixels)
        children = leaves if size == 2 else measure_batch_norm(average_blocks(leaves, size // 2), pixels)
        pairs = [(k, k + 1) for k in range(0, len(children), 2)]
        of_children = moments(children, pixels).average(pairs)
        of_leaves = moments(leaves, pixels).average([range(k, k + size) for k in range(0, len(leaves), size)])
        found += [merged, repair(merged, of_children, pixels).relabel(method="repair-children")]
        found.append(repair(merged, of_leaves, pixels).relabel(method="repair-leaves"))
        aligned = Bank.concat(
            [align_tree(along.select(pair), seed=f"{seed}/along/{stage}/{pair[0]}")[1] for pair in pairs]
        )
        along = repair(average_blocks(aligned, 2), moments(aligned, pixels).average(pairs), pixels)
        found.append(along.relabel(method="repair-along"))
    return Bank.concat(found)


@torch.no_grad()  # as a decorator: two generators that take turns would leave one another's mode behind
def pre_activations(bank: Bank, pixels: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """For each part of the images: (model, image, unit) of every affine layer of ReLU MLPs."""
    check_relu_mlp(bank.architecture, "pre-activations layer by layer")
    check_pixels(bank.architecture, pixels)
    check_finite(bank, "activations")
    for part in pixels.split(IMAGES_AT_ONCE):
        x = bank.architecture.prepare(part.to(bank.device)).expand(len(bank), -1, -1)
        values = []
        for layer in bank.architecture.layers:
            bias = bank.tensors[f"{layer}.bias"][:, None]
            values.append(torch.baddbmm(bias, x, bank.tensors[f"{layer}.weight"].mT))
            x = values[-1].relu()
        yield values
