"""What the paper's figures show, each in a sentence from its data set: their titles.

Which side is ahead follows from 95 % intervals over groups; where one holds zero, the sentence says "not resolved".
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ...merging.distances import CONVERGENCE
from ..contrasts import STRONG, WEAK, between, noise_difference, robust_difference
from ..groups import (
    PERCENT,
    POINTS,
    by_group,
    crossing,
    finite,
    has_numbers,
    minus,
    of_stage,
    on_same_leaves,
    steps,
    tree,
    tree_and_many,
    tree_stages,
)
from ..statistics import Test, by_sign

PLACES = {1: "more accurate than", -1: "less accurate than", 0: "not resolved from"}


def accuracy(merge: xr.Dataset) -> str:
    """Whether the tree or MergeMany is ahead, after the fewest sweeps and when converged."""
    limits = sorted({int(limit) for limit in merge.sweeps.values} - {0})
    sizes = [n for n in np.unique(merge.n_merged.values).tolist() if n > 2]  # of two, both are the pair merge
    if not limits or not sizes:
        return ""
    names = {1: "MergeMany after one sweep", CONVERGENCE: "converged MergeMany"}
    told = [_placed(_ahead(merge, sizes, limit), names[limit]) for limit in limits if limit in names]
    return f"The tree is {' and '.join(told)}." if told else ""


def _ahead(merge: xr.Dataset, sizes: list[int], limit: int) -> dict[str, Test]:
    """The tree minus MergeMany on the same leaves, by the number of merged networks."""
    sides = {str(n): on_same_leaves(merge.test_accuracy, *tree_and_many(n, limit)) for n in sizes}
    return {n: Test("ahead", minus(*both), "1") for n, both in sides.items()}


def _placed(tests: Mapping[str, Test], other: str) -> str:
    """Where the tree stands beside another method; by size where sizes differ."""
    signs = {sign: names for sign, names in by_sign(tests).items() if names}
    if len(signs) == 1:
        return f"{PLACES[next(iter(signs))]} {other}"
    first, *others = (f"{PLACES[sign]} {{}} at {' and '.join(names)}" for sign, names in signs.items())
    return ", ".join([first.format(other), *(text.format("it") for text in others)])


def attacks(attack: xr.Dataset) -> str:
    """Which of the unmerged networks and the last stage leads under weak and strong FGSM, and where curves cross."""
    top, size = tree_stages(attack)[-1], attack.epsilon.values
    robust = attack.robust_accuracy.isel(attack=0)
    ahead = [_lead(attack, 0, top, between(attack, *sizes)) for sizes in (WEAK, STRONG)]
    words = {1: f"stage 0 leads stage {top}", -1: f"stage {top} leads stage 0", 0: "no lead is resolved"}
    leaders = [words[sign] for sign in ahead]
    if ahead[0] == ahead[1]:
        text = f"{leaders[0][0].upper()}{leaders[0][1:]} under weak {'and' if ahead[0] else 'or'} strong FGSM"
    else:
        text = f"{leaders[0][0].upper()}{leaders[0][1:]} under weak FGSM, {leaders[1]} under strong"
    place = crossing(size, (tree(robust, 0) - tree(robust, top)).mean("group").values)
    if np.isnan(place) or 0 in ahead or ahead[0] == ahead[1]:
        return f"{text}."
    return f"{text}; the curves cross at {place:.3f}."


def _lead(attack: xr.Dataset, first: int, second: int, weights: np.ndarray) -> int:
    """Which stage leads under the first attack, over weighted sizes: 1 the first, -1 the second, 0 not resolved."""
    kind, stages = str(attack.attack.values[0]), (of_stage(first), of_stage(second))
    values, by_image = robust_difference(attack, kind, *stages, weights)
    return Test("ahead", values, POINTS, by_image=by_image).sign


def norms(regularity: xr.Dataset) -> str:
    """Whether the norm falls at every stage, and how its last step compares with the first."""
    norm, found = regularity.weight_norm.sum("layer").rename("weight norm"), steps(regularity)
    falls = _falls(norm)
    if falls < 1:
        return f"{_FALLING[falls].format('the weight norm')}."
    first, last = (minus(tree(norm, a), tree(norm, b)).mean() for a, b in (found[0], found[-1]))
    return f"The weight norm falls at every stage; the last step is {last / first:.2f} times the first."


def bounds(regularity: xr.Dataset) -> str:
    """Whether bounds fall at every stage, and whether the lower bound does."""
    series = [regularity.lipschitz.sel(bound=bound) for bound in regularity.bound.values]
    falls = [_falls(values) for values in series if has_numbers(values)]
    lower = _falls(regularity.gradient_norm.max("image"))
    below = "The lower bound falls at every stage" if lower == 1 else _FALLING[lower].format("the lower bound")
    if not falls:
        return f"{below}."
    if min(falls) < 1:
        return f"{_FALLING[min(falls)].format('some upper bound' if min(falls) < 0 else 'every upper bound')}."
    if lower == 1:
        return "All upper bounds fall at every stage, and the lower bound does too."
    return f"All upper bounds fall at every stage. {below}."


_FALLING = {0: "It is not resolved whether {} falls at every stage", -1: "At some stage {} rises"}


def _falls(values: xr.DataArray) -> int:
    """1 where values fall at every stage, -1 where they rise at one, 0 where that is not resolved."""
    return min(Test("fall", minus(tree(values, a), tree(values, b)), "1").sign for a, b in steps(values))


def lines(ablations: xr.Dataset) -> str:
    """How much accuracy is lost half-way between two networks, matched and not."""
    test = ablations.accuracy.sel(split="test").sortby("lambda")
    ends = test.isel({"lambda": [0, -1]}).mean("lambda")
    lost = (ends - test.interp({"lambda": 0.5})).rename("accuracy") * PERCENT
    after, before = (Test("lost", by_group(lost.sel(alignment=a)).values, POINTS) for a in ("after", "before"))
    if not after.sign:
        return "It is not resolved whether accuracy is lost half-way between two networks after matching."
    return (
        f"Half-way between two networks {after.effect:.1f} points of accuracy are lost after matching, "
        f"{before.effect:.1f} without."
    )


def noise(attack: xr.Dataset) -> str:
    """How accurate and how steady the last stage is under the largest noise, beside stage 0."""
    top, kind = tree_stages(attack)[-1], str(attack.noise.values[0])
    accurate, steady = (
        Test("ahead", finite(values), POINTS, by_image=by_image).sign
        for values, by_image in (noise_difference(attack, kind, what, top) for what in ("accuracy", "share retained"))
    )
    more = {1: "more", -1: "less"}
    first = (
        f"Under noise stage {top} is {more[accurate]} accurate than unmerged networks"
        if accurate
        else f"Under noise stage {top} is not resolved from unmerged networks in accuracy"
    )
    if steady:
        return f"{first} and keeps {more[steady]} of its accuracy."
    return f"{first}; whether it keeps more of its accuracy is not resolved."
