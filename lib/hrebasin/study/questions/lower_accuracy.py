"""Networks that are as inaccurate as merged ones but were not merged: is a merged network robust, or only worse?"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.path import interpolate
from ...networks import Architecture, scaled
from ...progress import track
from ...random_streams import generator
from ...robustness.attacks import along, attack
from ...robustness.strong import fgsm
from ...training.recipe import Recipe
from ...training.train import DivergedError, train

FAMILIES = ("stopped", "narrow", "noised", "line")
LEVELS = np.linspace(0, 1.5, 31)  # of weight noise, in standard deviations of a layer's weights
LAMBDAS = np.linspace(0, 0.5, 26)  # from a network to its naive average with another


def stopped(images: Images, seeds: Sequence[int], recipe: Recipe, architecture: Architecture, epochs) -> list[Bank]:
    """Networks whose training ended early, a bank for each number of ``epochs`` that the recipe has, method
    ``stopped``."""
    label, some = "early-stopped networks", [n for n in epochs if n <= recipe.epochs]
    banks = [train(architecture, images, seeds, recipe, stop_after=n, label=f"{label}, {n} epochs") for n in some]
    return [bank.relabel(method="stopped") for bank in banks]


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


def study(
    trees: Bank,
    train_set: Images,
    test_set: Images,
    recipe: Recipe,
    *,
    epochs: Sequence[int],
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
        trees: trees with their leaves.
        train_set: what the leaves were trained on.
        test_set: images to be accurate on; the first ``attacked`` are attacked.
        recipe: of the leaves.
        epochs: numbers of epochs after which training is stopped.
        shares: of the leaves' widths, for narrow networks.
        seeds: early-stopped and narrow networks for each of these; the seeds of the first leaves.
        epsilons: of FGSM and L-infinity DeepFool, pixel range.
        device: where to train and attack.
    """
    parts, few = [], test_set.first(attacked)
    for group in dict.fromkeys(trees.labels["group"].tolist()):
        members = replace(trees.where(group=group, method=["unmerged", "tree"]), history=None)
        leaves = members.where(method="unmerged")
        given = train_set, leaves.labels["seed"][:seeds].tolist(), recipe, members.architecture
        candidates = {
            "stopped": stopped(*given, epochs),
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
    both = {"fgsm": fgsm(*given, epsilons=epsilons) == 1, "deepfool-linf": withstands}
    robust = along(both, "attack")
    return xr.Dataset({"robust": robust, "norm": minimal.perturbation_norm, "correct": minimal.correct == 1})


def _compare(found: xr.Dataset, accuracy: xr.DataArray) -> xr.Dataset:
    """Robust accuracy on all images and on those that others classify correctly too."""
    correct = found.correct
    stage, method = found.stage.values, np.where(found.method == "unmerged", "tree", found.method)
    same_stage = _common(correct, lambda k: stage == stage[k])
    same_method = _common(correct, lambda k: method == method[k])
    median = found.norm.where(same_stage).median("image")
    columns = {
        "test_accuracy": (accuracy, "accuracy", "1"),
        "robust_accuracy": (found.robust.mean("image"), "accuracy under attack", "1"),
        "robust_at_stage": (
            _share(found.robust, same_stage),
            "share still right of images that all networks of the stage classify correctly",
            "1",
        ),
        "robust_at_method": (
            _share(found.robust, same_method),
            "share still right of images that all stages of the method classify correctly",
            "1",
        ),
        "median_perturbation": (median, "median L-infinity DeepFool norm on the images of the stage", "pixel range"),
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


def _share(robust: xr.DataArray, common: xr.DataArray) -> xr.DataArray:
    """Mean over common images; not a number where there are none."""
    return robust.where(common).mean("image")
