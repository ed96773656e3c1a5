"""Claims about accuracy: the tree against MergeMany, the fall over the stages, barriers (C1 to C4)."""

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
    concordance,
    minus,
    on_same_leaves,
    stage_data,
    sweeps_in_words,
    tree,
    tree_stages,
)
from ..statistics import Test
from .verdicts import Finding, claim

SMALL, LARGE = 4, 8  # numbers of merged networks that the paper compares with MergeMany
SPREAD_GROUPS = 5  # with fewer, deviations from a median say little: with 2 they are equal by construction
HALF = 0.5  # share of pairs that agree when distances say nothing of accuracy
ACCURACY = "test_accuracy"


@claim("C1", "At 4 models the tree's test accuracy exceeds MergeMany's.")
def c1(results: Results) -> Finding:
    """At 4 models the tree's accuracy exceeds that of MergeMany run to convergence; other limits stand beside."""
    merge = stage_data(results, "merge")
    tests, words = _advantages(merge, (SMALL, 2), SMALL)
    return Finding(tests, tests[0], f"the tree of {SMALL} is {_more(tests[0])} accurate than MergeMany; {words}")


@claim("C2", "At 8 models the advantage is larger, and MergeMany's accuracy collapses.")
def c2(results: Results) -> Finding:
    """At 8 models the advantage is larger and MergeMany collapses: falls below half-way from unmerged to chance."""
    merge = stage_data(results, "merge")
    tests, words = _advantages(merge, (LARGE, 2 * LARGE), LARGE)
    sides = {n: _tree_and_merge_many(merge, n) for n in (SMALL, LARGE)}
    advantage = {n: merged - many for n, (merged, many) in sides.items()}
    many = sides[LARGE][1]
    if "n_classes" not in merge.attrs:
        raise NotMeasuredError("the number of classes, and with it chance, is not recorded")
    half_way = (tree(merge[ACCURACY], 0) + 1 / merge.attrs["n_classes"]) / 2
    fall = minus(half_way, many) * PERCENT
    tests += [
        Test(
            f"advantage at {LARGE} minus advantage at {SMALL}",
            minus(advantage[LARGE], advantage[SMALL]) * PERCENT,
            POINTS,
        ),
        Test(f"half-way to chance minus MergeMany of {LARGE}", fall, POINTS),
    ]
    collapse = "collapses" if fall.mean() > 0 else "does not collapse"
    reading = (
        f"the tree of {LARGE} is {_more(tests[0])} accurate than MergeMany, whose accuracy {collapse} "
        f"({many.mean().item():.1%}; half-way to chance: {half_way.mean().item():.1%}); {words}"
    )
    return Finding(tests, tests[0], reading)


def _tree_and_merge_many(merge: xr.Dataset, n_merged: int, sweeps: int = CONVERGENCE):
    """Accuracy by group of the tree and of MergeMany on the same leaves."""
    return on_same_leaves(
        merge[ACCURACY],
        {"method": "tree", "n_merged": n_merged},
        {"method": "merge-many", "n_merged": n_merged, "sweeps": sweeps},
    )


def _advantages(merge: xr.Dataset, sizes: tuple[int, ...], deciding: int) -> tuple[list[Test], str]:
    """Tree minus MergeMany for each size and limit that was measured, the one that decides first; then whether a lower
    sum of pairwise squared distances goes with a higher accuracy. And in words, when MergeMany overtakes the tree."""
    decides = minus(*_tree_and_merge_many(merge, deciding)) * PERCENT
    tests, words = [Test(f"tree minus converged MergeMany, {deciding} models", decides, POINTS)], []
    limits = sorted({int(s) for s in merge.sweeps.values} - {0}, reverse=True)
    for n in sizes:
        means = {}
        for limit in limits:
            try:
                values = minus(*_tree_and_merge_many(merge, n, limit)) * PERCENT
            except NotMeasuredError:
                continue  # beside the verdict: shown where it was measured
            means[limit] = values.mean()
            if (n, limit) == (deciding, CONVERGENCE):
                continue
            many = "converged MergeMany" if limit == CONVERGENCE else f"MergeMany of at most {limit} sweeps"
            tests.append(Test(f"tree minus {many}, {n} models", values, POINTS, decides=False))
        if means and n > 2:  # of two networks, MergeMany is the pair merge
            words.append(f"at {n} models {_overtaking(means)}")
            tests += _distances(merge, n)
    return tests, ", ".join(words)


def _overtaking(means: dict[int, float]) -> str:
    """When MergeMany overtakes the tree, from the tree's mean advantage by limit of sweeps."""
    ahead = [limit for limit in sorted(means) if means[limit] < 0]
    if not ahead:
        return "MergeMany stays behind the tree at every limit of sweeps"
    before = [limit for limit in means if limit < ahead[0]]
    name = "converged" if ahead[0] == CONVERGENCE else f"stopped after {sweeps_in_words(ahead[0])}"
    return f"MergeMany is ahead {name}" + (f" and not yet after {max(before)}" if before else " already")


def _distances(merge: xr.Dataset, n: int) -> list[Test]:
    """Which of the tree and MergeMany brings networks closer, and whether closer means better; beside the verdict."""
    try:
        share = concordance(merge, n) - HALF
    except NotMeasuredError:
        return []
    merged, many = on_same_leaves(
        merge.pairwise_distance,
        {"method": "tree", "n_merged": n},
        {"method": "merge-many", "n_merged": n, "sweeps": CONVERGENCE},
    )
    excess = minus(merged / many, xr.ones_like(many)) * PERCENT
    name = f"sum of pairwise squared distances, tree over converged MergeMany less 1, {n} models"
    title = f"share of pairs of merges of which the one with lower distances is more accurate, {n} models"
    return [Test(name, excess, "%", decides=False), Test(title, share, "1", decides=False, target=HALF)]


@claim("C3", "The tree's accuracy varies less across groups than MergeMany's.")
def c3(results: Results) -> Finding:
    """The tree's accuracy varies less over groups: paired Brown-Forsythe comparison of deviations from the median."""
    merge = stage_data(results, "merge")
    tests, words = [], []
    for n in (SMALL, LARGE):
        sides = _tree_and_merge_many(merge, n)
        merged, many = (abs(side - side.median("group")) for side in sides)
        name = f"MergeMany's minus the tree's deviation from the median, {n} models"
        tests.append(Test(name, minus(many, merged) * PERCENT, POINTS, smallest=SPREAD_GROUPS))
        spread = [side.std("group", ddof=1).item() * PERCENT if side.size > 1 else np.nan for side in sides]
        words.append(f"{spread[0]:.2f} against {spread[1]:.2f} at {n} models")
    reading = "standard deviation over groups of the tree against MergeMany, in percentage points: " + ", ".join(words)
    if tests[-1].n == 1:
        reading = "a single group has no spread, so that 0 is not a result"
    return Finding(tests, tests[-1], reading)


@claim("C4", "Accuracy falls with every stage, and the barrier after matching is above zero.")
def c4(results: Results) -> Finding:
    """Accuracy falls with every stage, and the line between matched networks leaves the basin.

    A barrier is a maximum over the line that includes its ends, never below zero, so "above zero" is decided by the
    signed excess half-way along the line, which cannot exceed the barrier. An excess below zero there says nothing: the
    line may still rise elsewhere.
    """
    merge, pairs = stage_data(results, "merge"), stage_data(results, "ablations")
    stages = tree_stages(merge)
    accuracy = {stage: tree(merge[ACCURACY], stage) for stage in stages}
    fall = minus(accuracy[0], accuracy[stages[-1]]) * PERCENT
    headline = Test(f"accuracy of stage 0 minus stage {stages[-1]}", fall, POINTS, decides=False)
    tests = [headline]
    for before, after in zip(stages[:-1], stages[1:], strict=True):
        values = minus(accuracy[before], accuracy[after]) * PERCENT
        tests.append(Test(f"accuracy of stage {before} minus stage {after}", values, POINTS))
    for split in pairs.split.values:
        for name, sign, units in (("loss", 1, "nat"), ("accuracy", -PERCENT, POINTS)):
            where = {"alignment": "after", "split": split}
            half_way = by_group(_excess_half_way(pairs[name].sel(where))).values * sign
            barrier = by_group(pairs[f"{name}_barrier"].sel(where)).values * abs(sign)
            decides = split == "test"
            title = f"{name} excess half-way after matching, {split}"
            tests.append(Test(title, half_way, units, decides, refutes=False))
            tests.append(Test(f"{name} barrier after matching, {split}", barrier, units, False))
    barriers = {test.name: test.effect for test in tests if "barrier" in test.name and "test" in test.name}
    reading = f"accuracy {'falls' if headline.effect > 0 else 'does not fall'} over the stages; mean " + " and ".join(
        f"{name.split(' after')[0]} {value:.3g}" for name, value in barriers.items()
    )
    return Finding(tests, headline, reading + " (nat, percentage points) on test images after matching")


def _excess_half_way(path: xr.DataArray) -> xr.DataArray:
    """Value at lambda = 0.5 minus the mean of both ends, (pair,)."""
    path = path.sortby("lambda")
    ends = path.sel({"lambda": [0.0, 1.0]}, method="nearest", tolerance=TOLERANCE).mean("lambda")
    return (path.interp({"lambda": 0.5}) - ends).rename(path.name)


def _more(test: Test) -> str:
    return "more" if test.effect > 0 else "less"
