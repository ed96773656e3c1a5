"""Open questions about merging: which way, is it variance collapse, does the recipe decide?

A function a question: the data set of its notebook in, comparisons over groups and a reading out.
"""

import json
from collections import defaultdict

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from ...merging.distances import CONVERGENCE
from ..figures.style import NAMES
from ..groups import PERCENT, POINTS, NotMeasuredError, by_group, large, minus, sweeps_in_words, tree, tree_stages
from ..statistics import Test, by_sign, no_difference

PAIRED = ("tree-nearest", "tree-random")  # the tree with other pairs


def mergers(data: xr.Dataset) -> tuple[list[Test], str]:
    """MergeMany or tree?"""
    tests, words, tried, accuracy = [], [], {}, data.test_accuracy
    limits = sorted(set(data.sweeps[(data.method == "merge-many").values].values.tolist()))
    names = sorted(set(data.method.values.tolist()) - {"tree", "merge-many"})
    ways = {f"MergeMany, {sweeps_in_words(limit)}": {"method": "merge-many", "sweeps": limit} for limit in limits}
    ways |= {NAMES.get(name, name): {"method": name} for name in names}
    for size in np.unique(data.n_merged.values):
        chosen = {"n_merged": size}
        base, took = (by_group(each, method="tree", **chosen) for each in (accuracy, data.seconds))
        ahead, times = {}, {}
        for name, labels in ways.items():
            merged, seconds = (by_group(each, **labels, **chosen) for each in (accuracy, data.seconds))
            ahead[name] = Test(f"{name} minus tree, {size} models", minus(merged, base) * PERCENT, POINTS)
            times[name] = Test(f"time of {name} over the tree's, {size} models", (seconds / took).values, "times")
        tests += [*ahead.values(), *times.values()]
        orders = data.isel(model=((data.method == "merge-many") & (data.sweeps == CONVERGENCE)).values)
        orders = orders.isel(model=(orders.n_merged == size).values)
        spread = orders.test_accuracy.groupby("group").std(ddof=1) if len(np.unique(orders.order)) > 1 else None
        if spread is not None:
            title = f"deviation between orders of converged MergeMany, {size} models"
            tests.append(Test(title, spread.values * PERCENT, POINTS))
        best = max(ahead, key=lambda name: ahead[name].effect)
        gain, ratio = ahead[best].effect, times[best].effect
        leader = f"{best} ({gain:.1f} points above the tree, {ratio:.2g} times its time)" if gain > 0 else "the tree"
        words.append(f"{leader} for {size} models")
        tried = {NAMES[method]: ahead[NAMES[method]] for method in PAIRED if method in names}  # of the most models
        tests.append(
            Test(f"rank correlation of accuracy with distance, {size} models", _rank_correlation(data, size), "1")
        )
    return tests, f"most accurate is {', '.join(words)}; against the tree {no_difference(tried)}"


def _rank_correlation(data: xr.Dataset, size: int) -> np.ndarray:
    """Spearman's correlation over all merges of the same networks, naive averages left out, (group,)."""
    kept = data.isel(model=((data.n_merged == size) & (data.method != "naive")).values)
    values = []
    for group in np.unique(kept.group.values):
        part = kept.isel(model=(kept.group == group).values)
        values.append(spearmanr(part.pairwise_distance, part.test_accuracy).statistic)
    return np.array(values)


def repair(data: xr.Dataset) -> tuple[list[Test], str]:
    """Is it variance collapse?"""
    stages, accuracy, tests = tree_stages(data), data.test_accuracy, []
    robust = large(data.robust_accuracy)
    methods = [str(name) for name in dict.fromkeys(data.method.values) if str(name).startswith("repair")]
    top, share, change = stages[-1], {}, {}  # of the last stage, by method
    for stage in stages[1:]:
        lost = minus(tree(accuracy, 0), tree(accuracy, stage))
        for method in methods:
            back = minus(by_group(accuracy, method=method, stage=stage), tree(accuracy, stage))
            share[method] = Test(f"{method}: share of the loss recovered at stage {stage}", back / lost * PERCENT, "%")
            change[method] = []
            for kind in data.attack.values:
                kept = robust.sel(attack=kind)
                values = minus(by_group(kept, method=method, stage=stage), tree(kept, stage)) * PERCENT
                change[method].append(Test(f"{method}: {kind}, strong, change at stage {stage}", values, POINTS))
            gained = Test(f"{method}: accuracy gained at stage {stage}", back * PERCENT, POINTS)
            tests += [gained, share[method], *change[method]]
        for layer in data.layer.values:
            ratio, distance = (tree(data[n].sel(layer=layer), stage) for n in ("variance_ratio", "feature_distance"))
            tests.append(Test(f"variance of {layer} over that of the leaves, stage {stage}", ratio.values, "1"))
            tests.append(Test(f"1 - cosine of features, {layer}, stage {stage}", distance.values, "1"))
    best, (first, *others) = max(methods, key=lambda method: share[method].effect), methods
    tried = {}
    for method in others:
        values = minus(*(by_group(accuracy, method=name, stage=top) for name in (method, first))) * PERCENT
        tried[f"{NAMES[method]} in place of {NAMES[first]}"] = Test(
            f"accuracy at stage {top}: {method} minus {first}", values, POINTS
        )
    kinds = zip(data.attack.values, change[best], strict=True)
    robustness = " and ".join(f"{test.effect:+.1f} points under strong {kind}" for kind, test in kinds)
    return [*tests, *tried.values()], (
        f"{NAMES[best]} recovers {share[best].effect:.0f} % of the accuracy lost at stage {top}, with {robustness}; "
        f"{no_difference(tried)}"
    )


def recipes(data: xr.Dataset) -> tuple[list[Test], str]:
    """Does the recipe decide?"""
    tests, outcomes = [], defaultdict(dict)  # comparison -> recipe -> test
    for recipe in dict.fromkeys(data.recipe.values.tolist()):
        part = data.isel(model=(data.recipe == recipe).values)
        stages, accuracy, top = tree_stages(part), part.test_accuracy, tree_stages(part)[-1]
        tests.append(Test(f"{recipe}: accuracy of unmerged networks", tree(accuracy, 0).values * PERCENT, "%"))
        lost = minus(tree(accuracy, 0), tree(accuracy, top)) * PERCENT
        tests.append(Test(f"{recipe}: accuracy of stage 0 minus stage {top}", lost, POINTS))
        for size in (2**stage for stage in stages[1:]):
            try:
                many = by_group(accuracy, method="merge-many", n_merged=size)
            except NotMeasuredError:
                continue
            first = accuracy.isel(model=(accuracy.node == 0).values)  # of the leaves that MergeMany had
            ahead = Test(
                f"{recipe}: tree minus converged MergeMany, {size} models",
                minus(by_group(first, method="tree", n_merged=size), many) * PERCENT,
                POINTS,
            )
            tests.append(ahead)
            outcomes[f"the tree is ahead of MergeMany of {size}"][recipe] = ahead
        for name in ("loss_barrier", "accuracy_barrier"):
            scale, units = (1, "nat") if name == "loss_barrier" else (PERCENT, POINTS)
            for alignment in part.alignment.values:
                values = by_group(part[name].sel(alignment=alignment), method="tree", stage=1) * scale
                tests.append(Test(f"{recipe}: {name.replace('_', ' ')} {alignment} matching", values.values, units))
        for kind in part.attack.values:
            robust = large(part.robust_accuracy.sel(attack=kind))
            gain = minus(tree(robust, top), tree(robust, 0)) * PERCENT
            ahead = Test(f"{recipe}: {kind}, strong: stage {top} minus stage 0", gain, POINTS)
            tests.append(ahead)
            outcomes[f"stage {top} is ahead of stage 0 under strong {kind}"][recipe] = ahead
    words = []
    for comparison, compared in outcomes.items():
        found = by_sign(compared, "Q6")
        names = f" ({'; '.join(found[1])})" if 0 < len(found[1]) < len(compared) else ""
        words.append(
            f"{comparison} under {len(found[1])} recipes and widths{names}, behind under {len(found[-1])}, undecided "
            f"under {len(found[0])}"
        )
    return tests, _few_images(data) + "; ".join(words)


def _few_images(data: xr.Dataset) -> str:
    """On how many images other recipes were tried, in words, where the data set says it."""
    parameters = json.loads(data.attrs.get("parameters", "{}"))
    numbers = [parameters.get(name) for name in ("recipe_images", "width_images")]
    return "trained on {:,} images, for other widths on {:,}: ".format(*numbers) if all(numbers) else ""
