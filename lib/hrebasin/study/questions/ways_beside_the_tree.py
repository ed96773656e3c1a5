"""Every way to merge the same networks beside the tree, as comparisons over groups, by number of networks."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from ...merging.distances import CONVERGENCE
from ...merging.looks import ENSEMBLE, LOOKS, RIVALS
from ..groups import PERCENT, POINTS, by_group, differences, has_numbers, sweeps_in_words
from ..statistics import Test, defined
from .measured_mergers import BARRIERS, LEFT_OUT
from .wording import way_in_words

NAMES = {name: title for name, (title, _) in (LOOKS | RIVALS | {"ensemble": ENSEMBLE}).items()}
NOT_MERGED = ("unmerged", "ensemble", LEFT_OUT)


def ways_of(data: xr.Dataset) -> dict[str, dict]:
    """Name -> labels of every way that is not the tree."""
    limits = sorted(set(data.sweeps[(data.method == "merge-many").values].values.tolist()))
    ways = {f"MergeMany, {sweeps_in_words(limit)}": {"method": "merge-many", "sweeps": limit} for limit in limits}
    names = sorted(set(data.method.values.tolist()) - {"tree", "merge-many", "unmerged", LEFT_OUT})
    return ways | {NAMES.get(name, name): {"method": name} for name in names}


def of_size(data: xr.Dataset, size: int) -> xr.Dataset:
    """What was made of so many networks."""
    return data.isel(model=((data.n_merged == size) & ~data.method.isin(("unmerged", LEFT_OUT))).values)


def size_of(data: xr.Dataset) -> int:
    """How many networks were merged at most."""
    return int(data.n_merged.values[data.method.values == "tree"].max())


def accuracies(data: xr.Dataset) -> dict[str, tuple[float, float]]:
    """Test accuracy of most merged networks in percent, without and with REPAIR, by method; nan where not measured.

    MergeMany counts once it has converged.
    """
    part, found = of_size(data, size_of(data)), {}
    for way in sorted({*part.method.values.tolist()} - {*NOT_MERGED}):
        labels = {"method": way} | ({"sweeps": CONVERGENCE} if way == "merge-many" else {})
        columns = (part[name] for name in ("test_accuracy", "repaired_accuracy") if name in part)
        means = [PERCENT * float(by_group(each, **labels).mean()) for each in columns]
        found[way] = means[0], means[1] if len(means) > 1 else np.nan
    return found


def beside_the_tree(data: xr.Dataset, size: int) -> tuple[dict[str, Test], dict[str, Test]]:
    """Accuracy minus the tree's and time over the tree's, by way; the ensemble has no time."""
    part = of_size(data, size)
    base, took = (by_group(each, method="tree") for each in (part.test_accuracy, part.seconds))
    ahead, times = _minus(part.test_accuracy, ways_of(part), base, f"{{}} minus tree, {size} models"), {}
    for name, labels in _merging(ways_of(part)).items():
        ratio = by_group(part.seconds, **labels) / took
        times[name] = defined(f"time of {name} over the tree's, {size} models", ratio.values, "times")
    return ahead, times


def _merging(ways: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """Those of the ways that merge networks."""
    return {name: labels for name, labels in ways.items() if labels["method"] not in NOT_MERGED}


def _minus(accuracy: xr.DataArray, ways: Mapping[str, Mapping], base: xr.DataArray, title: str) -> dict[str, Test]:
    """Accuracy of each way, whose name the title takes, minus a base (group,)."""
    merged = {name: by_group(accuracy, **labels) for name, labels in ways.items()}
    return {name: defined(title.format(name), differences(m, base) * PERCENT, POINTS) for name, m in merged.items()}


def also_beside(data: xr.Dataset, size: int) -> list[Test]:
    """Accuracy under strong attack minus the tree's, and what REPAIR gains, where they were measured."""
    part = of_size(data, size)
    tests = [*strong_beside(part, size).values()]
    if "repaired_accuracy" in data:
        kept = part.isel(model=part.repaired_accuracy.notnull().values)
        for name, labels in ({"tree": {"method": "tree"}} | ways_of(kept) if kept.sizes["model"] else {}).items():
            gained = by_group(kept.repaired_accuracy - kept.test_accuracy, **labels).values * PERCENT
            tests.append(defined(f"REPAIR on top of {name}, {size} models", gained, POINTS))
    return tests


def strong_beside(part: xr.Dataset, size: int) -> dict[str, Test]:
    """Accuracy under strong attack minus the tree's, by way; none where it was not measured."""
    if "strong_accuracy" not in part or not has_numbers(part.strong_accuracy):
        return {}
    kept = part.isel(model=part.strong_accuracy.notnull().values)
    base = by_group(kept.strong_accuracy, method="tree")
    return _minus(kept.strong_accuracy, ways_of(kept), base, f"strong FGSM: {{}} minus tree, {size} models")


def beside_unmerged(data: xr.Dataset) -> dict[str, Test]:
    """Accuracy under strong FGSM of most merged networks minus that of unmerged ones, by way.

    The tree, naive averages and MergeMany before convergence are left out; empty where it was not measured.
    """
    if "strong_accuracy" not in data:
        return {}
    size, kept = size_of(data), data.isel(model=data.strong_accuracy.notnull().values)
    alone, part = by_group(kept.strong_accuracy, method="unmerged"), of_size(kept, size)
    ways = {
        name: labels
        for name, labels in _merging(ways_of(part)).items()
        if labels["method"] != "naive" and labels.get("sweeps", CONVERGENCE) == CONVERGENCE
    }
    return _minus(part.strong_accuracy, ways, alone, f"strong FGSM: {{}} of {size} minus unmerged")


def between_orders(data: xr.Dataset, size: int) -> list[Test]:
    """How much each way varies over the orders of networks, layers and images, where there are several."""
    return [
        defined(f"deviation between orders of {way_in_words(way)}, {size} models", values.std(0, ddof=1), POINTS)
        for way, values in orders_of(data, size).items()
    ]


def orders_of(data: xr.Dataset, size: int) -> dict[str, np.ndarray]:
    """Test accuracy in percent, (order, group), by way of those that were merged in several orders."""
    part, found = of_size(data, size).set_coords("order"), {}
    part = part.isel(model=((part.method != "merge-many") | (part.sweeps == CONVERGENCE)).values)
    for method in np.unique(part.method.values).tolist():
        one = part.test_accuracy[(part.method == method).values] * PERCENT
        if len(orders := np.unique(one.order)) > 1:
            way = f"MergeMany, {sweeps_in_words(CONVERGENCE)}" if method == "merge-many" else NAMES.get(method, method)
            found[way] = np.stack([by_group(one, order=order) for order in orders])
    return found


def left_out(data: xr.Dataset, size: int) -> list[Test]:
    """Loss of the means that MergeMany aligns networks to, over that of the tree's network."""
    kept, tests = data.isel(model=((data.method == LEFT_OUT) & (data.n_merged == size - 1)).values), []
    of_tree = by_group(data.test_loss, method="tree", n_merged=size)
    for sweeps in np.unique(kept.sweeps.values).tolist():
        loss = differences(by_group(kept.test_loss, sweeps=sweeps), of_tree)
        when = f"after {sweeps_in_words(sweeps)}" if sweeps else "before any sweep"
        beside = when.replace("after converged", "converged")
        title = f"loss of means of all but one {beside} minus that of the tree, {size} models"
        tests.append(defined(title, loss, "nat"))
    return tests


def barriers(data: xr.Dataset) -> list[Test]:
    """Between neighbours, before and after matching, without and with fitted temperatures."""
    tests = []
    for name in BARRIERS:
        for alignment in data.alignment.values if name in data else ():
            values = data[name].sel(alignment=alignment)
            values = values.isel(model=values.notnull().values if has_numbers(values) else slice(None))
            fitted = ", temperatures fitted" * name.endswith("fitted")
            title = f"loss barrier of neighbours {alignment} matching{fitted}"
            tests.append(defined(title, by_group(values, method="unmerged").values, "nat"))
    return tests


def calibration(data: xr.Dataset, sizes) -> list[Test]:
    """Calibration error and likelihood of the tree by number of models, 1 for unmerged networks."""
    tests = []
    about = {"ece": "calibration error", "nll": "negative log-likelihood"}
    for name, text in about.items():
        for variable, fitted in ((name, ""), (f"{name}_fitted", ", temperature fitted")):
            for size in (1, *sizes) if variable in data else ():
                values = by_group(data[variable], method="tree" if size > 1 else "unmerged", n_merged=size).values
                tests.append(defined(f"{text} of the tree of {size}{fitted}", values, "nat" if name == "nll" else "1"))
    return tests


def rank_correlation(data: xr.Dataset, size: int) -> np.ndarray:
    """Spearman's correlation over all merges of the same networks, naive averages left out, (group,)."""
    kept = of_size(data, size)
    kept = kept.isel(model=(~kept.method.isin(("naive", "ensemble"))).values)
    values = []
    for group in np.unique(kept.group.values):
        part = kept.isel(model=(kept.group == group).values)
        values.append(spearmanr(part.pairwise_distance, part.test_accuracy).statistic)
    return np.array(values)
