"""Open questions about merging: which way, is it variance collapse, does the recipe decide?

A function a question: the data set of its notebook in, comparisons over groups and a reading out.
"""

from collections import defaultdict

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from .comparisons import PERCENT, POINTS, NotMeasuredError, Test, by_group, minus, tree, tree_stages
from .merging import CONVERGENCE
from .robustness_answers import large


def mergers(data: xr.Dataset) -> tuple[list[Test], str]:
    """MergeMany or tree?"""
    tests, words, accuracy = [], [], data.test_accuracy
    for size in np.unique(data.n_merged.values):
        chosen = {"n_merged": size}
        base = by_group(accuracy, method="tree", **chosen)
        others = {
            f"MergeMany, {'converged' if limit == CONVERGENCE else f'{limit} sweeps'}": _many(data, size, limit)
            for limit in sorted(set(data.sweeps.values.tolist()) - {0})
        }
        names = sorted(set(data.method.values.tolist()) - {"tree", "merge-many"})
        others |= {name: by_group(accuracy, method=name, **chosen) for name in names}
        for name, values in others.items():
            tests.append(Test(f"{name} minus tree, {size} models", minus(values, base) * PERCENT, POINTS))
        orders = data.isel(model=((data.method == "merge-many") & (data.sweeps == CONVERGENCE)).values)
        orders = orders.isel(model=(orders.n_merged == size).values)
        spread = orders.test_accuracy.groupby("group").std(ddof=1) if len(np.unique(orders.order)) > 1 else None
        if spread is not None:
            title = f"deviation between orders of converged MergeMany, {size} models"
            tests.append(Test(title, spread.values * PERCENT, POINTS))
        best = max(others | {"tree": base}, key=lambda name: (others | {"tree": base})[name].mean().item())
        words.append(f"of {size} models {best} is the most accurate")
        ratio = by_group(data.seconds, method="merge-many", sweeps=CONVERGENCE, **chosen) / by_group(
            data.seconds, method="tree", **chosen
        )
        tests.append(Test(f"time of converged MergeMany over the tree's, {size} models", ratio.values, "times"))
        tests.append(
            Test(f"rank correlation of accuracy with distance, {size} models", _rank_correlation(data, size), "1")
        )
    return tests, "; ".join(words)


def _many(data: xr.Dataset, size: int, limit: int) -> xr.DataArray:
    """Accuracy of MergeMany, mean over draws of its orders, (group,)."""
    return by_group(data.test_accuracy, method="merge-many", n_merged=size, sweeps=limit)


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
    robust_ = large(data.robust_accuracy)
    methods = [str(name) for name in dict.fromkeys(data.method.values) if str(name).startswith("repair")]
    for stage in stages[1:]:
        lost = minus(tree(accuracy, 0), tree(accuracy, stage))
        for method in methods:
            back = minus(by_group(accuracy, method=method, stage=stage), tree(accuracy, stage))
            tests.append(Test(f"{method}: accuracy gained at stage {stage}", back * PERCENT, POINTS))
            tests.append(Test(f"{method}: share of the loss recovered at stage {stage}", back / lost * PERCENT, "%"))
            for kind in data.attack.values:
                robust = robust_.sel(attack=kind)
                change = minus(by_group(robust, method=method, stage=stage), tree(robust, stage)) * PERCENT
                tests.append(Test(f"{method}: {kind}, strong, change at stage {stage}", change, POINTS))
        for layer in data.layer.values:
            ratio, distance = (tree(data[n].sel(layer=layer), stage) for n in ("variance_ratio", "feature_distance"))
            tests.append(Test(f"variance of {layer} over that of the leaves, stage {stage}", ratio.values, "1"))
            tests.append(Test(f"1 - cosine of features, {layer}, stage {stage}", distance.values, "1"))
    best = max((t for t in tests if f"recovered at stage {stages[-1]}" in t.name), key=lambda test: test.effect)
    return (
        tests,
        f"REPAIR recovers at most {best.effect:.0f} % of the accuracy lost at stage {stages[-1]} ({best.name})",
    )


def recipes(data: xr.Dataset) -> tuple[list[Test], str]:
    """Does the recipe decide?"""
    tests, outcomes = [], defaultdict(list)  # of each size and sign: the recipes
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
            low, high = ahead.interval("Q6")
            outcomes[size, int(low > 0) - int(high < 0)].append(recipe)
        for name in ("loss_barrier", "accuracy_barrier"):
            scale, units = (1, "nat") if name == "loss_barrier" else (PERCENT, POINTS)
            for alignment in part.alignment.values:
                values = by_group(part[name].sel(alignment=alignment), method="tree", stage=1) * scale
                tests.append(Test(f"{recipe}: {name.replace('_', ' ')} {alignment} matching", values.values, units))
        for kind in part.attack.values:
            robust = large(part.robust_accuracy.sel(attack=kind))
            gain = minus(tree(robust, top), tree(robust, 0)) * PERCENT
            tests.append(Test(f"{recipe}: {kind}, strong: stage {top} minus stage 0", gain, POINTS))
    words = []
    for size in dict.fromkeys(size for size, _ in outcomes):
        ahead, behind, undecided = (outcomes[size, sign] for sign in (1, -1, 0))
        names = f" ({'; '.join(ahead)})" if ahead else ""
        words.append(
            f"the tree is ahead of MergeMany of {size} under {len(ahead)} recipes and widths{names}, behind under "
            f"{len(behind)}, undecided under {len(undecided)}"
        )
    return tests, "; ".join(words)
