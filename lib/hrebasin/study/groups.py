"""Comparisons over groups: nodes averaged within a tree first, then one value per tree; and what a test says of it."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import xarray as xr

from ..merging.distances import CONVERGENCE

TOLERANCE = 1e-9  # of a coordinate such as epsilon, whose steps are rounded
PERCENT = 100.0  # percentage points in an accuracy of 1
POINTS = "percentage points"
SAME_CHOICE = 0.5  # percentage points; one standard error of an accuracy of 50 % on 10,000 test images
LEAST_STRONG = 0.015  # epsilon from which an attack counts as strong, as in C5
VARYING = 4  # networks per group, at least, whose variance is compared
BROKEN = 0.1  # epsilon at which every network must break

Results = Mapping[str, xr.Dataset]  # data sets by stage


class NotMeasuredError(LookupError):
    """The data sets at hand do not hold what a comparison needs."""


def count_groups(dataset: xr.Dataset) -> int:
    """Number of groups in a data set."""
    return len(np.unique(dataset["group"].values))


def sweeps_in_words(limit: int) -> str:
    """A limit of MergeMany's sweeps, such as "2 sweeps"; or that there was none."""
    return "converged" if limit == CONVERGENCE else f"{limit} sweep{'s' * (limit > 1)}"


def stage_data(results: Mapping[str, xr.Dataset], stage: str) -> xr.Dataset:
    """The data set of a stage; NotMeasuredError when it is not there."""
    if stage not in results:
        raise NotMeasuredError(f"the data set of stage {stage!r} is missing")
    return results[stage]


def by_group(array: xr.DataArray, **labels) -> xr.DataArray:
    """Mean over the networks (or pairs) of each group, (group, ...), of those with the given labels.

    Args:
        array: (model, ...) or (pair, ...), with the coordinate ``group``.
        labels: a value for each coordinate that selects, such as ``method="tree", stage=2``.

    Raises:
        NotMeasuredError: nothing has these labels.
    """
    return _average(array, mask(array, labels))


def on_same_leaves(array: xr.DataArray, first: Mapping, second: Mapping) -> tuple[xr.DataArray, xr.DataArray]:
    """`by_group` of networks with the labels ``first`` and ``second``, only of those merged from the same leaves.

    Sets of the same size and group are made of the same leaves when they have the same ``node``. A mean over four nodes
    on one side and a single network on the other would differ in spread for that reason alone.
    """
    masks, _ = _of_same_leaves(array, first, second)
    return tuple(_average(array, each) for each in masks)


def pairs_of_same_leaves(array: xr.DataArray, first: Mapping, second: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """The values (pair,) that `on_same_leaves` averages: those of both sides in the same order."""
    masks, place = _of_same_leaves(array, first, second)
    return tuple(array.values[each][np.argsort(place[each])] for each in masks)


def _of_same_leaves(array: xr.DataArray, *sides: Mapping) -> tuple[list[np.ndarray], np.ndarray]:
    """Which networks (model,) of each side are made of leaves that those of the other are, and a number for leaves."""
    masks = [mask(array, labels) for labels in sides]
    group, node = array["group"].values, array["node"].values
    place = group * (node.max() + 1) + node
    shared = np.logical_and(*(np.isin(place, place[each]) for each in masks))
    if not shared.any():
        raise NotMeasuredError(f"no networks of the same leaves have {' and '.join(map(str, map(dict, sides)))}")
    return [each & shared for each in masks], place


def mask(array: xr.DataArray | xr.Dataset, labels: Mapping) -> np.ndarray:
    """Which networks (or pairs) have the given labels, (model,); NotMeasuredError where none has."""
    there = array.coords.variables
    found = np.ones(there["group"].shape, dtype=bool)
    for name, value in labels.items():
        found &= there[name].values == value
    if not found.any():
        wanted = ", ".join(f"{name} {value}" for name, value in labels.items())
        raise NotMeasuredError(f"{getattr(array, 'name', 'nothing')} was not measured for {wanted}")
    return found


def _average(array: xr.DataArray, chosen: np.ndarray) -> xr.DataArray:
    labels = array.coords.variables
    [dim] = labels["group"].dims
    ordered = array.variable.transpose(dim, ...)
    selected = ordered.values[chosen]  # not of the array itself: that would pick of every label too
    group, position = np.unique(labels["group"].values[chosen], return_inverse=True)
    values = np.stack([selected[position == i].mean(0) for i in range(len(group))])
    coords = {name: label for name, label in labels.items() if dim not in label.dims}
    return xr.DataArray(values, dims=("group", *ordered.dims[1:]), coords=coords | {"group": group}, name=array.name)


def of_stage(stage: int) -> dict:
    """Labels of a stage of the tree; stage 0 is the unmerged networks."""
    return {"method": "tree" if stage else "unmerged", "stage": stage}


def tree(array: xr.DataArray, stage: int) -> xr.DataArray:
    """`by_group` of a stage of the tree; stage 0 is the unmerged networks."""
    return by_group(array, **of_stage(stage))


def tree_stages(dataset: xr.Dataset | xr.DataArray) -> list[int]:
    """Stages of the tree in a data set, 0 first; NotMeasuredError unless there are two."""
    stages = sorted({int(s) for s, m in zip(dataset.stage.values, dataset.method.values, strict=True) if m == "tree"})
    if not stages or "unmerged" not in dataset.method.values:
        raise NotMeasuredError("unmerged networks and stages of the tree are needed, and one is missing")
    return [0, *stages]


def steps(dataset: xr.Dataset | xr.DataArray) -> list[tuple[int, int]]:
    """Every stage of the tree with the next one."""
    return list(pairwise(tree_stages(dataset)))


def tree_and_many(n: int, limit: int) -> tuple[dict, dict]:
    """Labels of networks that the tree merged from n, and that MergeMany did with a limit of sweeps."""
    return {"method": "tree", "n_merged": n}, {"method": "merge-many", "n_merged": n, "sweeps": limit}


def minus(first: xr.DataArray, second: xr.DataArray) -> np.ndarray:
    """Differences (group,) over the groups in which both sides are numbers; NotMeasuredError when there are none."""
    return finite(differences(first, second))


def differences(first: xr.DataArray, second: xr.DataArray) -> np.ndarray:
    """Differences (group,) over the groups that both sides have; not a number where one of them is none."""
    _, here, there = np.intersect1d(first["group"].values, second["group"].values, return_indices=True)
    return first.values[here] - second.values[there]


def finite(values) -> np.ndarray:
    """Those of the values (group,) that are numbers; NotMeasuredError when none is."""
    values = np.asarray(values)
    values = values[np.isfinite(values)]
    if not len(values):
        raise NotMeasuredError("no group has both sides of a comparison")
    return values


def has_numbers(array: xr.DataArray) -> bool:
    """Whether any value was measured; what is not applicable to networks holds none."""
    return bool(array.notnull().any())


def applicable(array: xr.DataArray) -> xr.DataArray:
    """The array; NotMeasuredError where it holds no numbers, with the reason that its ``comment`` gives."""
    if not has_numbers(array):
        raise NotMeasuredError(array.attrs.get("comment", f"{array.name} holds no numbers"))
    return array


def slopes(array: xr.DataArray) -> np.ndarray:
    """Slope of the straight line through each group's values over the stages of the tree, (group, ...), per stage.

    Groups count that have every stage.

    Args:
        array: (model, ...); over further dimensions, such as images, it may lack numbers.
    """
    stages = tree_stages(array)
    parts = xr.align(*(tree(array, stage) for stage in stages), join="inner")
    values = np.stack([part.values for part in parts], axis=1)
    if values.ndim == 2:
        values = values[np.isfinite(values).all(1)]
    if not len(values):
        raise NotMeasuredError(f"no group has numbers for all of the stages {stages}")
    weights = np.asarray(stages) - np.mean(stages)
    return np.tensordot(values, weights / (weights @ weights), axes=(1, 0))


def variance_falls(array: xr.DataArray) -> tuple[np.ndarray, int]:
    """How much smaller the variance among the networks of a group is at a later stage than at stage 0.

    The later stage is the last with `VARYING` networks per group: of fewer, sample variances are so skewed that a fall
    is found too often. The difference of sample variances is unbiased whatever the networks' distribution and number; a
    ratio or its logarithm is not.

    Returns:
        Variance at stage 0 minus variance at the later stage (group,), in squared units; and the later stage.
    """
    for stage in reversed(tree_stages(array)[1:]):
        first, last = (_variance(array, s) for s in (0, stage))
        if first.size and last.size:
            return minus(first, last), stage
    raise NotMeasuredError(f"no stage after stage 0 has {VARYING} networks per group")


def _variance(array: xr.DataArray, stage: int) -> xr.DataArray:
    chosen = mask(array, of_stage(stage))
    values, group = array.values[chosen], array.group.values[chosen]
    each = {one: values[group == one] for one in np.unique(group)}
    result = {one: some.var(ddof=1) for one, some in each.items() if len(some) >= VARYING}
    return xr.DataArray(list(result.values()), dims="group", coords={"group": list(result)})


def crossings(robust: xr.DataArray, earlier: int, later: int) -> np.ndarray:
    """Where robust accuracy (model, epsilon) at an earlier stage falls to that at a later one, (group,): `crossing`."""
    first, second = xr.align(tree(robust, earlier), tree(robust, later), join="outer")
    return np.array([crossing(robust.epsilon.values, ahead) for ahead in (first - second).values])


def first_fall(x: np.ndarray, y: np.ndarray) -> tuple[int, float] | None:
    """Where y first falls from above zero to zero or below: the step of x, and the share of it; None if nowhere."""
    falls = np.flatnonzero((y[:-1] > 0) & (y[1:] <= 0))
    if not len(falls):
        return None
    i = int(falls[0])
    return i, float(y[i] / (y[i] - y[i + 1]))


def crossing(x: np.ndarray, y: np.ndarray) -> float:
    """Where y first falls from above zero to zero or below, by linear interpolation; not a number if nowhere."""
    found = first_fall(x, y)
    return float("nan") if found is None else float(x[found[0]] + found[1] * (x[found[0] + 1] - x[found[0]]))


def is_strong(size):
    """Whether attacks of a size, or of sizes, count as strong and leave something standing."""
    return (size >= LEAST_STRONG) & (size < BROKEN)


def strong(robust: xr.DataArray) -> xr.DataArray:
    """Of robust accuracies (..., epsilon) those of strong attacks that leave something standing."""
    return robust.sel(epsilon=is_strong(robust.epsilon.values))


def large(robust: xr.DataArray) -> xr.DataArray:
    """Mean over strong attacks that leave something standing, (model, ...)."""
    return strong(robust).mean("epsilon").rename("robust_accuracy")
