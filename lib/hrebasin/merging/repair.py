"""What merging does to activations, and REPAIR (Jordan et al. 2023), which gives merged networks their spread back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..bank import Bank, check_finite
from ..checks import check_pixels
from ..random_streams import Seed
from .tree import align_tree, average_blocks

IMAGES_AT_ONCE = 1000
SMALLEST = 1e-6  # spreads below this belong to units that never change; they are only shifted


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of every unit's pre-activation over images.

    Attributes:
        mean, std: one (model, unit) float64 tensor for each affine layer, the last being the logits.
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
    total = square = None
    for values in pre_activations(bank, pixels):
        # shifted by the bias, which is near the mean: squares of small numbers lose less
        shifted = [v.double() - b for v, b in zip(values, _biases(bank), strict=True)]
        sums = [s.sum(1) for s in shifted], [s.square().sum(1) for s in shifted]
        total, square = sums if total is None else tuple(map(_add, (total, square), sums))
    n = len(pixels)
    mean = [t / n for t in total]
    std = [(s / n - m.square()).clamp(min=0).sqrt() for s, m in zip(square, mean, strict=True)]
    return Moments([m + b[:, 0] for m, b in zip(mean, _biases(bank), strict=True)], std)


def repair(bank: Bank, targets: Moments, pixels: torch.Tensor) -> Bank:
    """Rescale and shift every unit's pre-activation to the target moments, fused into weights and biases.

    Layer by layer from the input, so that a layer is measured behind repaired ones. A unit that does not change over
    the images is only shifted.

    Args:
        bank: merged networks; not changed.
        targets: moments that network k should have, usually the average of those of its aligned parents.
        pixels: training images (image, channel, y, x) to measure on.
    """
    tensors = {key: tensor.clone() for key, tensor in bank.tensors.items()}
    repaired = Bank(bank.architecture, tensors, bank.labels, bank.history)
    for position, layer in enumerate(bank.architecture.layers):
        now = moments(repaired, pixels)
        mean, std = now.mean[position], now.std[position]
        factor = torch.where(std > SMALLEST, targets.std[position] / std.clamp(min=SMALLEST), 1.0)
        weight, bias = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
        shifted = (bias.double() - mean) * factor + targets.mean[position]
        tensors[f"{layer}.weight"] = (weight.double() * factor[..., None]).to(weight)
        tensors[f"{layer}.bias"] = shifted.to(bias)
        repaired = Bank(bank.architecture, tensors, bank.labels, bank.history)
    return repaired


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
        merged, children = average_blocks(leaves, size), average_blocks(leaves, size // 2)
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
    """For each part of the images: (model, image, unit) of every affine layer."""
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


def _biases(bank: Bank) -> list[torch.Tensor]:
    """(model, 1, unit) float64 of every layer."""
    return [bank.tensors[f"{layer}.bias"].double()[:, None] for layer in bank.architecture.layers]


def _add(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[torch.Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]
