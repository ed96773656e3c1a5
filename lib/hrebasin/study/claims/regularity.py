"""Claims about norms, Lipschitz bounds and the choice of the permuted network (C7 to C9)."""

import numpy as np
import xarray as xr

from ..groups import (
    PERCENT,
    POINTS,
    SAME_CHOICE,
    NotMeasuredError,
    Results,
    applicable,
    by_group,
    finite,
    has_numbers,
    minus,
    slopes,
    stage_data,
    steps,
    tree,
    tree_stages,
    variance_falls,
)
from ..statistics import Test, defined
from .verdicts import beside, part

STATEMENTS = {
    "C7": "The summed weight norm falls linearly with the stage, and its variance falls.",
    "C8": "The Lipschitz upper bound falls with the stage, and its variance falls.",
    "C9": "Which of the two models is permuted makes no significant difference.",
}
LINEAR = (0.8, 1.25)  # the last step over the first, within which a fall counts as linear
ORTHOGONAL = 0.5**0.5  # norm of the mean of two orthogonal vectors of norm 1


def _norm(results: Results) -> xr.DataArray:
    return stage_data(results, "regularity").weight_norm.sum("layer").rename("weight norm")


@part("C7a", "the summed weight norm falls at every stage", "every stage")
def c7a(results: Results) -> list[Test]:
    """Every stage minus the next."""
    norm = _norm(results)
    return [
        Test(f"weight norm of stage {a} minus stage {b}", minus(tree(norm, a), tree(norm, b)), "1")
        for a, b in steps(norm)
    ]


@part("C7b", "it falls linearly: the last step is 0.8 to 1.25 times the first", "linearly")
def c7b(results: Results) -> list[Test]:
    """The fall to the last stage over the fall to the first, within `LINEAR` (equivalence)."""
    norm = _norm(results)
    found = steps(norm)
    if len(found) < 2:
        raise NotMeasuredError(f"a first and a last step need three stages, got {tree_stages(norm)}")
    first, last = (tree(norm, a) - tree(norm, b) for a, b in (found[0], found[-1]))
    middle, reach = sum(LINEAR) / 2, (LINEAR[1] - LINEAR[0]) / 2
    return [Test("last step of the weight norm over the first", finite(last / first) - middle, "1", reach, middle)]


@part("C7c", "the variance of the summed weight norm among networks falls", "variance")
def c7c(results: Results) -> list[Test]:
    """Variance within a group, stage 0 minus the last stage with four networks per group."""
    return [_variance("weight norm", _norm(results))]


@beside("C7")
def averaging(results: Results) -> list[Test]:
    """Whether the fall is what averaging does to vectors of such norms at such an angle."""
    regularity, norm, tests = stage_data(results, "regularity"), _norm(results), []
    predicted = regularity.predicted_norm.sum("layer", skipna=False).rename("predicted norm")
    for before, stage in steps(norm):
        share, error = tree(norm, stage) / tree(norm, before), tree(norm, stage) / tree(predicted, stage)
        cosine = tree(regularity.children_cosine.mean("layer"), stage)
        title = f"norm at stage {stage} over its children's (of orthogonal ones {ORTHOGONAL:.3f})"
        tests.append(Test(title, finite(share) - ORTHOGONAL, "1", target=ORTHOGONAL))
        title = f"norm at stage {stage} over the value from its children's norms and cosine"
        tests.append(Test(title, finite(error) - 1, "1", target=1.0))
        tests.append(Test(f"cosine of aligned children, mean over layers, stage {stage}", finite(cosine), "1"))
    return tests


@part("C8a", "the Lipschitz upper bound falls at every stage", "every stage")
def c8a(results: Results) -> list[Test]:
    """The global bound, every stage over the next."""
    bound = _bound(results, "global")
    return [
        Test(f"global bound of stage {a} over stage {b}", minus(*_logs(bound, a, b)), "times", ratio=True)
        for a, b in steps(bound)
    ]


@part("C8b", "the variance of the bound among networks falls", "variance")
def c8b(results: Results) -> list[Test]:
    """Variance of the global bound itself, not of its logarithm; as C7c."""
    return [_variance("global bound", _bound(results, "global"))]


@beside("C8")
def other_bounds(results: Results) -> list[Test]:
    """Fall and variance of the other bounds that were measured."""
    regularity, tests = stage_data(results, "regularity"), []
    bounds = {str(name): _bound(results, name) for name in regularity.bound.values if name != "global"}
    local = regularity.local_lipschitz.mean("image")
    if has_numbers(local):
        bounds |= {f"local, radius {radius:g}": local.sel(radius=radius) for radius in local.radius.values}
    for name, bound in bounds.items():
        fall = -slopes(np.log(bound).rename("bound"))
        tests.append(Test(f"{name} bound, one stage over the next", fall, "times", ratio=True))
        tests.append(_variance(f"{name} bound", bound))
    return tests


def _bound(results: Results, name: str) -> xr.DataArray:
    upper = applicable(stage_data(results, "regularity").lipschitz)
    if name not in upper.bound.values:
        raise NotMeasuredError(f"the {name} Lipschitz bound was not measured")
    return upper.sel(bound=name)


def _logs(array: xr.DataArray, *stages: int) -> list[xr.DataArray]:
    return [np.log(tree(array, stage)) for stage in stages]


def _variance(name: str, array: xr.DataArray) -> Test:
    values, last = variance_falls(array)
    return Test(f"variance of the {name} within a group, stage 0 minus stage {last}", values, "1")


@part("C9", "whichever is permuted, accuracy is equal within 0.5 points")
def c9(results: Results) -> list[Test]:
    """First minus second, matched with independent layer orders (equivalence)."""
    return [_choice(results, "other", "independent layer orders")]


@beside("C9")
def same_order(results: Results) -> list[Test]:
    """The same with one layer order: the two problems are transposes, so it is true by construction."""
    return [_choice(results, "same", "the same layer order")]


def _choice(results: Results, order: str, words: str) -> Test:
    choice = stage_data(results, "ablations").choice_accuracy.sel(order=order)
    difference = choice.sel(permuted="first") - choice.sel(permuted="second")
    values = by_group(difference.rename("accuracy")).values * PERCENT
    return defined(f"first minus second permuted, {words}", values, POINTS, margin=SAME_CHOICE)
