"""Claims about attacks and noise (C5, C6 and C10)."""

import numpy as np
import xarray as xr

from ..groups import (
    PERCENT,
    POINTS,
    TOLERANCE,
    NotMeasuredError,
    Results,
    by_group,
    crossings,
    finite,
    minus,
    stage_data,
    tree,
    tree_stages,
)
from ..stages import ATTACKS
from ..statistics import Test
from .verdicts import Finding, claim

WEAK = 0.005  # largest epsilon that counts as weak: half of the crossing near 0.01 that the paper reports
STRONG = (0.015, 0.020)  # epsilons that count as strong: the last quarter of the paper's range
EQUAL = 0.010  # epsilon near which the paper finds all stages about equal
AROUND_EQUAL = 0.005  # half width of "near 0.010": up to where weak ends and strong begins
MOST_CROSS = 0.5  # share of groups whose curves must cross before the place of the crossing decides
MOST = 0.5  # "most of the range" is more than half of it


@claim("C5", "Earlier stages are more robust to weak attacks, later ones to strong, equal near 0.01.")
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


@claim("C6", "L2-regularised models have the highest robust accuracy over most of the range.")
def c6(results: Results) -> Finding:
    """L2 is ahead of every other method, stage and strength over most epsilons, for its best strength.

    The strength with the highest mean robust accuracy over the range decides, and pays for having been chosen among
    several; the others stand beside.
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
            tries = len(ridge) if strength == best else 1
            tests.append(Test(name, finite(share - MOST), "1", decides, target=MOST, tries=tries))
            gap = minus(ours.mean("epsilon"), others.mean("epsilon")) * PERCENT
            tests.append(Test(f"{kind}: L2 {strength:g} minus the best other", gap, POINTS, decides=False))
            if strength == best:
                words.append(f"{share.mean().item():.0%} under {kind} (strength {strength:g})")
    headline = next(test for test in tests if test.decides)
    return Finding(tests, headline, "share of the range in which L2 is ahead of all others: " + ", ".join(words))


@claim("C10", "Robustness to random perturbation rises with the stage.")
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
    words = []
    for noise in noisy.noise.values:
        first, last = (tree(retained.sel(noise=noise), stage).mean().item() for stage in (0, stages[-1]))
        words.append(f"{first:.1%} and {last:.1%} under {noise} noise")
    return Finding(tests, tests[0], f"retained at {size:g} at stages 0 and {stages[-1]}: {', '.join(words)}")
