"""Does the recipe decide? Recipes of training and widths: under which of them does merging do what the paper says?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.ablations import lines, pairs_of
from ...merging.distances import CONVERGENCE
from ...merging.many import merge_many_sets
from ...merging.tree import merge_tree
from ...networks import Architecture, scaled
from ...random_streams import Seed
from ...robustness.attacks import robust_accuracies
from ...training.recipe import Recipe
from ...training.train import train
from ..figures.captions import captioned
from ..figures.style import COLOURS, COLUMN, MARKERS, NAMES, draw_legend, spoken, spread
from ..groups import (
    PERCENT,
    POINTS,
    NotMeasuredError,
    by_group,
    count_groups,
    differences,
    large,
    minus,
    tree,
    tree_stages,
)
from ..statistics import Test, defined
from .wording import amount, recipe_in_words, signed, within

TITLE = "Does the training recipe change the result?"
SCHEMA = {
    "model": "test_accuracy train_accuracy",
    "model attack epsilon": "robust_accuracy",
    "model alignment": "loss_barrier accuracy_barrier",
}
LEARNING_RATES = {"adam": 1e-3, "sgd": 0.05}
WEIGHT_DECAY = 5e-4
CROP_PADDING = 4  # pixels, with a random flip


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: what it changes.
        recipe: of training.
        widths: of the hidden layers.
        train_images: how many at most, the first ones; 0: all.
    """

    name: str
    recipe: Recipe
    widths: tuple[int, ...]
    train_images: int


def variants(
    recipe: Recipe, widths: Sequence[int], *, train_images: int, factors: Sequence[float], width_images: int
) -> list[Variant]:
    """Both optimizers with and without crop and flip and with and without weight decay; then widths.

    >>> found = variants(Recipe(), (512, 512, 256), train_images=10_000, factors=[0.5], width_images=4_000)
    >>> [each.name for each in found][1:4], found[-1].name, found[-1].widths
    (['adam, decay', 'adam, crop-flip', 'adam, crop-flip, decay'], 'width x 0.5', (256, 256, 128))

    Args:
        recipe: what they do not change.
        widths: of the hidden layers.
        train_images: of the recipes; 0: all.
        factors: of all hidden widths, with ``recipe`` as it is.
        width_images: training images of these.
    """
    made = []
    for (optimizer, rate), augmented, decay in product(LEARNING_RATES.items(), (False, True), (False, True)):
        name = ", ".join([optimizer, *["crop-flip"] * augmented, *["decay"] * decay])
        changes = {"optimizer": optimizer, "learning_rate": rate, "weight_decay": WEIGHT_DECAY * decay}
        changes |= {"crop_padding": CROP_PADDING * augmented, "flip": augmented}
        made.append(Variant(name, replace(recipe, **changes), tuple(widths), train_images))
    for factor in factors:
        made.append(Variant(f"width x {factor:g}", recipe, scaled(widths, factor), width_images))
    return made


def measure(
    variant: Variant,
    train_set: Images,
    test_set: Images,
    *,
    group: int,
    leaves: int,
    epsilons: Sequence[float],
    attacked: int,
    seed: Seed = 0,
    device: str = "cpu",
    checkpoints: Path | None = None,
) -> xr.Dataset:
    """Train one group, merge it by the tree and by converged MergeMany, attack it: a data set of stage ``recipes``.

    Args:
        variant: how to train.
        train_set: its first images are trained on.
        test_set: images to be accurate on; the first ``attacked`` are attacked.
        group: number of the tree; its networks have the seeds from ``group * leaves`` on.
        leaves: networks of the group, a power of two; MergeMany merges all and the first half.
        epsilons: of FGSM and L-infinity DeepFool, pixel range.
        attacked: test images.
        seed: of the orders of matching.
        device: where to train and measure.
        checkpoints: see `hrebasin.training.train`.
    """
    images = train_set.first(min(variant.train_images, len(train_set)) or len(train_set))
    architecture = Architecture(variant.widths, len(images.classes), images.shape, *images.statistics())
    seeds = [group * leaves + leaf for leaf in range(leaves)]
    options = {"device": device, "checkpoints": checkpoints, "label": variant.name}
    bank = train(architecture, images, seeds, variant.recipe, **options).relabel(group=group)
    stages = merge_tree(bank, seed=seed)
    sets = [bank.select(slice(size)) for size in (leaves // 2, leaves) if size > 1]
    many = merge_many_sets(sets, limits=[CONVERGENCE], seeds=[seed] * len(sets))
    everything = Bank.concat([replace(each, history=None) for each in (*stages, *many)])
    few = test_set.first(attacked)
    columns = {
        "test_accuracy": evaluate(everything, test_set, device=device).accuracy,
        "train_accuracy": evaluate(everything, images, device=device).accuracy,
        "robust_accuracy": robust_accuracies(everything, few.pixels, few.labels, epsilons=epsilons, device=device),
    }
    record = xr.Dataset(columns | _barriers(bank, everything, few, seed, device), attrs={})
    names = [f"{variant.name}/{name}" for name in record.model.values]
    recipe = np.full(len(everything), variant.name, dtype=object)
    coords = {
        "model": ("model", np.array(names, dtype=object), record.model.attrs),
        "recipe": ("model", recipe, {"long_name": "recipe of training or width", "units": "1"}),
    }
    return record.assign_coords(coords)


def _barriers(bank: Bank, everything: Bank, images: Images, seed: Seed, device: str) -> dict[str, xr.DataArray]:
    """Barriers between the two leaves of each first merge, (model, alignment); not a number for other networks."""
    pairs = pairs_of(bank, len(bank) // 2)  # neighbours, as in the tree
    found = lines(*pairs, {"test": images}, np.linspace(0, 1, 11), seed=seed, device=device)
    found = found.sel(split="test", drop=True)
    merged = (everything.labels["method"] == "tree") & (everything.labels["stage"] == 1)
    columns = {}
    for name in ("loss_barrier", "accuracy_barrier"):
        values = np.full((len(everything), found.sizes["alignment"]), np.nan)
        values[merged] = found[name].transpose("pair", "alignment").values
        about = {"long_name": f"{name.replace('_', ' ')} between the children", "units": found[name].attrs["units"]}
        columns[name] = everything.array(values, ("model", "alignment"), name=name, alignment=found.alignment, **about)
    return columns


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """What the tree gains and loses under each recipe, and what crop and flip change of it."""
    tests, gains = [], {}  # attack -> recipe -> gain of each group
    for recipe, part in _by_recipe(data).items():
        words, stages, accuracy = recipe_in_words(recipe), tree_stages(part), part.test_accuracy
        top = stages[-1]
        tests.append(defined(f"{words}: accuracy of unmerged networks", tree(accuracy, 0).values * PERCENT, "%"))
        lost = differences(tree(accuracy, 0), tree(accuracy, top)) * PERCENT
        tests.append(defined(f"{words}: accuracy of stage 0 minus stage {top}", lost, POINTS))
        for size in (2**stage for stage in stages[1:]):
            try:
                many = by_group(accuracy, method="merge-many", n_merged=size)
            except NotMeasuredError:
                continue
            first = accuracy.isel(model=(accuracy.node == 0).values)  # of the leaves that MergeMany had
            values = differences(by_group(first, method="tree", n_merged=size), many) * PERCENT
            tests.append(defined(f"{words}: tree minus converged MergeMany, {size} models", values, POINTS))
        for name, alignment in product(("loss_barrier", "accuracy_barrier"), part.alignment.values):
            scale, units = (1, "nat") if name == "loss_barrier" else (PERCENT, POINTS)
            values = by_group(part[name].sel(alignment=alignment), method="tree", stage=1) * scale
            tests.append(defined(f"{words}: {name.replace('_', ' ')} {alignment} matching", values.values, units))
        for kind in part.attack.values:
            robust = large(part.robust_accuracy.sel(attack=kind))
            gain = differences(tree(robust, top), tree(robust, 0)) * PERCENT
            tests.append(defined(f"{words}: {spoken(kind)}, strong: stage {top} minus stage 0", gain, POINTS))
            gains.setdefault(kind, {})[recipe] = gain
    changes = [_augmentation(kind, gain, top) for kind, gain in gains.items()]
    changes = [change for change in changes if change is not None]
    return tests + changes, _told(changes, gains, top) + _few_images(data)


def _by_recipe(data: xr.Dataset) -> dict[str, xr.Dataset]:
    """The networks of each recipe."""
    names = dict.fromkeys(data.recipe.values.tolist())
    return {name: data.isel(model=(data.recipe == name).values) for name in names}


def _augmentation(kind: str, gain: Mapping[str, np.ndarray], top: int) -> Test | None:
    """What crop and flip change of the robustness gained, mean over the recipes with and without them."""
    pairs = [(gain[name], gain[name.replace(", crop-flip", "")]) for name in gain if ", crop-flip" in name]
    if not pairs:
        return None
    change = np.mean([augmented - plain for augmented, plain in pairs], axis=0)
    return defined(f"{spoken(kind)}, strong: what crop and flip change of the gain at stage {top}", change, POINTS)


def _told(changes: list[Test], gains: Mapping[str, Mapping[str, np.ndarray]], top: int) -> str:
    """Whether crop and flip change what merging gains, then how far the gain ranges over recipes and widths."""
    if not changes:
        return "Not resolved: networks were trained under one kind of recipe."
    by_kind = sorted(zip(gains, changes, strict=True), key=lambda pair: not pair[1].sign)  # what is resolved first
    said, gain = [], f"what networks gain from merging {2**top}"
    for kind, change in by_kind:
        what = "the gain" if said else gain
        if change.sign:
            moved, spread = "raise" if change.sign > 0 else "lower", within(change, mirrored=change.sign < 0)
            text = f"Crop and flip {moved} {what} under strong {spoken(kind)} by {amount(change)} {spread}."
        else:
            text = f"What crop and flip change of {what} under strong {spoken(kind)} is not resolved: {signed(change)}."
        said.append(text if said else f"{'Yes' if change.sign else 'Not resolved'}. {text}")
        means = {recipe: values.mean() for recipe, values in gains[kind].items()}
        low, high = min(means, key=means.get), max(means, key=means.get)
        said.append(f"The smallest gain under {spoken(kind)} is {means[low]:.1f} points ({recipe_in_words(low)}).")
        said.append(f"The largest is {means[high]:.1f} points ({recipe_in_words(high)}).")
    return " ".join(said)


def _few_images(data: xr.Dataset) -> str:
    """On how many images the networks were trained, in words, where the data set says it."""
    parameters = json.loads(data.attrs.get("parameters", "{}"))
    numbers = [parameters.get(name) for name in ("recipe_images", "width_images")]
    if not all(numbers):
        return ""
    return " These networks were trained on {:,} images, those of other widths on {:,}.".format(*numbers)


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    top = tree_stages(data)[-1]
    robust = [large(part.robust_accuracy.sel(attack="fgsm")) for part in _by_recipe(data).values()]
    gains = [Test("gain", minus(tree(of, top), tree(of, 0)), "1") for of in robust]
    more = sum(gain.sign > 0 for gain in gains)
    return f"Merging gains robustness to strong FGSM in {more} of {len(gains)} recipes and widths."


@captioned(
    "Recipes of training above, widths below. Left: accuracy of the last stage of the tree minus that of converged "
    "MergeMany of the same networks. Right: robust accuracy at epsilons from 0.015 to 0.02 of the last stage minus "
    "that of unmerged networks.",
    seen=_seen,
)
def draw(data: xr.Dataset) -> Figure:
    """The tree minus converged MergeMany, and what robustness the tree gains; recipes apart from widths."""
    parts, top = _by_recipe(data), tree_stages(data)[-1]
    blocks = [[name for name in parts if name.startswith("width") == wide] for wide in (False, True)]
    blocks = [block for block in blocks if block]
    figure = Figure((COLUMN, (28 + 7 * len(parts) + 8 * len(blocks)) / 25.4))
    grid = figure.subplots(
        len(blocks), 2, squeeze=False, sharex="col", sharey="row", height_ratios=[len(block) + 1 for block in blocks]
    )
    for (left, right), block in zip(grid, blocks, strict=True):
        rows = [parts[name] for name in block]
        sides = [[by_group(row.test_accuracy, method=way, stage=top) for way in ("tree", "merge-many")] for row in rows]
        ahead = [minus(*pair) for pair in sides]
        _draw_rows(left, block, ahead, "accuracy", color=COLOURS["tree"], marker="o")
        for position, kind in enumerate(data.attack.values):
            robust = [large(row.robust_accuracy.sel(attack=kind)) for row in rows]
            gain = [minus(tree(values, top), tree(values, 0)) for values in robust]
            look = {"color": (COLOURS["merge-many"], COLOURS["l2"])[position % 2], "marker": MARKERS[1 + position % 6]}
            _draw_rows(right, block, gain, NAMES.get(kind, kind), shift=0.2 * (position - 0.5), **look)
    grid[0, 0].set_title(f"tree minus\nMergeMany of {2**top}")
    grid[0, 1].set_title(f"stage {top} minus 0,\nstrong attacks")
    for axes in grid[-1]:
        axes.set_xlabel("difference\n(percentage points)")
    return draw_legend(figure, count_groups(data), columns=1)


def _draw_rows(axes, names: list[str], parts: list[np.ndarray], label: str, *, shift: float = 0, **look) -> None:
    """Means over groups with their spread, a row per recipe."""
    places = np.arange(len(names))[::-1] + shift
    for place, part in zip(places, parts, strict=True):
        if len(part) > 1:
            axes.hlines(place, *(PERCENT * end for end in spread(part)), color=look["color"], linewidth=1.4)
    axes.plot([part.mean() * PERCENT for part in parts], places, label=label, linestyle="none", markersize=4, **look)
    axes.axvline(0, color="#000000", linewidth=0.6)
    axes.set_yticks(np.arange(len(names))[::-1], names)
