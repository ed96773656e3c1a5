"""Claims about attacks and noise (C5, C6, C10 and C12)."""

from itertools import combinations, product

import numpy as np
import xarray as xr

from ..contrasts import STRONG, WEAK, around, between, noise_difference, robust_difference, under, under_noise
from ..figures.style import NAMES
from ..groups import (
    PERCENT,
    POINTS,
    TOLERANCE,
    NotMeasuredError,
    Results,
    by_group,
    first_fall,
    of_stage,
    slopes,
    stage_data,
    steps,
    tree,
    tree_stages,
)
from ..stages import ATTACKS
from ..statistics import Test, defined
from .verdicts import beside, part

STATEMENTS = {
    "C5": "Earlier stages are more robust to weak attacks, later ones to strong, equal near 0.01.",
    "C6": "L2-regularised models have the highest robust accuracy over most of the range.",
    "C10": "Robustness to random perturbation rises with the stage.",
    "C12": "The more models are merged, the more robust the result.",
}
EQUAL = 0.010  # epsilon at which the paper finds all stages about equal
SAME = 1.0  # percentage points that count as equal there
OTHERS = ["unmerged", "tree", "l1"]  # which L2 must beat
NOISES = {"gaussian": "Gaussian", "uniform": "uniform"}
DECIDING = dict(zip(ATTACKS, ("FGSM", "DeepFool"), strict=True))


def _called(kind: str) -> str:
    """What a reader calls an attack."""
    return DECIDING.get(kind) or NAMES.get(kind, kind)


def _stages_apart(
    attack: xr.Dataset, kind: str, weights: np.ndarray, first: int, second: int, about: str, **how
) -> Test:
    values, by_image = robust_difference(attack, kind, of_stage(first), of_stage(second), weights)
    return Test(
        f"{_called(kind)}, {about}: stage {first} minus stage {second}", values, POINTS, by_image=by_image, **how
    )


@part("C5a", "under weak {} (up to 0.005) stage 0 is ahead of the last", "weak {}", each=DECIDING)
def c5a(results: Results, kind: str) -> list[Test]:
    """Mean robust accuracy over the weak sizes."""
    attack = stage_data(results, "attack")
    return [_stages_apart(attack, kind, between(attack, *WEAK), 0, tree_stages(attack)[-1], "weak")]


@part("C5b", "under strong {} (0.015 to 0.020) the last stage is ahead of stage 0", "strong {}", each=DECIDING)
def c5b(results: Results, kind: str) -> list[Test]:
    """Mean robust accuracy over the strong sizes."""
    attack = stage_data(results, "attack")
    return [_stages_apart(attack, kind, between(attack, *STRONG), tree_stages(attack)[-1], 0, "strong")]


@part("C5c", "under {} of 0.010 all stages are equal within 1 point", "equal at 0.010 under {}", each=DECIDING)
def c5c(results: Results, kind: str) -> list[Test]:
    """Every stage minus every other (equivalence)."""
    attack = stage_data(results, "attack")
    weights = between(attack, EQUAL, EQUAL)
    pairs = combinations(tree_stages(attack), 2)
    return [_stages_apart(attack, kind, weights, a, b, f"{EQUAL:.3f}", margin=SAME) for a, b in pairs]


@beside("C5")
def crossings(results: Results) -> list[Test]:
    """Where the mean curve of an earlier stage falls to that of a later one, between the sizes measured.

    Each group's (and image's) share in it is its difference there over the slope of the mean difference (delta method).
    """
    attack, tests = stage_data(results, "attack"), []
    stages, size = tree_stages(attack), attack.epsilon.values
    pairs = [*steps(attack), (stages[0], stages[-1])]
    for kind in attack.attack.values:
        for a, b in dict.fromkeys(pairs):
            robust = attack.robust_accuracy.sel(attack=kind)
            ahead = (tree(robust, a) - tree(robust, b)).mean("group").values
            if (found := first_fall(size, ahead)) is None:
                continue
            k, place = found
            weights = np.zeros(len(size))
            weights[k : k + 2] = 1 - place, place
            slope = (ahead[k + 1] - ahead[k]) * PERCENT / (size[k + 1] - size[k])
            values, by_image = robust_difference(attack, kind, of_stage(a), of_stage(b), weights)
            where = size[k] + place * (size[k + 1] - size[k])
            by_image = None if by_image is None else where - by_image / slope
            name = f"{_called(kind)}: crossing of stages {a} and {b}"
            tests.append(Test(name, where - values / slope, "pixel range", by_image=by_image))
    return tests


@part("C12", "under strong {} every stage is ahead of the one before", "strong {}", each=DECIDING)
def c12(results: Results, kind: str) -> list[Test]:
    """Mean robust accuracy over the strong sizes, every stage minus the one before."""
    attack = stage_data(results, "attack")
    weights = between(attack, *STRONG)
    return [_stages_apart(attack, kind, weights, later, earlier, "strong") for earlier, later in steps(attack)]


@part(
    "C6",
    "under {} L2 is ahead of all stages, L1 and unmerged networks over most of the range",
    "under {}",
    each=DECIDING,
)
def c6(results: Results, kind: str) -> list[Test]:
    """The lead of L2 over the best of the others at its median size: above zero where L2 leads at more than half.

    L2 has its strength of highest mean robust accuracy, and pays for having been chosen among several.
    """
    attack = stage_data(results, "attack")
    sizes = np.flatnonzero(attack.epsilon.values > TOLERANCE)
    if not len(sizes):
        raise NotMeasuredError("no attack of a size above 0 was measured")
    ridge = _curves(attack, kind, ["l2"])
    best = max(ridge, key=lambda labels: ridge[labels][1:].mean())
    others = _curves(attack, kind, OTHERS)
    lead = np.array([ridge[best] - curve for curve in others.values()])  # (other, epsilon)
    # of an even number of sizes the lower middle: above zero only where more than half are
    place = sizes[np.argsort(lead.min(0)[sizes], kind="stable")[(len(sizes) - 1) // 2]]
    rival = list(others)[lead[:, place].argmin()]
    weights = np.eye(lead.shape[1])[place]
    values, by_image = robust_difference(attack, kind, dict(best), dict(rival), weights)
    about = f"{_called(kind)}: L2 {dict(best)['strength']:g} minus {_words(dict(rival))}"
    about = f"{about} at {attack.epsilon.values[place]:g}, its median lead"
    return [Test(about, values, POINTS, tries=len(ridge), by_image=by_image)]


@beside("C6")
def leads(results: Results) -> list[Test]:
    """The share of sizes at which each strength of L2 leads, without MergeMany and with it."""
    attack, tests = stage_data(results, "attack"), []
    robust = attack.robust_accuracy.sel(epsilon=attack.epsilon > TOLERANCE)
    ridge, beaten = ({s: by_group(robust, **dict(s)) for s in _sorts(attack, some)} for some in (["l2"], OTHERS))
    many = [by_group(robust, **dict(labels)) for labels in _sorts(attack, ["merge-many"])]
    for about, others in {"": [*beaten.values()], ", MergeMany among them": [*beaten.values(), *many]}.items():
        most = xr.concat(others, dim="kind", join="inner", coords="minimal", compat="override").max("kind")
        for labels, curve in ridge.items():
            ours, theirs = xr.align(curve, most, join="inner")
            share = (ours > theirs).mean("epsilon")
            told = f"share of sizes at which L2 {dict(labels)['strength']:g} is ahead of all{about}"
            for kind in attack.attack.values:
                name = f"{_called(kind)}: {told}"
                tests.append(defined(name, share.sel(attack=kind).values, "1", limits=(0.0, 1.0)))
    return tests


def _curves(attack: xr.Dataset, kind: str, methods: list[str]) -> dict[tuple, np.ndarray]:
    """Mean robust accuracy over groups by size, for each sort of networks of some methods."""
    robust = under(attack, kind)
    if not (sorts := _sorts(attack, methods)):
        raise NotMeasuredError(f"robust_accuracy was measured for no network of {', '.join(methods)}")
    return {sort: by_group(robust, **dict(sort)).mean("group").values for sort in sorts}


def _sorts(attack: xr.Dataset, methods: list[str]) -> list[tuple]:
    """Labels, as pairs of name and value, of each sort of networks of some methods."""
    names = ("method", "stage", "n_merged", "sweeps", "strength")
    rows = zip(*(attack[name].values.tolist() for name in names), strict=True)
    return sorted({tuple(zip(names, row, strict=True)) for row in rows if row[0] in methods})


def _words(labels: dict) -> str:
    if labels["method"] == "tree":
        return f"stage {labels['stage']}"
    return f"L1 {labels['strength']:g}" if labels["method"] == "l1" else "unmerged networks"


@part("C10a", "accuracy under {} noise rises with the stage", "accuracy under {} noise", each=NOISES)
def c10a(results: Results, noise: str) -> list[Test]:
    """Slope over the stages of the mean accuracy over all sizes of the noise."""
    return [_noise(results, noise, "accuracy")]


@part(
    "C10b",
    "the share of accuracy retained under {} noise rises with the stage",
    "share kept under {} noise",
    each=NOISES,
)
def c10b(results: Results, noise: str) -> list[Test]:
    """As C10a, of the accuracy over that without noise."""
    return [_noise(results, noise, "share retained")]


def _noise(results: Results, noise: str, what: str) -> Test:
    attack = stage_data(results, "attack")
    if noise not in attack.noise.values:
        raise NotMeasuredError(f"{noise} noise was not measured")
    noisy = attack.magnitude > 0
    mean, by_image = (
        found if found is None else PERCENT * slopes(found.sel(magnitude=noisy).mean("magnitude"))
        for found in under_noise(attack, noise, what)
    )
    if by_image is not None and len(by_image) > len(mean):  # a group has no numbers
        by_image = None
    name = f"{what} under {NOISES[noise]} noise, mean over its sizes, slope over the stages"
    return Test(name, mean, f"{POINTS} a stage", by_image=by_image if by_image is None else around(mean, by_image))


@beside("C10")
def largest_noise(results: Results) -> list[Test]:
    """Last stage minus stage 0 under the largest noise."""
    attack, tests = stage_data(results, "attack"), []
    top, size = tree_stages(attack)[-1], float(attack.magnitude[-1])
    for noise, what in product(attack.noise.values, ("accuracy", "share retained")):
        values, by_image = noise_difference(attack, noise, what, top)
        name = f"{what} under {NOISES[noise]} noise of {size:g}: stage {top} minus stage 0"
        tests.append(defined(name, values, POINTS, by_image=by_image))
    return tests
