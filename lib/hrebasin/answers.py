"""Questions that the paper leaves open, answered over groups: effects with intervals, n, and a sentence.

One function a question: it takes the data set of its notebook and gives the comparisons and a reading. There are no
verdicts: nothing was claimed.
"""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from .comparisons import PERCENT, POINTS, NotMeasuredError, Results, Test, by_group, crossings, minus, tree, tree_stages
from .merging import CONVERGENCE

STRONG = 0.015  # epsilon from which an attack counts as strong, as in C5
BROKEN = 0.1  # epsilon at which every network must break

# variable -> long name, units
VARIABLES = {
    "comparison": ("what is compared", "1"),
    "effect": ("mean over groups", "see effect_units"),
    "low": ("lower end of the 95 % interval of the mean", "see effect_units"),
    "high": ("upper end of the 95 % interval of the mean", "see effect_units"),
    "n": ("groups", "groups"),
    "p": ("two-sided p value that the mean is zero, not adjusted", "1"),
    "effect_units": ("units of the effect and its interval", "1"),
}


def strong(data: xr.Dataset) -> tuple[list[Test], str]:
    """Is the crossing an artefact of weak attacks?"""
    stages, top, tests, words = tree_stages(data), tree_stages(data)[-1], [], []
    crossing, range_ = crossings(data).sel(comparison=f"0-{tree_stages(data)[-1]}"), data.epsilon.values
    for kind in data.attack.values:
        robust = data.robust_accuracy.sel(attack=kind)
        large = robust.sel(epsilon=(range_ >= STRONG) & (range_ < BROKEN)).mean("epsilon").rename("robust_accuracy")
        gain = minus(tree(large, top), tree(large, 0)) * PERCENT
        tests.append(Test(f"{kind}, strong: stage {top} minus stage 0", gain, POINTS))
        found = crossing.crossing.sel(attack=kind).values
        crossed = found[np.isfinite(found)]
        if len(crossed):
            name = f"{kind}: crossing of stages 0 and {top} ({len(crossed)} of {len(found)} groups)"
            tests.append(Test(name, crossed, "pixel range"))
        words.append(f"{kind} {crossed.mean():.4f}" if len(crossed) else f"{kind} none")
    for stage in (0, top):
        share = tree(data.zero_gradients, stage).values * PERCENT
        tests.append(Test(f"images without any gradient, stage {stage}", share, "%"))
        broken = tree(data.robust_accuracy.sel(attack="worst").sel(epsilon=BROKEN, method="nearest"), stage)
        tests.append(Test(f"worst case at {BROKEN:g}, stage {stage}", broken.values * PERCENT, "%"))
    signs = {float(np.sign(t.effect)) for t in tests if "strong: " in t.name}
    kept = "under every attack" if signs == {1.0} else "under some attacks only" if 1.0 in signs else "under no attack"
    return tests, f"stage {len(stages) - 1} is ahead of stage 0 {kept}; they cross at {', '.join(words)}"


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


def scale(data: xr.Dataset) -> tuple[list[Test], str]:
    """Does the bound fall beyond scale?"""
    stages = tree_stages(data)
    top, bound = stages[-1], np.log10(data.lipschitz.sel(bound="global")).rename("lipschitz")
    whole = minus(tree(bound, 0), tree(bound, top))
    by_scale = minus(tree(bound, 0), by_group(bound, method="rescaled", stage=top))
    tests = [
        Test(f"log10 global bound, stage 0 minus stage {top}", whole, "log10"),
        Test(f"log10 global bound, stage 0 minus stage 0 at the norms of stage {top}", by_scale, "log10"),
        Test("share of the bound's fall that scale alone makes", by_scale / whole * PERCENT, "%"),
    ]
    margin = np.log10(data.median_margin.where(data.median_margin > 0)).rename("median_margin")
    for name in data.bound.values:
        relative = (np.log10(data.lipschitz.sel(bound=name)) - margin).rename("lipschitz")
        for stage in stages[1:]:
            try:
                values = minus(tree(relative, stage), tree(relative, 0))
            except NotMeasuredError:
                continue  # half of the images or more are misclassified: the median margin is 0
            tests.append(Test(f"log10 of {name} bound over median margin, stage {stage} less stage 0", values, "log10"))
    for name in data.certificate.values:
        radius = data.certified_radius.sel(certificate=name)
        values = minus(tree(radius, top), tree(radius, 0))
        tests.append(Test(f"certified radius by the {name} bound, stage {top} minus stage 0", values, "pixel range"))
    share = tests[2].effect
    return tests, (
        f"rescaling unmerged networks to the norms of stage {top}, which changes no answer, makes {share:.0f} % of the "
        f"fall of the bound; certified radii {'grow' if tests[-1].effect > 0 else 'do not grow'} with the stage"
    )


def repair(data: xr.Dataset) -> tuple[list[Test], str]:
    """Is it variance collapse?"""
    stages, accuracy, tests = tree_stages(data), data.test_accuracy, []
    strong_ = data.robust_accuracy.sel(epsilon=data.epsilon >= STRONG).mean("epsilon").rename("robust_accuracy")
    methods = [str(name) for name in dict.fromkeys(data.method.values) if str(name).startswith("repair")]
    for stage in stages[1:]:
        lost = minus(tree(accuracy, 0), tree(accuracy, stage))
        for method in methods:
            back = minus(by_group(accuracy, method=method, stage=stage), tree(accuracy, stage))
            tests.append(Test(f"{method}: accuracy gained at stage {stage}", back * PERCENT, POINTS))
            tests.append(Test(f"{method}: share of the loss recovered at stage {stage}", back / lost * PERCENT, "%"))
            for kind in data.attack.values:
                robust = strong_.sel(attack=kind)
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


Question = tuple[str, str, Callable[[xr.Dataset], tuple[list[Test], str]]]
QUESTIONS: dict[str, Question] = {
    "Q2": ("Is the crossing an artefact of weak attacks?", "strong", strong),
    "Q3": ("MergeMany or tree?", "mergers", mergers),
    "Q4": ("Does the bound fall beyond scale?", "scale", scale),
    "Q5": ("Is it variance collapse?", "repair", repair),
}


def answer(results: Results) -> xr.Dataset:
    """All questions whose data sets are there.

    Args:
        results: data sets by stage.

    Returns:
        The variables of `VARIABLES` over ``comparison_number``, with the coordinate ``question``; ``sentence`` over
        ``asked``, with the question's ``title``.
    """
    rows, sentences = [], {}
    for name, (title, stage, function) in QUESTIONS.items():
        if stage not in results:
            continue
        tests, sentences[name] = function(results[stage])
        sentences[name] = (title, sentences[name])
        rows += [(name, test, *test.interval(name)) for test in tests]
    columns = {
        "comparison": [test.name for _, test, _, _ in rows],
        "effect": [test.effect for _, test, _, _ in rows],
        "low": [low for *_, low, _ in rows],
        "high": [high for *_, high in rows],
        "n": [test.n for _, test, _, _ in rows],
        "p": [test.p for _, test, _, _ in rows],
        "effect_units": [test.units for _, test, _, _ in rows],
    }
    variables = {name: _column("row", columns[name], *about) for name, about in VARIABLES.items()}
    variables["sentence"] = _column("asked", [text for _, text in sentences.values()], "answer", "1")
    variables["title"] = _column("asked", [title for title, _ in sentences.values()], "question", "1")
    coords = {
        "asked": _column("asked", list(sentences), "question", "1"),
        "question": _column("row", [name for name, *_ in rows], "question", "1"),
    }
    return xr.Dataset(variables, coords=coords)


def _column(dim: str, values: list, long_name: str, units: str) -> tuple[str, np.ndarray, Mapping]:
    text = bool(values) and isinstance(values[0], str)
    return dim, np.array(values, dtype=object) if text else np.array(values), {"long_name": long_name, "units": units}
