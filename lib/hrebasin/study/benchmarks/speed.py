"""How fast the library is beside what a user could run instead."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
import xarray as xr

from ...bank import Bank
from ...evaluation import accuracy
from ...images.sources import Images
from ...lipschitz.bounds import eclipse_fast, global_lipschitz
from ...matching.weights import match_weights
from ...merging.many import merge_many
from ...merging.tree import merge_tree
from ...networks import Architecture
from ...progress import track
from ...robustness.attacks import attack
from ...training.recipe import PRECISIONS, Recipe
from ...training.train import train
from . import baselines as alternatives

SIDES = ("hrebasin", "alternative")
EPSILONS = tuple(step / 1000 for step in range(21))


@dataclass(frozen=True)
class Row:
    """One comparison of the same work done twice.

    Attributes:
        title: what is done.
        alternative_title: with what else.
        ours, alternative: do it.
        difference: of what the two return, in ``difference_of``.
        goal: smallest ratio that we want.
    """

    title: str
    alternative_title: str
    ours: Callable[[], object]
    alternative: Callable[[], object]
    difference: Callable[[object, object], float]
    difference_of: str
    goal: float


def rows(
    bank: Bank,
    train_images: Images,
    test_images: Images,
    recipe: Recipe,
    *,
    precisions: Sequence[str] = PRECISIONS,
    workers: int = 0,
) -> dict[str, Row]:
    """The comparisons by name.

    Args:
        bank: 16 trained networks.
        train_images: for training as many networks as there are threads.
        test_images: for accuracies; the first 200 are attacked.
        recipe: of that training.
        precisions: of our products in training, a row each; the alternative's are float32.
        workers: processes of the alternative's ``DataLoader``.

    Raises:
        ValueError: a bank of another size.
    """
    if len(bank) != 16:
        raise ValueError(f"the benchmark compares on 16 networks, got {len(bank)}")
    first, second = bank.select(slice(0, None, 2)), bank.select(slice(1, None, 2))
    eight = bank.select(slice(0, 8))
    whole_tree = Bank.concat(merge_tree(bank))
    pixels, labels = test_images.pixels[:200].float() / 255, test_images.labels[:200]
    seeds_trained = range(torch.get_num_threads())

    def points(ours: Bank, other: Bank) -> float:
        return 100 * abs(float(accuracy(ours, test_images).mean() - accuracy(other, test_images).mean()))

    def robust(kind: str) -> Row:
        name = "robust_accuracy" if kind == "fgsm" else "robust_accuracy_clipped"
        return Row(
            f"{'FGSM' if kind == 'fgsm' else 'DeepFool'}, 8 networks, {len(pixels)} images",
            "Foolbox, one network at a time",
            lambda: attack(eight, pixels, labels, kind=kind, epsilons=EPSILONS),
            lambda: alternatives.attack(eight, pixels, labels, kind=kind, epsilons=EPSILONS),
            lambda ours, broken: len(pixels) * float(abs(ours[name].values - (1 - broken.mean(2))).max()),
            "images, the largest over networks and sizes",
            1.3,
        )

    def training(precision: str) -> Row:
        return Row(
            f"training, {len(seeds_trained)} networks, {recipe.epochs} x {len(train_images):,} images, {precision}",
            "DataLoader and torchvision transforms, float32",
            lambda: train(bank.architecture, train_images, seeds_trained, replace(recipe, precision=precision)),
            lambda: Bank.concat(
                alternatives.train(bank.architecture, train_images, recipe, seed=seed, workers=workers)
                for seed in seeds_trained
            ),
            points,
            "points of mean test accuracy after training",
            6,
        )

    return {
        **{f"training-{precision}": training(precision) for precision in precisions},
        "matching": matching(
            "weight matching of 8 pairs", "every layer in every sweep, one pair at a time", first, second, 4
        ),
        "merge-many": Row(
            "MergeMany of 8 to convergence",
            "the package rebasin",
            lambda: merge_many(eight),
            lambda: alternatives.merge_many(eight),
            points,
            "points of test accuracy",
            10,
        ),
        "tree": Row(
            "tree of 16",
            "pairs merged one by one, matched as above",
            lambda: merge_tree(bank)[-1],
            lambda: alternatives.merge_tree(bank),
            points,
            "points of test accuracy",
            4,
        ),
        "fgsm": robust("fgsm"),
        "deepfool": robust("deepfool-linf"),
        "lipschitz": Row(
            f"Lipschitz bounds of {len(whole_tree)} networks",
            "NumPy, one network at a time",
            lambda: np.stack([f(whole_tree, units="normalised").values for f in (global_lipschitz, eclipse_fast)], 1),
            lambda: alternatives.lipschitz(whole_tree),
            lambda ours, other: 100 * float(abs(ours / other - 1).max()),
            "% of the bound, the largest",
            2,
        ),
    }


def matching(title: str, alternative_title: str, first: Bank, second: Bank, goal: float) -> Row:
    """Weight matching of pairs of networks beside public code's."""
    seeds = [f"pair-{k}" for k in range(len(first))]

    def alternative() -> list[dict[str, torch.Tensor]]:
        given = ((first.select([k]), second.select([k]), seed) for k, seed in enumerate(seeds))
        return [alternatives.match_weights(a, b, seed=seed) for a, b, seed in given]

    return Row(
        title,
        alternative_title,
        lambda: match_weights(first, second, seed=seeds),
        alternative,
        lambda ours, perms: alternatives.excess(first, second, ours, perms),
        "% of the objective, the alternative's above ours, mean",
        goal,
    )


def compare(rows: Mapping[str, Row], *, repeats: int = 3) -> xr.Dataset:
    """Time both sides of each row in turns.

    Returns:
        ``seconds`` (row, side, repeat), ``ratio`` (row,) of the medians with ``ratio_low`` and ``ratio_high`` (row,),
        the extremes over repeats, ``difference`` (row,) of the results, and the rows' ``goal``.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    seconds = np.empty((len(rows), 2, repeats))
    difference = np.empty(len(rows))
    for position, row in enumerate(track(rows.values(), label="benchmarks", unit="row")):
        for repeat in range(repeats):
            results = []
            for side, work in enumerate((row.ours, row.alternative)):
                start = time.perf_counter()
                results.append(work())
                seconds[position, side, repeat] = time.perf_counter() - start
        difference[position] = row.difference(*results)
    ours, other = seconds[:, 0], seconds[:, 1]
    each = other / ours
    by_row = {
        "ratio": (np.median(other, 1) / np.median(ours, 1), "alternative's median time over ours"),
        "ratio_low": (each.min(1), "smallest ratio of a repeat"),
        "ratio_high": (each.max(1), "largest ratio of a repeat"),
        "difference": (difference, "difference of the results"),
        "goal": (np.array([row.goal for row in rows.values()], dtype=float), "ratio to reach"),
    }
    names = {
        "title": [row.title for row in rows.values()],
        "alternative": [row.alternative_title for row in rows.values()],
        "difference_of": [row.difference_of for row in rows.values()],
    }
    variables = {"seconds": (("row", "side", "repeat"), seconds, {"long_name": "wall time", "units": "s"})}
    variables |= {name: ("row", values, _about(text)) for name, (values, text) in by_row.items()}
    coords = {name: ("row", np.array(values, dtype=object), _about(name)) for name, values in names.items()}
    coords |= {
        "row": ("row", np.array(list(rows), dtype=object), _about("comparison")),
        "side": ("side", np.array(SIDES, dtype=object), _about("side")),
        "repeat": ("repeat", np.arange(repeats), _about("repeat")),
    }
    return xr.Dataset(variables, coords=coords)


def _about(long_name: str, units: str = "1") -> dict:
    return {"long_name": long_name, "units": units}


def product_rate(precision: str = "float32", *, repeats: int = 50) -> float:
    """The machine's sustained matrix-product rate, FLOP/s: the median over repeats, for the faster of two shapes."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    rates = []
    for m, k, n in ((512, 3072, 512), (2048, 2048, 2048)):
        a, b, seconds = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), []
        for _ in range(repeats):
            start = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - start)
        rates.append(2 * m * k * n / np.median(seconds))
    return float(max(rates))


def with_rates(comparison: xr.Dataset, architecture: Architecture, n_images: int) -> xr.Dataset:
    """Adds ``rate`` and ``share`` (row,) to the rows of training, NaN elsewhere.

    ``rate`` are the operations of the products a second, GFLOP/s, and ``share`` their share of `product_rate` in the
    same precision.

    Args:
        comparison: as `compare` gives it.
        architecture: of the networks.
        n_images: of all epochs of all networks together.
    """
    rate, share = np.full((2, comparison.sizes["row"]), np.nan)
    for position, name in enumerate(comparison.row.values):
        kind, _, precision = str(name).partition("-")
        if kind == "training":
            seconds = float(comparison.seconds[position].sel(side="hrebasin").median())
            rate[position] = training_operations(architecture, n_images) / seconds
            share[position] = rate[position] / product_rate(precision)
    return comparison.assign(
        rate=("row", rate / 1e9, _about("products of training", "GFLOP/s")),
        share=("row", share, _about("share of the machine's sustained product rate in the same precision")),
    )


def training_operations(architecture: Architecture, n_images: int) -> int:
    """Floating-point operations of the products of training on so many images: forward, and gradients but that of the
    first input."""
    first, *rest = (fan_in * fan_out for fan_in, fan_out in pairwise(architecture.units))
    return 2 * n_images * (2 * first + 3 * sum(rest))
