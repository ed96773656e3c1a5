"""Recipes of training and widths: under which of them does merging do what the paper says?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.distances import CONVERGENCE
from ...merging.many import merge_many_sets
from ...merging.pairs import lines, pairs_of
from ...merging.tree import merge_tree
from ...networks import Architecture, scaled
from ...random_streams import Seed
from ...robustness.attacks import robust_accuracies
from ...training.recipe import Recipe
from ...training.train import train

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


def study(
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
    found = lines(*pairs, {"test": images}, np.linspace(0, 1, 11), seed=seed, device=device).sel(
        split="test", drop=True
    )
    merged = (everything.labels["method"] == "tree") & (everything.labels["stage"] == 1)
    columns = {}
    for name in ("loss_barrier", "accuracy_barrier"):
        values = np.full((len(everything), found.sizes["alignment"]), np.nan)
        values[merged] = found[name].transpose("pair", "alignment").values
        about = {"long_name": f"{name.replace('_', ' ')} between the children", "units": found[name].attrs["units"]}
        columns[name] = everything.array(values, ("model", "alignment"), name=name, alignment=found.alignment, **about)
    return columns
