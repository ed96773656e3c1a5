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
    linear_over_geometric,
    log_variance_falls,
    slopes,
    stage_data,
    tree,
    tree_stages,
)
from ..statistics import Test
from .verdicts import Finding, claim

ORTHOGONAL = 0.5**0.5  # norm of the mean of two orthogonal vectors of norm 1


@claim("C7", "The summed weight norm falls linearly with the stage, and its variance falls.")
def c7(results: Results) -> Finding:
    """The summed weight norm falls with the stage along a line rather than geometrically, and so does its variance."""
    norm = stage_data(results, "regularity").weight_norm.sum("layer")
    stages = tree_stages(norm)
    fall = Test("fall of the weight norm", -slopes(norm, stages), "1 per stage")
    shape = Test("AIC of a geometric decay minus AIC of a line", linear_over_geometric(norm, stages), "1")
    variance = _variance_test("weight norm", norm, stages)
    better = "a line" if shape.effect > 0 else "a geometric decay"
    averaging, words = _averaging(stage_data(results, "regularity"), stages)
    reading = f"the norm changes by {-fall.effect:.3g} a stage and {better} fits better; {words}"
    return Finding([fall, shape, variance, *averaging], fall, reading)


def _averaging(regularity: xr.Dataset, stages: list[int]) -> tuple[list[Test], str]:
    """Whether the fall is what averaging does to vectors of such norms at such an angle; beside the verdict."""
    tests, shares, cosines = [], [], []
    norm = regularity.weight_norm.sum("layer").rename("weight norm")
    predicted = regularity.predicted_norm.sum("layer", skipna=False).rename("predicted norm")
    for before, stage in zip(stages[:-1], stages[1:], strict=True):
        share = tree(norm, stage) / tree(norm, before)
        error = tree(norm, stage) / tree(predicted, stage)
        cosine = tree(regularity.children_cosine.mean("layer"), stage)
        title = f"norm at stage {stage} over its children's, less that of orthogonal children"
        tests.append(Test(title, finite(share) - ORTHOGONAL, "1", decides=False))
        title = f"norm at stage {stage} over the value from its children's norms and cosine, less 1"
        tests.append(Test(title, finite(error) * PERCENT - PERCENT, "%", decides=False))
        tests.append(Test(f"cosine of aligned children, mean over layers, stage {stage}", finite(cosine), "1", False))
        shares.append(finite(share).mean())
        cosines.append(finite(cosine).mean())
    reading = (
        f"averaging leaves {shares[0]:.1%} of the children's norm at stage {stages[1]} and {shares[-1]:.1%} at stage "
        f"{stages[-1]} (orthogonal children: {ORTHOGONAL:.1%}; cosines {cosines[0]:.3f} and {cosines[-1]:.3f})"
    )
    return tests, reading


@claim("C8", "The Lipschitz upper bound falls with the stage, and its variance falls.")
def c8(results: Results) -> Finding:
    """The global Lipschitz bound falls with the stage on a log10 scale, and so does its variance; others beside."""
    regularity = stage_data(results, "regularity")
    stages = tree_stages(regularity)
    upper = applicable(regularity.lipschitz)
    bounds = {str(bound): upper.sel(bound=bound) for bound in upper.bound.values}
    if "global" not in bounds:
        raise NotMeasuredError("the global Lipschitz bound was not measured")
    local = regularity.local_lipschitz.mean("image")
    if has_numbers(local):
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


@claim("C9", "Which of the two models is permuted makes no significant difference.")
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
