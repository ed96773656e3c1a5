"""Claims about accuracy: the tree against MergeMany, the fall over the stages, barriers (C1 to C4 and C11)."""

import numpy as np
import xarray as xr

from ...merging.distances import CONVERGENCE
from ..groups import (
    PERCENT,
    POINTS,
    TOLERANCE,
    NotMeasuredError,
    Results,
    by_group,
    count_groups,
    minus,
    on_same_leaves,
    pairs_of_same_leaves,
    stage_data,
    steps,
    sweeps_in_words,
    tree,
    tree_and_many,
    tree_stages,
)
from ..statistics import PairedVariances, Test, defined
from .verdicts import beside, part

STATEMENTS = {
    "C1": "At 4 models the tree's test accuracy exceeds MergeMany's.",
    "C2": "At 8 models the advantage is larger than at 4.",
    "C3": "The tree's accuracy varies less than MergeMany's.",
    "C4": "Accuracy falls with every stage, and the barrier after matching is above zero.",
    "C11": "The drop is much bigger than the authors of Git Re-Basin report, who find no barrier.",
}
SMALL, LARGE = 4, 8  # numbers of merged networks that the paper compares with MergeMany
ONE_SWEEP = 1
MUCH = 1.0  # percentage points; a pair merge that loses more does not do without a barrier
ACCURACY = "test_accuracy"


@part("C1a", "at 4 models the tree is more accurate than converged MergeMany", "converged MergeMany")
def c1a(results: Results) -> list[Test]:
    """Accuracy on the same leaves, averaged over the sets of a group that MergeMany merged."""
    return [_tree_minus_many(results, SMALL, CONVERGENCE)]


@part("C1b", "at 4 models the tree is more accurate than MergeMany after one sweep", "one sweep")
def c1b(results: Results) -> list[Test]:
    """As C1a."""
    return [_tree_minus_many(results, SMALL, ONE_SWEEP)]


@part("C2a", "the tree's advantage over converged MergeMany is larger at 8 models than at 4", "converged MergeMany")
def c2a(results: Results) -> list[Test]:
    """Difference of the advantages of C1a."""
    return [_growth(results, CONVERGENCE)]


@part("C2b", "the tree's advantage over MergeMany after one sweep is larger at 8 models than at 4", "one sweep")
def c2b(results: Results) -> list[Test]:
    """Difference of the advantages of C1b."""
    return [_growth(results, ONE_SWEEP)]


@beside("C2")
def advantages(results: Results) -> list[Test]:
    """The tree minus MergeMany by size and limit of sweeps, and how far MergeMany of 8 falls below its leaves."""
    merge = stage_data(results, "merge")
    limits = sorted({int(s) for s in merge.sweeps.values} - {0})
    chosen = [(n, limit) for n in (SMALL, LARGE, 2 * LARGE) for limit in limits]
    told = [(SMALL, CONVERGENCE), (SMALL, ONE_SWEEP)]  # C1
    tests = [_tree_minus_many(results, *one) for one in chosen if one not in told and _merged(merge, *one)]
    for limit in limits:
        if _merged(merge, LARGE, limit):
            many = by_group(merge[ACCURACY], method="merge-many", n_merged=LARGE, sweeps=limit)
            fall = minus(tree(merge[ACCURACY], 0), many) * PERCENT
            tests.append(Test(f"leaves minus {_name(limit)}, {LARGE} models", fall, POINTS))
    return tests


def _merged(merge: xr.Dataset, n: int, limit: int) -> bool:
    """Whether MergeMany ran on sets of ``n``, with this limit of sweeps."""
    return bool(((merge.method == "merge-many") & (merge.n_merged == n) & (merge.sweeps == limit)).any())


def _name(limit: int) -> str:
    if limit == CONVERGENCE:
        return "converged MergeMany"
    return f"MergeMany after {'one sweep' if limit == ONE_SWEEP else sweeps_in_words(limit)}"


def _tree_minus_many(results: Results, n: int, limit: int) -> Test:
    merge = stage_data(results, "merge")
    values = minus(*on_same_leaves(merge[ACCURACY], *tree_and_many(n, limit))) * PERCENT
    return Test(f"tree minus {_name(limit)}, {n} models", values, POINTS)


def _growth(results: Results, limit: int) -> Test:
    accuracy = stage_data(results, "merge")[ACCURACY]
    small, large = (np.subtract(*on_same_leaves(accuracy, *tree_and_many(n, limit))) for n in (SMALL, LARGE))
    name = f"tree minus {_name(limit)}: advantage at {LARGE} minus advantage at {SMALL}"
    return Test(name, minus(large, small) * PERCENT, POINTS)


@part(
    "C3",
    "the tree varies less than converged MergeMany on the same leaves, {}",
    "{} models",
    each={"4": "4 models", "8": "8 models"},
)
def c3(results: Results, models: str) -> list[Test]:
    """Variance of accuracy over all disjoint sets of all groups, which share no network; by Pitman's and Morgan's test.

    Not measured where MergeMany merged only some of the sets: the first of each group alone leave too few.
    """
    merge, n = stage_data(results, "merge"), int(models)
    merged, many = pairs_of_same_leaves(merge[ACCURACY], *tree_and_many(n, CONVERGENCE))
    whole = int(((merge.method == "tree") & (merge.n_merged == n)).sum())
    if len(many) < whole:
        raise NotMeasuredError(f"MergeMany merged {len(many)} of the {whole} disjoint sets of {n}")
    if not np.isfinite([merged, many]).all():
        raise NotMeasuredError(f"the accuracy of some sets of {n} is no number")
    name = f"variance of accuracy over {whole} sets of {n}, MergeMany over tree"
    return [PairedVariances(name, merged, many, groups=count_groups(merge))]


@part("C4a", "accuracy falls at every stage", "every stage")
def c4a(results: Results) -> list[Test]:
    """Every stage minus the next."""
    merge = stage_data(results, "merge")
    return [_fall(merge, *stages) for stages in steps(merge)]


@beside("C4")
def whole_fall(results: Results) -> list[Test]:
    """Accuracy of stage 0 minus the last."""
    merge = stage_data(results, "merge")
    stages = tree_stages(merge)
    return [_fall(merge, 0, stages[-1])] if len(stages) > 2 else []


@part("C4b", "the accuracy barrier after matching is above zero", "accuracy barrier")
def c4b(results: Results) -> list[Test]:
    """Test accuracy lost half-way between matched networks, which no barrier is smaller than.

    The barrier itself is a maximum over the line with its ends, so never below zero, and above it by chance alone; it
    is reported beside. Half-way decides, where a loss shows a barrier and a gain says nothing, since the line may still
    sag elsewhere.
    """
    return [_half_way(results, "accuracy", "test")]


@part("C4c", "the barrier of the training loss after matching is above zero", "loss barrier")
def c4c(results: Results) -> list[Test]:
    """As C4b, of the loss on training images."""
    return [_half_way(results, "loss", "train")]


@beside("C4")
def barriers(results: Results) -> list[Test]:
    """The barriers after matching. That of the test loss says little of overfitted networks: any mean is less sure."""
    pairs, tests = stage_data(results, "ablations"), []
    for split in pairs.split.values:
        for name, factor, units in (("loss", 1, "nat"), ("accuracy", PERCENT, POINTS)):
            values = by_group(pairs[f"{name}_barrier"].sel(alignment="after", split=split)).values * factor
            tests.append(defined(f"{name} barrier after matching, {split} images", values, units))
    return [*tests, _half_way(results, "loss", "test")]


@part("C11", "a pair merge loses more than 1 point of accuracy")
def c11(results: Results) -> list[Test]:
    """Stage 0 minus stage 1, against `MUCH`."""
    fall = _fall(stage_data(results, "merge"), 0, 1)
    return [Test("accuracy lost by merging two networks", fall.values - MUCH, POINTS, target=MUCH)]


def _fall(merge: xr.Dataset, before: int, after: int) -> Test:
    values = minus(*(tree(merge[ACCURACY], stage) for stage in (before, after))) * PERCENT
    return Test(f"accuracy of stage {before} minus stage {after}", values, POINTS)


def _half_way(results: Results, name: str, split: str) -> Test:
    path = stage_data(results, "ablations")[name].sel(alignment="after", split=split).sortby("lambda")
    ends = path.sel({"lambda": [0.0, 1.0]}, method="nearest", tolerance=TOLERANCE).mean("lambda")
    excess = by_group((path.interp({"lambda": 0.5}) - ends).rename(name)).values
    sign, units, what = (1, "nat", "above") if name == "loss" else (-PERCENT, POINTS, "below")
    title = f"{name} half-way after matching {what} the mean of both ends, {split} images"
    return defined(title, sign * excess, units, refutes=False)
