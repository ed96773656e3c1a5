"""Robustness or lower accuracy? Merged networks beside others that are as inaccurate but were not merged."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.path import interpolate
from ...networks import Architecture, scaled
from ...progress import track
from ...random_streams import generator
from ...robustness.attacks import along, attack
from ...training.recipe import Recipe
from ...training.run import DivergedError
from ...training.train import train
from ..figures.style import COLOURS, NAMES, captioned, draw_legend, draw_points, label_stages, shape, stacked
from ..groups import PERCENT, POINTS, NotMeasuredError, by_group, count_groups, large, minus, tree_stages
from ..statistics import Test, not_resolved

TITLE = "Robustness or lower accuracy?"
SCHEMA = {
    "model": "test_accuracy median_perturbation common_images",
    "model attack epsilon": "robust_accuracy robust_at_stage robust_at_method",
}
FAMILIES = {  # of networks that were not merged
    "stopped": "early-stopped networks",
    "narrow": "narrower networks",
    "noised": "networks with noise on their weights",
    "line": "points on the way to a naive average",
}
CURVES = {
    "tree": ("merged, tree", COLOURS["tree"]),
    "stopped": ("training stopped early", COLOURS["merge-many"]),
    "narrow": ("fewer units", COLOURS["l2"]),
    "noised": ("noise on the weights", COLOURS["naive"]),
    "line": ("towards a naive average", COLOURS["unmerged"]),
}
LEVELS = np.linspace(0, 1.5, 31)  # of weight noise, in standard deviations of a layer's weights
LAMBDAS = np.linspace(0, 0.5, 26)  # from a network to its naive average with another


def narrow(images: Images, seeds: Sequence[int], recipe: Recipe, architecture: Architecture, shares) -> list[Bank]:
    """Networks of fewer units, fully trained, a bank a share of all hidden widths, method ``narrow``.

    Widths at which a network learns nothing, which can happen to very narrow ones, are left out with a warning.
    """
    banks = []
    for share in shares:
        widths = scaled(architecture.widths, share)
        given = replace(architecture, widths=widths), images, seeds, recipe
        try:
            banks.append(train(*given, label=f"narrow networks, {'-'.join(map(str, widths))}").relabel(method="narrow"))
        except DivergedError as error:
            warnings.warn(f"widths {widths} are left out: {error}", stacklevel=2)
    if not banks:
        raise ValueError(f"no narrow network learned anything with shares {list(shares)} of the widths")
    return banks


def noised(network: Bank, levels: Sequence[float] = LEVELS) -> Bank:
    """One network with Gaussian noise on its weights, a copy for each level in standard deviations of each layer's
    weights, method ``noised``.

    All levels take the same draw, from the stream ``weight-noise/<seed>/<tensor>``.
    """
    if len(network) != 1:
        raise ValueError(f"noise is put on one network, got {len(network)}")
    seed, tensors = network.labels["seed"][0], {}
    for name, tensor in network.tensors.items():
        tensors[name] = tensor.repeat(len(levels), *[1] * (tensor.ndim - 1))
        if name.endswith(".weight"):
            draw = torch.randn(tensor.shape[1:], generator=generator(f"weight-noise/{seed}/{name}"))
            steps = torch.as_tensor(np.asarray(levels), dtype=tensor.dtype).view(-1, 1, 1)
            tensors[name] += (steps * draw * tensor.cpu().std()).to(tensor)
    return Bank(network.architecture, tensors, {"seed": seed, "method": "noised", "group": network.labels["group"][0]})


def line(first: Bank, second: Bank) -> Bank:
    """Points from a network towards its naive average with another, method ``line``."""
    return Bank.concat(interpolate(first, second, LAMBDAS)).relabel(method="line")


def measure(
    trees: Bank,
    train_set: Images,
    test_set: Images,
    recipe: Recipe,
    *,
    shares: Sequence[float],
    seeds: int,
    attacked: int,
    epsilons: Sequence[float],
    device: str = "cpu",
) -> xr.Dataset:
    """The first node of every stage of a tree beside unmerged networks of its accuracy: a data set of stage
    ``controls``.

    Of every family the candidate that comes nearest to the node's test accuracy is attacked. Stage 0 of each method is
    the first leaf itself, as method ``unmerged`` for the tree.

    Args:
        trees: trees with their leaves and early-stopped networks.
        train_set: what the leaves were trained on.
        test_set: images to be accurate on; the first ``attacked`` are attacked.
        recipe: of the leaves.
        shares: of the leaves' widths, for narrow networks.
        seeds: narrow networks for each of these; the seeds of the first leaves.
        epsilons: of FGSM and L-infinity DeepFool, pixel range.
        device: where to train and attack.
    """
    parts, few = [], test_set.first(attacked)
    for group in dict.fromkeys(trees.labels["group"].tolist()):
        members = replace(trees.where(group=group, method=["unmerged", "tree"]), history=None)
        leaves = members.where(method="unmerged")
        given = train_set, leaves.labels["seed"][:seeds].tolist(), recipe, members.architecture
        candidates = {
            "stopped": [trees.where(group=group, method="stopped")],
            "narrow": narrow(*given, shares),
            "noised": [noised(leaves.select([k])) for k in range(min(seeds, len(leaves)))],
            "line": [line(leaves.select([0]), leaves.select([k])) for k in range(1, min(seeds + 1, len(leaves)))],
        }
        nodes = members.where(node=0)
        wanted, banks = evaluate(nodes, test_set, device=device).accuracy.values, [nodes]
        for family, some in candidates.items():
            banks += [nodes.where(stage=0).relabel(method=family), *_nearest(nodes, wanted, some, test_set)]
        banks = [bank.relabel(group=group, node=0) for bank in banks]
        each = [_attacked(bank, few, epsilons, device) for bank in track(banks, label="controls", unit="bank")]
        accuracy = xr.concat([evaluate(bank, test_set, device=device).accuracy for bank in banks], dim="model")
        parts.append(_compare(xr.concat(each, dim="model", combine_attrs="override"), accuracy))
    return xr.concat(parts, dim="model", combine_attrs="override").drop_attrs(deep=False)


def _nearest(nodes: Bank, wanted: np.ndarray, banks: list[Bank], images: Images) -> list[Bank]:
    """For each stage after 0 a bank of the one candidate whose accuracy is nearest to that wanted for its node."""
    found = [evaluate(bank, images).accuracy.values for bank in banks]
    chosen = []
    for stage, accuracy in zip(nodes.labels["stage"].tolist(), wanted, strict=True):
        if not stage:
            continue
        distance = [np.abs(each - accuracy) for each in found]
        bank = int(np.argmin([each.min() for each in distance]))
        best = banks[bank].select([int(distance[bank].argmin())])
        chosen.append(replace(best, history=None).relabel(stage=stage))
    return chosen


def _attacked(bank: Bank, images: Images, epsilons: Sequence[float], device: str) -> xr.Dataset:
    """``robust`` (model, attack, epsilon, image) and ``norm`` (model, image) of L-infinity DeepFool."""
    given = bank.to(device), images.pixels, images.labels
    minimal = attack(*given, kind="deepfool-linf", epsilons=epsilons, device=device)
    sizes = minimal.robust_accuracy.epsilon
    withstands = (minimal.correct == 1) & ((minimal.success == 0) | (minimal.perturbation_norm > sizes))
    both = {
        "fgsm": attack(*given, kind="fgsm", epsilons=epsilons, device=device).robust == 1,
        "deepfool-linf": withstands,
    }
    robust = along(both, "attack")
    return xr.Dataset({"robust": robust, "norm": minimal.perturbation_norm, "correct": minimal.correct == 1})


def _compare(found: xr.Dataset, accuracy: xr.DataArray) -> xr.Dataset:
    """Robust accuracy on all images and on those that others classify correctly too."""
    stage, method = found.stage.values, np.where(found.method == "unmerged", "tree", found.method)
    same_stage = _common(found.correct, lambda k: stage == stage[k])
    same_method = _common(found.correct, lambda k: method == method[k])
    right = "share still right of images that all {} classify correctly"
    columns = {
        "test_accuracy": (accuracy, "accuracy", "1"),
        "robust_accuracy": (found.robust.mean("image"), "accuracy under attack", "1"),
        # means over the common images: not a number where there are none
        "robust_at_stage": (found.robust.where(same_stage).mean("image"), right.format("networks of the stage"), "1"),
        "robust_at_method": (found.robust.where(same_method).mean("image"), right.format("stages of the method"), "1"),
        "median_perturbation": (
            found.norm.where(same_stage).median("image"),
            "median L-infinity DeepFool norm on the images of the stage",
            "pixel range",
        ),
        "common_images": (
            same_stage.sum("image"),
            "images that all networks of the stage classify correctly",
            "images",
        ),
    }
    columns = {
        name: values.transpose("model", ...).assign_attrs(long_name=text, units=units)
        for name, (values, text, units) in columns.items()
    }
    return xr.Dataset(columns).drop_vars("image", errors="ignore")


def _common(correct: xr.DataArray, alike: Callable[[int], np.ndarray]) -> xr.DataArray:
    """For each network the images that all networks alike classify correctly, (model, image)."""
    return correct.copy(data=np.stack([correct.values[alike(k)].all(0) for k in range(correct.sizes["model"])]))


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """Differences between the tree and each family, at the nearest accuracy and over the stages."""
    families = [name for name in FAMILIES if name in data.method.values]
    stages, tests, against, gaps = tree_stages(data), [], {}, {}
    top = stages[-1]
    for stage, family in product(stages[1:], families):
        pair = {"method": "tree", "stage": stage}, {"method": family, "stage": stage}
        about = f"stage {stage} minus {FAMILIES[family]}"
        gap = minus(*(by_group(data.test_accuracy, **labels) for labels in pair)) * PERCENT
        gaps[family] = Test(f"accuracy: {about}", gap, POINTS)  # in the end those of the last stage are left
        tests.append(gaps[family])
        for kind in data.attack.values:
            robust = large(data.robust_at_stage.sel(attack=kind))
            found = _difference(f"{kind}, strong, at the nearest accuracy: {about}", robust, *pair)
            if found and (kind, stage) == ("fgsm", top):
                [against[family]] = found
            tests += found
        tests += _difference(f"median perturbation: {about}", data.median_perturbation, *pair, units="pixel range")
    for family, kind in product(("tree", *families), data.attack.values):
        first = {"method": "unmerged" if family == "tree" else family, "stage": 0}
        about = f"on images that all stages get right: stage {top} minus 0, {FAMILIES.get(family, family)}"
        robust = large(data.robust_at_method.sel(attack=kind))
        tests += _difference(f"{kind}, strong, {about}", robust, {"method": family, "stage": top}, first)
    words = ", ".join(
        f"{_points(test.effect)} than {FAMILIES[family]} ({_points(-gaps[family].effect)} accurate)"
        for family, test in against.items()
    )
    return tests, (
        f"beside unmerged networks of each kind that come nearest to it in accuracy, stage {top} keeps under strong "
        f"FGSM, of images that all classify correctly, {words}; "
        f"{not_resolved({FAMILIES[family]: test for family, test in against.items()})}"
    )


def _difference(name: str, values: xr.DataArray, first: dict, second: dict, units: str = POINTS) -> list[Test]:
    """First minus second; no test where there is no image that all classify correctly."""
    try:
        difference = minus(by_group(values, **first), by_group(values, **second))
    except NotMeasuredError:
        return []
    return [Test(name, difference * PERCENT if units == POINTS else difference, units)]


def _points(difference: float) -> str:
    return f"{abs(difference):.1f} points {'more' if difference > 0 else 'less'}"


@captioned(
    "Merged networks beside unmerged ones, of each kind those nearest in test accuracy (how near: answers.nc), by "
    "stage of the tree: the share of images that stay right under strong attacks, of those that all networks of the "
    "stage classify correctly, and the median perturbation that DeepFool needs on the same images."
)
def draw(data: xr.Dataset) -> Figure:
    """What withstands strong attacks, merged networks beside unmerged ones nearest in accuracy, by stage."""
    kinds, stages = list(data.attack.values), tree_stages(data)[1:]
    figure, panels = stacked(len(kinds) + 1)
    shown = [(large(data.robust_at_stage.sel(attack=kind)) * PERCENT, NAMES.get(kind, kind)) for kind in kinds]
    shown.append((data.median_perturbation, "DeepFool, median of the minimal norms"))
    for axes, (values, title) in zip(panels, shown, strict=True):
        for position, (method, (label, colour)) in enumerate(CURVES.items()):
            parts = {stage: by_group(values, method=method, stage=stage).values for stage in stages}
            parts = {stage: part[np.isfinite(part)] for stage, part in parts.items() if np.isfinite(part).any()}
            if parts:
                where = np.array(list(parts)) + 0.08 * (position - 2)
                draw_points(axes, where, list(parts.values()), label, color=colour, **shape(position))
        axes.set(title=title, ylabel="still right at epsilon\n0.015 to 0.02 (%)")
    label_stages(panels[-1], stages, "median perturbation\n(pixel range)")
    return draw_legend(figure, count_groups(data), columns=2)
