"""What merging does to activations, and REPAIR (Jordan et al. 2023), which gives merged networks their spread back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xarray as xr

from ..bank import Bank, check_finite, check_same_architecture
from ..checks import check_pixels
from ..evaluation import evaluate
from ..images.sources import Images
from ..random_streams import Seed
from ..robustness.attacks import robust_accuracies
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
    for values in _pre_activations(bank, pixels):
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


def study(
    bank: Bank, pixels: torch.Tensor, images: Images, *, attacked: int, epsilons: Sequence[float], seed: Seed = 0
) -> xr.Dataset:
    """Accuracy, robustness and activations of trees with and without REPAIR: a data set of stage ``repair``.

    Args:
        bank: unmerged networks of some groups.
        pixels: training images to measure activations on, (image, channel, y, x).
        images: test images; the first ``attacked`` are attacked.
        epsilons: of FGSM and L-infinity DeepFool.
        seed: of the layer orders.
    """
    parts = []
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = bank.where(group=group)
        everything, stages = repaired_tree(members, pixels, seed=seed), align_tree(members, seed=seed)
        few = images.first(attacked)
        robust = robust_accuracies(everything, few.pixels, few.labels, epsilons=epsilons)
        activations = []
        for stage in dict.fromkeys(everything.labels["stage"].tolist()):
            for method in dict.fromkeys(everything.labels["method"].tolist()):
                chosen = (everything.labels["stage"] == stage) & (everything.labels["method"] == method)
                if chosen.any():
                    some = everything.select(chosen)
                    under = [range(k * 2**stage, (k + 1) * 2**stage) for k in range(len(some))]
                    given = (some, stages[stage], under, pixels)
                    activations.append(xr.merge([variance_ratio(*given), feature_distance(*given)], compat="identical"))
        scores = evaluate(everything, images).rename(accuracy="test_accuracy", loss="test_loss")
        layers = xr.concat(activations, dim="model").sel(model=scores.model)
        parts.append(xr.merge([scores, robust, layers], compat="identical", combine_attrs="override"))
    return xr.concat(parts, dim="model", combine_attrs="override").drop_attrs(deep=False)


def variance_ratio(bank: Bank, parents: Bank, members: Sequence[Sequence[int]], pixels: torch.Tensor) -> xr.DataArray:
    """Variance of pre-activations, summed over units, over the mean of that of the parents, (model, layer).

    Below 1 where variance has collapsed.

    Args:
        bank: merged networks.
        parents: networks that they were merged from; need not be aligned, because units are summed over.
        members: positions in ``parents`` for each network of ``bank``.
        pixels: images (image, channel, y, x).
    """
    own, theirs = (moments(each, pixels).std for each in (bank, parents))
    ratios = [
        a.square().sum(1) / torch.stack([b[list(some)].square().sum(1).mean() for some in members])
        for a, b in zip(own, theirs, strict=True)
    ]
    return _by_layer(bank, ratios, "variance_ratio", "variance of pre-activations over that of the parents")


def feature_distance(bank: Bank, parents: Bank, members: Sequence[Sequence[int]], pixels: torch.Tensor) -> xr.DataArray:
    """1 - cosine between a merged network's features and the mean of its parents' (Zhou et al. 2023), (model, layer).

    Features are post-activations, of the last layer logits; the mean is over images. Zero where the layerwise linear
    feature connectivity holds.

    Args:
        bank, members, pixels: as in `variance_ratio`.
        parents: aligned with the merged networks.
    """
    check_same_architecture(bank, parents)
    layers, total = len(bank.architecture.layers), 0
    for own, theirs in zip(_pre_activations(bank, pixels), _pre_activations(parents, pixels), strict=True):
        columns = []
        for number in range(layers):
            a, b = (v[number] if number == layers - 1 else v[number].relu() for v in (own, theirs))
            mean = torch.stack([b[list(some)].mean(0) for some in members])
            columns.append((1 - torch.nn.functional.cosine_similarity(a, mean, dim=-1)).double().sum(1))
        total = total + torch.stack(columns)
    return _by_layer(bank, list(total / len(pixels)), "feature_distance", "1 - cosine of features to the parents' mean")


def _by_layer(bank: Bank, columns: list[torch.Tensor], name: str, long_name: str) -> xr.DataArray:
    axis = xr.Variable("layer", list(bank.architecture.layers), {"long_name": "affine layer", "units": "1"})
    values = torch.stack(columns, 1)
    return bank.array(values, ("model", "layer"), name=name, long_name=long_name, units="1", layer=axis)


@torch.no_grad()  # as a decorator: two generators that take turns would leave one another's mode behind
def _pre_activations(bank: Bank, pixels: torch.Tensor):
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
