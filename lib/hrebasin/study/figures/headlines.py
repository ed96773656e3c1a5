"""What the paper's figures show, each in a sentence from its data set: their titles. Empty where data tell nothing."""

from collections.abc import Callable
from functools import wraps

import numpy as np
import xarray as xr

from ...merging.distances import CONVERGENCE
from ..groups import (
    PERCENT,
    NotMeasuredError,
    by_group,
    first_fall,
    has_numbers,
    minus,
    on_same_leaves,
    tree,
    tree_stages,
)


def _or_nothing(sentence: Callable[[xr.Dataset], str]) -> Callable[[xr.Dataset], str]:
    """An empty sentence where the data set does not hold what it is about."""

    @wraps(sentence)
    def tell(data: xr.Dataset) -> str:
        try:
            return sentence(data)
        except NotMeasuredError:
            return ""

    return tell


@_or_nothing
def accuracy(merge: xr.Dataset) -> str:
    """Whether the tree or MergeMany is ahead, after the fewest sweeps and when converged."""
    limits = sorted({int(limit) for limit in merge.sweeps.values} - {0})
    sizes = [n for n in np.unique(merge.n_merged.values).tolist() if n > 2]  # of two, both are the pair merge
    if not limits or not sizes:
        return ""
    names = {1: "MergeMany after one sweep", CONVERGENCE: "converged MergeMany"}
    told = [f"{_place(merge, sizes, limit)} {names[limit]}" for limit in limits if limit in names]
    return f"The tree is {' and '.join(told)}." if told else ""


def _place(merge: xr.Dataset, sizes: list[int], limit: int) -> str:
    ahead = []
    for n in sizes:
        sides = {"method": "tree", "n_merged": n}, {"method": "merge-many", "n_merged": n, "sweeps": limit}
        ahead.append(minus(*on_same_leaves(merge.test_accuracy, *sides)).mean() > 0)
    return (
        "more accurate than" if all(ahead) else "not always more accurate than" if any(ahead) else "less accurate than"
    )


@_or_nothing
def attacks(attack: xr.Dataset) -> str:
    """Which of the unmerged networks and the last stage leads at first, and where FGSM's curves cross."""
    top = tree_stages(attack)[-1]
    robust = attack.robust_accuracy.isel(attack=0)
    ahead = (tree(robust, 0) - tree(robust, top)).mean("group").values
    size, found = attack.epsilon.values, first_fall(attack.epsilon.values, ahead)
    if found is None:
        leader = "Unmerged networks are" if ahead.mean() > 0 else f"Stage {top} is"
        return f"{leader} the more robust at every size of the attack."
    place = size[found[0]] + found[1] * (size[found[0] + 1] - size[found[0]])
    return f"Unmerged networks lead under weak attacks, stage {top} from {place:.3f} on."


@_or_nothing
def norms(regularity: xr.Dataset) -> str:
    """Whether the norm falls at every stage, and how its last step compares with the first."""
    norm = regularity.weight_norm.sum("layer").rename("weight norm")
    means = np.array([tree(norm, stage).mean().item() for stage in tree_stages(norm)])
    steps = -np.diff(means)
    if not (steps > 0).all():
        return "The weight norm does not fall at every stage."
    return f"The weight norm falls at every stage; the last step is {steps[-1] / steps[0]:.2f} times the first."


@_or_nothing
def bounds(regularity: xr.Dataset) -> str:
    """Whether bounds fall at every stage, and whether the lower bound does."""
    stages = tree_stages(regularity)
    series = [regularity.lipschitz.sel(bound=bound) for bound in regularity.bound.values]
    series = [values for values in series if has_numbers(values)]
    falls = [_falls(values, stages) for values in series]
    lower = _falls(regularity.gradient_norm.max("image"), stages)
    if not series:
        return f"The lower bound {'falls' if lower else 'does not fall'} at every stage."
    first = "All upper bounds fall at every stage" if all(falls) else "Not all upper bounds fall at every stage"
    return f"{first}, the lower bound {'does' if lower else 'does not'}{' too' if lower and all(falls) else ''}."


def _falls(values: xr.DataArray, stages: list[int]) -> bool:
    means = [tree(values, stage).mean().item() for stage in stages]
    return bool((np.diff(means) < 0).all())


@_or_nothing
def lines(ablations: xr.Dataset) -> str:
    """How much accuracy is lost half-way between two networks, matched and not."""
    test = ablations.accuracy.sel(split="test").sortby("lambda")
    ends = test.isel({"lambda": [0, -1]}).mean("lambda")
    lost = (ends - test.interp({"lambda": 0.5})).rename("accuracy") * PERCENT
    after, before = (by_group(lost.sel(alignment=a)).mean().item() for a in ("after", "before"))
    return (
        f"Half-way between two networks {after:.1f} points of accuracy are lost after matching, {before:.1f} without."
    )


@_or_nothing
def noise(attack: xr.Dataset) -> str:
    """How accurate and how steady the last stage is under the largest noise, beside stage 0."""
    top, noisy = tree_stages(attack)[-1], attack.noise_accuracy.mean("draw").isel(noise=0)
    largest = noisy.isel(magnitude=-1)
    share = (largest / noisy.sel(magnitude=0)).rename("noise_accuracy")
    accurate, steady = (minus(tree(values, top), tree(values, 0)).mean() > 0 for values in (largest, share))
    first = f"Under noise stage {top} is {'more' if accurate else 'less'} accurate than unmerged networks"
    return f"{first} and keeps {'more' if steady else 'less'} of its accuracy."
