"""The claims of the paper, each tested over groups (trees) and entered into a ledger.

One function a claim: it takes the data sets by stage and gives the comparisons that bear on the claim, one value a
group, and which of them decide. `hrebasin.ledger` turns them into verdicts.
"""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from .comparisons import (
    ATTACKS,
    PERCENT,
    TOLERANCE,
    Finding,
    NotMeasuredError,
    Test,
    by_group,
    crossings,
    finite,
    linear_over_geometric,
    log_variance_falls,
    minus,
    on_same_leaves,
    slopes,
    stage_data,
    tree,
    tree_stages,
)
from .ledger import assemble
from .merging import CONVERGENCE

Results = Mapping[str, xr.Dataset]

SMALL, LARGE = 4, 8  # numbers of merged networks that the paper compares with MergeMany
WEAK = 0.005  # largest epsilon that counts as weak: half of the crossing near 0.01 that the paper reports
STRONG = (0.015, 0.020)  # epsilons that count as strong: the last quarter of the paper's range
EQUAL = 0.010  # epsilon near which the paper finds all stages about equal
AROUND_EQUAL = 0.005  # half width of "near 0.010": up to where weak ends and strong begins
MOST_CROSS = 0.5  # share of groups whose curves must cross before the place of the crossing decides
MOST = 0.5  # "most of the range" is more than half of it
SAME_CHOICE = 0.5  # percentage points; one standard error of an accuracy of 50 % on 10,000 test images
SPREAD_GROUPS = 5  # with fewer, deviations from a median say little: with 2 they are equal by construction
POINTS = "percentage points"
ACCURACY = "test_accuracy"


def c1(results: Results) -> Finding:
    """At 4 models the tree's accuracy exceeds that of MergeMany run to convergence; other limits stand beside."""
    tests = _advantages(stage_data(results, "merge"), (SMALL, 2), SMALL)
    return Finding(tests, tests[0], f"the tree of {SMALL} is {_more(tests[0])} accurate than MergeMany")


def c2(results: Results) -> Finding:
    """At 8 models the advantage is larger and MergeMany collapses: falls below half-way from unmerged to chance."""
    merge = stage_data(results, "merge")
    tests = _advantages(merge, (LARGE, 2 * LARGE), LARGE)
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
        f"({many.mean().item():.1%}; half-way to chance: {half_way.mean().item():.1%})"
    )
    return Finding(tests, tests[0], reading)


def _tree_and_merge_many(merge: xr.Dataset, n_merged: int, sweeps: int = CONVERGENCE):
    """Accuracy by group of the tree and of MergeMany on the same leaves."""
    return on_same_leaves(
        merge[ACCURACY],
        {"method": "tree", "n_merged": n_merged},
        {"method": "merge-many", "n_merged": n_merged, "sweeps": sweeps},
    )


def _advantages(merge: xr.Dataset, sizes: tuple[int, ...], deciding: int) -> list[Test]:
    """Tree minus MergeMany for each size and limit that was measured; the first is the one that decides."""
    decides = minus(*_tree_and_merge_many(merge, deciding)) * PERCENT
    tests = [Test(f"tree minus converged MergeMany, {deciding} models", decides, POINTS)]
    limits = sorted({int(s) for s in merge.sweeps.values} - {0}, reverse=True)
    for n in sizes:
        for limit in limits:
            if (n, limit) == (deciding, CONVERGENCE):
                continue
            try:
                values = minus(*_tree_and_merge_many(merge, n, limit)) * PERCENT
            except NotMeasuredError:
                continue  # beside the verdict: shown where it was measured
            many = "converged MergeMany" if limit == CONVERGENCE else f"MergeMany of at most {limit} sweeps"
            tests.append(Test(f"tree minus {many}, {n} models", values, POINTS, decides=False))
    return tests


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


def c5(results: Results) -> Finding:
    """Stage 0 is ahead under weak attack, the last stage under strong attack, and they cross near 0.01."""
    attack = stage_data(results, "attack")
    top, crossing = tree_stages(attack)[-1], crossings(attack)
    tests, words = [], []
    epsilon = attack.epsilon.values
    weak = (epsilon > 0) & (epsilon <= WEAK + TOLERANCE)
    strong = (epsilon >= STRONG[0] - TOLERANCE) & (epsilon <= STRONG[1] + TOLERANCE)
    if not weak.any() or not strong.any():
        raise NotMeasuredError("no weak or no strong epsilon was measured")
    for kind in attack.attack.values:
        robust, decides = attack.robust_accuracy.sel(attack=kind), kind in ATTACKS
        ahead = tree(robust, 0) - tree(robust, top)
        for label, range_, sign in (("weak", weak, 1), ("strong", strong, -1)):
            values = finite(sign * ahead[:, range_].mean("epsilon")) * PERCENT
            sides = f"stage 0 minus stage {top}" if sign > 0 else f"stage {top} minus stage 0"
            tests.append(Test(f"{kind}, {label}: {sides}", values, POINTS, decides))
        for a, b, comparison in zip(*(crossing[c].values for c in ("earlier", "later", "comparison")), strict=True):
            whole, found = (a, b) == (0, top), crossing.crossing.sel(attack=kind, comparison=comparison).values
            crossed = found[np.isfinite(found)]
            if whole:
                words.append(f"{kind} {_place(crossed, len(found))}")
            if not len(crossed):
                continue
            usual = whole and decides and len(crossed) >= 2 and len(crossed) > MOST_CROSS * len(found)
            name = f"{kind}: crossing of stages {a} and {b} ({len(crossed)} of {len(found)} groups cross)"
            tests.append(Test(name, crossed - EQUAL, "pixel range", usual, AROUND_EQUAL, EQUAL, "margin"))
    headline = next((test for test in tests if test.name.startswith("fgsm, strong")), tests[1])
    return Finding(tests, headline, f"stages 0 and {top} cross at " + ", ".join(words))


def _place(crossed: np.ndarray, n: int) -> str:
    return f"{crossed.mean():.4f} ({len(crossed)} of {n} groups)" if len(crossed) else "no size measured"


def c6(results: Results) -> Finding:
    """L2 is ahead of every other method, stage and strength over most epsilons, for its best strength.

    The strength with the highest mean robust accuracy over the range decides; the others stand beside.
    """
    attack = stage_data(results, "attack")
    robust = attack.robust_accuracy.sel(epsilon=attack.epsilon > 0)
    names = ("method", "stage", "n_merged", "sweeps", "strength")
    labels = [dict(zip(names, row, strict=True)) for row in zip(*(attack[n].values for n in names), strict=True)]
    kinds = list({tuple(row.values()): row for row in labels}.values())
    curves = [by_group(robust, **kind) for kind in kinds if kind["method"] != "l2"]
    if not curves:
        raise NotMeasuredError("robust_accuracy was measured for no method besides l2")
    best_other = xr.concat(curves, dim="kind", join="outer", coords="minimal", compat="override").max("kind")
    strengths = sorted({kind["strength"] for kind in kinds if kind["method"] == "l2"})
    ridge = {strength: by_group(robust, method="l2", strength=strength) for strength in strengths}
    if not ridge:
        raise NotMeasuredError("robust_accuracy was measured for no l2 network")
    tests, words = [], []
    for kind in attack.attack.values:
        best = max(ridge, key=lambda strength: ridge[strength].sel(attack=kind).mean().item())
        for strength, curve in ridge.items():
            ours, others = xr.align(curve.sel(attack=kind), best_other.sel(attack=kind), join="inner")
            share = (ours > others).mean("epsilon")
            decides = bool(strength == best and kind in ATTACKS)
            name = f"{kind}: share of epsilons with L2 {strength:g} ahead of all"
            tests.append(Test(name, finite(share - MOST), "1", decides, target=MOST))
            gap = minus(ours.mean("epsilon"), others.mean("epsilon")) * PERCENT
            tests.append(Test(f"{kind}: L2 {strength:g} minus the best other", gap, POINTS, decides=False))
            if strength == best:
                words.append(f"{share.mean().item():.0%} under {kind} (strength {strength:g})")
    headline = next(test for test in tests if test.decides)
    return Finding(tests, headline, "share of the range in which L2 is ahead of all others: " + ", ".join(words))


def c7(results: Results) -> Finding:
    """The summed weight norm falls with the stage along a line rather than geometrically, and so does its variance."""
    norm = stage_data(results, "regularity").weight_norm.sum("layer")
    stages = tree_stages(norm)
    fall = Test("fall of the weight norm", -slopes(norm, stages), "1 per stage")
    shape = Test("AIC of a geometric decay minus AIC of a line", linear_over_geometric(norm, stages), "1")
    variance = _variance_test("weight norm", norm, stages)
    better = "a line" if shape.effect > 0 else "a geometric decay"
    reading = f"the norm changes by {-fall.effect:.3g} a stage and {better} fits better"
    return Finding([fall, shape, variance], fall, reading)


def c8(results: Results) -> Finding:
    """The global Lipschitz bound falls with the stage on a log10 scale, and so does its variance; others beside."""
    regularity = stage_data(results, "regularity")
    stages = tree_stages(regularity)
    bounds = {str(bound): regularity.lipschitz.sel(bound=bound) for bound in regularity.bound.values}
    if "global" not in bounds:
        raise NotMeasuredError("the global Lipschitz bound was not measured")
    local = regularity.local_lipschitz.mean("image")
    bounds |= {f"local, radius {radius:g}": local.sel(radius=radius) for radius in local.radius.values}
    tests = []
    for bound, values in {"global": bounds.pop("global"), **bounds}.items():
        logarithm, decides = np.log10(values), bound == "global"
        tests.append(Test(f"fall of log10 bound, {bound}", -slopes(logarithm, stages), "log10 per stage", decides))
        tests.append(_variance_test(f"log10 bound, {bound}", logarithm, stages, decides))
    reading = f"the global bound changes by a factor of {10 ** -tests[0].effect:.3g} a stage"
    return Finding(tests, tests[0], reading)


def _variance_test(name: str, array: xr.DataArray, stages: list[int], decides: bool = True) -> Test:
    values, last = log_variance_falls(array, stages)
    return Test(f"ln variance among networks, {name}: stage 0 minus stage {last}", values, "1", decides)


def c9(results: Results) -> Finding:
    """Permuting the first or the second network gives equal accuracy, within half a percentage point.

    With the same layer order the two are mirror images, equal up to rounding; independent orders decide.
    """
    choice = stage_data(results, "ablations").choice_accuracy
    tests = []
    for order in sorted(choice.order.values):  # "other" first
        difference = choice.sel(permuted="first", order=order) - choice.sel(permuted="second", order=order)
        values = by_group(difference.rename(choice.name)).values * PERCENT
        name = f"first minus second permuted, {order} layer order"
        tests.append(Test(name, values, POINTS, bool(order == "other"), SAME_CHOICE))
    return Finding(tests, tests[0], f"equality means within {SAME_CHOICE} percentage points")


def c10(results: Results) -> Finding:
    """The share of accuracy retained under the largest random perturbation rises from stage 0 to the last."""
    noisy = stage_data(results, "attack").noise_accuracy.mean("draw")
    stages, clean, largest = tree_stages(noisy), noisy.sel(magnitude=0), noisy.isel(magnitude=-1)
    size, tests = noisy.magnitude.values[-1], []
    retained, drop = (largest / clean).rename("noise_accuracy"), (clean - largest).rename("noise_accuracy")
    steps = [(0, stages[-1]), *zip(stages[:-1], stages[1:], strict=True)][: len(stages) if len(stages) > 2 else 1]
    for noise in noisy.noise.values:
        for quantity, values, sign in (("retained", retained, 1), ("drop", drop, -1), ("accuracy", largest, 1)):
            for a, b in steps:
                early, late = (tree(values.sel(noise=noise), stage) for stage in (a, b))
                first, second = (b, a) if sign > 0 else (a, b)
                name = f"{noise} {size:g}, {quantity}: stage {first} minus stage {second}"
                decides = quantity == "retained" and (a, b) == steps[0]
                tests.append(Test(name, sign * minus(late, early) * PERCENT, POINTS, decides))
    shares = [f"{tree(retained, stage).mean().item():.0%}" for stage in (0, stages[-1])]
    reading = f"accuracy retained at {size:g}: {shares[0]} at stage 0, {shares[1]} at stage {stages[-1]}"
    return Finding(tests, tests[0], reading)


def _more(test: Test) -> str:
    return "more" if test.effect > 0 else "less"


CLAIMS: dict[str, tuple[str, Callable[[Results], Finding]]] = {
    "C1": ("At 4 models the tree's test accuracy exceeds MergeMany's.", c1),
    "C2": ("At 8 models the advantage is larger, and MergeMany's accuracy collapses.", c2),
    "C3": ("The tree's accuracy varies less across groups than MergeMany's.", c3),
    "C4": ("Accuracy falls with every stage, and the barrier after matching is above zero.", c4),
    "C5": ("Earlier stages are more robust to weak attacks, later ones to strong, equal near 0.01.", c5),
    "C6": ("L2-regularised models have the highest robust accuracy over most of the range.", c6),
    "C7": ("The summed weight norm falls linearly with the stage, and its variance falls.", c7),
    "C8": ("The Lipschitz upper bound falls with the stage, and its variance falls.", c8),
    "C9": ("Which of the two models is permuted makes no significant difference.", c9),
    "C10": ("Robustness to random perturbation rises with the stage.", c10),
}


def ledger(results: Results) -> xr.Dataset:
    """All claims tested on the data sets at hand.

    Args:
        results: data sets by stage ("merge", "attack", "regularity", "ablations"); claims without theirs are "not
            tested".

    Returns:
        One entry a claim and one a component test, see `hrebasin.ledger.assemble`.
    """
    findings = {}
    for claim, (_, function) in CLAIMS.items():
        try:
            findings[claim] = function(results)
        except NotMeasuredError as error:
            findings[claim] = str(error)
    return assemble(findings, {claim: title for claim, (title, _) in CLAIMS.items()})
