"""Open questions about robustness: is it lower accuracy, a weak attack, or scale?

A function a question: the data set of its notebook in, comparisons over groups and a reading out.
"""

import numpy as np
import xarray as xr

from ..groups import BROKEN, PERCENT, POINTS, NotMeasuredError, by_group, crossings, large, minus, tree, tree_stages
from ..statistics import Test, by_sign, no_difference
from .lower_accuracy import FAMILIES

ALIKE = 0.02  # difference of accuracies up to which networks count as equally accurate
NAMES = {
    "stopped": "early-stopped networks",
    "narrow": "narrower networks",
    "noised": "networks with noise on their weights",
    "line": "points on the way to a naive average",
}
ATTACKS = {
    "fgsm": "FGSM",
    "fgsm-float64": "FGSM in float64",
    "pgd-cross-entropy": "PGD on the cross-entropy",
    "pgd-margin": "PGD on the margin",
    "worst": "the worst of all",
}


def attack_in_words(kind: str) -> str:
    """An attack of the data set "strong" as a sentence calls it.

    >>> attack_in_words("fgsm-rescaled-10"), attack_in_words("transfer-tree-4"), attack_in_words("transfer-unmerged-0")
    ('FGSM on logits x 10', 'transfer from stage 4', 'transfer from stage 0')
    """
    start, _, last = kind.rpartition("-")
    if start == "fgsm-rescaled":
        return f"FGSM on logits x {last}"
    return f"transfer from stage {last}" if start.startswith("transfer-") else ATTACKS.get(kind, kind)


def controls(data: xr.Dataset) -> tuple[list[Test], str]:
    """Robustness or lower accuracy?"""
    stages, tests = tree_stages(data), []
    families = [name for name in FAMILIES if name in data.method.values]
    top = stages[-1]

    def compare(name: str, values: xr.DataArray, first: dict, second: dict, units: str = POINTS) -> list[Test]:
        try:
            difference = minus(by_group(values, **first), by_group(values, **second))
        except NotMeasuredError:
            return []  # no image that all classify correctly
        return [Test(name, difference * PERCENT if units == POINTS else difference, units)]

    against, gaps = {}, {}
    for stage in stages[1:]:
        for family in families:
            pair = {"method": "tree", "stage": stage}, {"method": family, "stage": stage}
            about = f"stage {stage} minus {NAMES[family]}"
            merged, control = (by_group(data.test_accuracy, **labels) for labels in pair)
            gaps[NAMES[family]] = Test(f"accuracy: {about}", minus(merged, control) * PERCENT, POINTS)
            tests.append(gaps[NAMES[family]])  # in the end those of the last stage are left
            for kind in data.attack.values:
                robust = large(data.robust_at_stage.sel(attack=kind))
                found = compare(f"{kind}, strong, at the nearest accuracy: {about}", robust, *pair)
                tests += found
                if found and (kind, stage) == ("fgsm", top):
                    [against[NAMES[family]]] = found
            tests += compare(f"median perturbation: {about}", data.median_perturbation, *pair, units="pixel range")
    for family in ("tree", *families):
        first = "unmerged" if family == "tree" else family
        pair = {"method": family, "stage": top}, {"method": first, "stage": 0}
        for kind in data.attack.values:
            about = f"on images that all stages get right: stage {top} minus 0, {NAMES.get(family, family)}"
            tests += compare(f"{kind}, strong, {about}", large(data.robust_at_method.sel(attack=kind)), *pair)
    words = ", ".join(
        f"{_points(test.effect)} than {name} ({_points(-gaps[name].effect)} accurate)" for name, test in against.items()
    )
    return tests, (
        f"beside unmerged networks of each kind that come nearest to it in accuracy, stage {top} keeps under strong "
        f"FGSM, of images that all classify correctly, {words}; {no_difference(against)}"
    )


def _points(difference: float) -> str:
    return f"{abs(difference):.1f} points {'more' if difference > 0 else 'less'}"


def strong(data: xr.Dataset) -> tuple[list[Test], str]:
    """Is the crossing an artefact of weak attacks?"""
    stages, tests, words, gains = tree_stages(data), [], [], {}
    top = stages[-1]
    crossing = crossings(data).sel(comparison=f"0-{top}")
    for kind in data.attack.values:
        robust = data.robust_accuracy.sel(attack=kind)
        gain = minus(tree(large(robust), top), tree(large(robust), 0)) * PERCENT
        gains[attack_in_words(kind)] = Test(f"{kind}, strong: stage {top} minus stage 0", gain, POINTS)
        tests.append(gains[attack_in_words(kind)])
        found = crossing.crossing.sel(attack=kind).values
        crossed = found[np.isfinite(found)]
        if len(crossed):
            name = f"{kind}: crossing of stages 0 and {top} ({len(crossed)} of {len(found)} groups)"
            tests.append(Test(name, crossed, "pixel range"))
        few = f"; {len(crossed)} of {len(found)} groups" if 0 < len(crossed) < len(found) else ""
        words.append(f"{f'{crossed.mean():.4f}' if len(crossed) else 'no size'} ({attack_in_words(kind)}{few})")
    for stage in (0, top):
        share = tree(data.zero_gradients, stage).values * PERCENT
        tests.append(Test(f"images without any gradient, stage {stage}", share, "%"))
        broken = tree(data.robust_accuracy.sel(attack="worst").sel(epsilon=BROKEN, method="nearest"), stage)
        tests.append(Test(f"worst case at {BROKEN:g}, stage {stage}", broken.values * PERCENT, "%"))
    repeats, kept = {}, tree(large(data.robust_accuracy), top)
    for kind in [kind for kind in data.attack.values if str(kind).startswith("fgsm-")]:
        change = minus(kept.sel(attack=kind), kept.sel(attack="fgsm")) * PERCENT
        repeats[attack_in_words(kind)] = Test(f"{kind} minus fgsm, strong, stage {top}", change, POINTS)
    tests += repeats.values()
    signs = {1: "ahead of", -1: "behind", 0: "not to be told from"}
    told = ", ".join(
        f"{signs[sign]} stage 0 under " + ("every strong attack" if len(kinds) == len(gains) else ", ".join(kinds))
        for sign, kinds in by_sign(gains, "Q2").items()
        if kinds
    )
    return tests, f"stage {top} is {told}; the two cross at {', '.join(words)}; against FGSM {no_difference(repeats)}"


def scale(data: xr.Dataset) -> tuple[list[Test], str]:
    """Does the bound fall beyond scale?"""
    stages = tree_stages(data)
    top, tests, falls = stages[-1], [], {}
    logs = {f"{name} bound": np.log10(data.lipschitz.sel(bound=name)) for name in data.bound.values}
    logs["sampled lower bound"] = np.log10(data.gradient_norm)
    logs = {name: log.rename(name) for name, log in logs.items()}
    for name, log in logs.items():
        whole = minus(tree(log, 0), tree(log, top))
        by_scale = minus(tree(log, 0), by_group(log, method="rescaled", stage=top))
        falls[name] = (
            Test(f"log10 {name}, stage 0 minus stage {top}", whole, "log10"),
            Test(f"log10 {name}, stage 0 minus stage 0 at the norms of stage {top}", by_scale, "log10"),
        )
        share = Test(f"share of the fall of the {name} that scale alone makes", by_scale / whole * PERCENT, "%")
        tests += [*falls[name], share]
    margin = np.log10(data.median_margin.where(data.median_margin > 0)).rename("median_margin")
    for name in data.bound.values:
        relative = (logs[f"{name} bound"] - margin).rename("lipschitz")
        for stage in stages[1:]:
            try:
                values = minus(tree(relative, stage), tree(relative, 0))
            except NotMeasuredError:
                continue  # half of the images or more are misclassified: the median margin is 0
            tests.append(Test(f"log10 of {name} bound over median margin, stage {stage} less stage 0", values, "log10"))
    radii = {name: data.certified_radius.sel(certificate=name) for name in data.certificate.values}
    certificates = {}
    for name, radius in radii.items():
        values = minus(tree(radius, top), tree(radius, 0))
        test = Test(f"certified radius by the {name} bound, stage {top} minus stage 0", values, "pixel range")
        certificates[f"the radius that the {name} bound certifies"] = test
    tests += certificates.values()
    measures = {"accuracy": (data.test_accuracy * PERCENT, POINTS)}
    measures |= {f"log10 {name}": (log, "log10") for name, log in logs.items()}
    measures |= {f"certified radius by the {name} bound": (radius, "pixel range") for name, radius in radii.items()}
    words = []
    for stage, strength in equally_accurate(data, "l2").items():
        about = f"stage {stage} minus L2-regularised networks of strength {strength:g}"
        beside = {
            name: Test(f"{name}: {about}", minus(tree(v, stage), by_group(v, method="l2", strength=strength)), units)
            for name, (v, units) in measures.items()
        }
        tests += beside.values()
        words.append(f"{10 ** beside['log10 global bound'].effect:.2g} times as large (stage {stage})")
    grown = [name for name, test in certificates.items() if test.effect > 0]
    merged, rescaled = (test.effect for test in falls["global bound"])
    said = [
        f"merging up to stage {top} lowers log10 of the global bound by {merged:.2f}, rescaling unmerged networks to "
        f"the same norms, which changes no answer, by {rescaled:.2f}"
    ]
    if words:
        said.append(f"the bound is {' and '.join(words)} as that of L2-regularised networks of the same accuracy")
    said += [f"{len(grown)} of {len(certificates)} certified radii grow with the stage", no_difference(certificates)]
    return tests, "; ".join(said)


def equally_accurate(data: xr.Dataset, method: str) -> dict[int, float]:
    """By stage of the tree, the strength of a penalty whose networks are as accurate; no stage where none is."""
    accuracy, found = data.test_accuracy, {}
    strengths = np.unique(data.strength.values[data.method.values == method]).tolist()
    penalised = {strength: by_group(accuracy, method=method, strength=strength) for strength in strengths}
    for stage in tree_stages(data)[1:]:
        merged = tree(accuracy, stage)
        gaps = {strength: abs(minus(values, merged).mean()) for strength, values in penalised.items()}
        if gaps and min(gaps.values()) <= ALIKE:
            found[stage] = min(gaps, key=gaps.get)
    return found
