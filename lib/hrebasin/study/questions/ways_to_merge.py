"""MergeMany or tree? Every known way to merge the same networks stands beside them."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ...merging.distances import CONVERGENCE
from ...merging.looks import LOOKS, RIVALS
from ..figures.style import COLOURS, COLUMN, captioned, draw_legend, spread
from ..figures.style import NAMES as COMMON_NAMES
from ..groups import PERCENT, POINTS, by_group, count_groups, differences, has_numbers, sweeps_in_words
from ..statistics import Test, defined
from .measured_mergers import BARRIERS, BESIDE, LEFT_OUT, measure
from .wording import amount, listed, signed, within

__all__ = ["BESIDE", "NAMES", "SCHEMA", "TITLE", "answer", "draw", "measure"]

TITLE = "Is the tree ever more accurate than converged MergeMany?"
# Further variables, see `measure`, are in data sets that were measured since there are rivals.
SCHEMA = {"model": "test_accuracy test_loss pairwise_distance sweeps_done converged seconds order"}
NAMES = COMMON_NAMES | RIVALS | {"merge-many-from-tree": LOOKS["merge-many-from-tree"][0], "ensemble": "ensemble"}
NOT_MERGED = ("unmerged", "ensemble", LEFT_OUT)
CLOSE = 1.0  # percentage points below the best that a cheaper way may lie
SHOWN = {  # method -> colour and marker
    "tree": (COLOURS["tree"], "s"),
    "tree-random": (COLOURS["tree"], "^"),
    "tree-nearest": (COLOURS["tree"], "D"),
    "merge-many-from-tree": (LOOKS["merge-many-from-tree"][1], "v"),
    "cycle-consistent": (COLOURS["l2"], "*"),
    "star": (COLOURS["unmerged"], "P"),
    "fold": (COLOURS["unmerged"], "X"),
    "activations": (COLOURS["l1"], "<"),
    "correlations": (COLOURS["l1"], ">"),
    "straight-through": (COLOURS["l1"], "p"),
    "ot-fusion": (COLOURS["naive"], "h"),
}


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """Accuracy, robustness and time of every way beside the tree's, by number of models; what distances and means of
    all networks but one say; barriers and calibration."""
    tests, converged = [], {}
    sizes = np.unique(data.n_merged.values[data.method.values == "tree"]).tolist()
    for size in sizes:
        ahead, times = _beside_the_tree(data, size)
        tests += [*ahead.values(), *times.values(), *_also_beside(data, size), *_between_orders(data, size)]
        tests += _left_out(data, size)
        title = f"rank correlation of accuracy with distance, {size} models"
        tests.append(defined(title, _rank_correlation(data, size), "1"))
        if size > 2:  # of two networks both are the same
            converged[size] = ahead[f"MergeMany, {sweeps_in_words(CONVERGENCE)}"]
    # of the most models
    said = [*_tree_or_merge_many(converged), *_recommended(ahead, times, size), *_outside_of_a_basin(data, size)]
    return [*tests, *_barriers(data), *_calibration(data, sizes)], " ".join(said)


def _tree_or_merge_many(converged: Mapping[int, Test]) -> Iterator[str]:
    """Whether the tree is ahead of converged MergeMany at any size, and by how much at the largest."""
    verdicts = {test.yes_or_no() for test in converged.values()}  # of MergeMany being ahead
    verdict = "Yes" if "No" in verdicts else "No" if "Yes" in verdicts else "Not resolved"
    open_sizes = [str(n) for n, one in converged.items() if one.yes_or_no() == "Not resolved"]
    size, test = max(converged.items())
    if test.sign:
        more, beside = "more" if test.sign > 0 else "less", within(test, mirrored=test.sign < 0)
        yield f"{verdict}. Converged MergeMany of {size} is {amount(test)} {more} accurate than the tree {beside}."
    else:
        yield f"{verdict}. The accuracy of converged MergeMany of {size} minus the tree's is {signed(test)}."
    if verdict != "Not resolved" and open_sizes:
        yield f"The difference at {listed(open_sizes)} networks is not resolved."


def _recommended(ahead: Mapping[str, Test], times: Mapping[str, Test], size: int) -> Iterator[str]:
    """The most accurate way to merge, and a cheaper one that comes close."""
    known = [name for name in times if ahead[name].n]
    if not known:
        yield f"No way's accuracy beside the tree's is known for {size} networks."
        return
    best = max(known, key=lambda name: ahead[name].effect)
    if ahead[best].effect <= 0:
        yield f"No way makes a more accurate network of {size} than the tree."
        return
    ways, lead = len(times) + 1, f"{amount(ahead[best])} above the tree {within(ahead[best])}"
    yield f"{_begun(best)} is the most accurate of {ways} ways to merge {size} networks: {lead}."
    close = [name for name in known if ahead[name].effect >= ahead[best].effect - CLOSE]
    cheapest = min(close, key=lambda name: times[name].effect)
    took = f"takes {times[cheapest].effect:.2g} times as long as the tree"
    if cheapest != best:
        yield f"{_begun(cheapest)} comes within {CLOSE:g} point of it."
    yield f"It {took}."


def _begun(way: str) -> str:
    """A way's name as it begins a sentence."""
    name = _spoken(way)
    return f"{name[0].upper()}{name[1:]}"


def _spoken(way: str) -> str:
    """A way's name as it stands in a sentence."""
    name, _, sweeps = way.partition(", ")
    return (
        f"converged {name}" if sweeps == sweeps_in_words(CONVERGENCE) else f"{name} after {sweeps}" if sweeps else name
    )


def recommendation(data: xr.Dataset) -> str:
    """Which way to take for the most networks that were merged, in sentences with numbers."""
    size = int(data.n_merged.values[data.method.values == "tree"].max())
    return " ".join(_recommended(*_beside_the_tree(data, size), size))


def _ways(data: xr.Dataset) -> dict[str, dict]:
    """Name -> labels of every way that is not the tree."""
    limits = sorted(set(data.sweeps[(data.method == "merge-many").values].values.tolist()))
    ways = {f"MergeMany, {sweeps_in_words(limit)}": {"method": "merge-many", "sweeps": limit} for limit in limits}
    names = sorted(set(data.method.values.tolist()) - {"tree", "merge-many", "unmerged", LEFT_OUT})
    return ways | {NAMES.get(name, name): {"method": name} for name in names}


def _of_size(data: xr.Dataset, size: int) -> xr.Dataset:
    """What was made of so many networks."""
    return data.isel(model=((data.n_merged == size) & ~data.method.isin(("unmerged", LEFT_OUT))).values)


def _beside_the_tree(data: xr.Dataset, size: int) -> tuple[dict[str, Test], dict[str, Test]]:
    """Accuracy minus the tree's and time over the tree's, by way; the ensemble has no time."""
    part = _of_size(data, size)
    base, took = (by_group(each, method="tree") for each in (part.test_accuracy, part.seconds))
    ahead, times = {}, {}
    for name, labels in _ways(part).items():
        merged, seconds = (by_group(each, **labels) for each in (part.test_accuracy, part.seconds))
        ahead[name] = defined(f"{name} minus tree, {size} models", differences(merged, base) * PERCENT, POINTS)
        if labels["method"] not in NOT_MERGED:
            times[name] = defined(f"time of {name} over the tree's, {size} models", (seconds / took).values, "times")
    return ahead, times


def _also_beside(data: xr.Dataset, size: int) -> list[Test]:
    """Accuracy under strong attack minus the tree's, and what REPAIR gains, where they were measured."""
    part, tests = _of_size(data, size), []
    if "strong_accuracy" not in data or not has_numbers(part.strong_accuracy):
        return tests
    kept = part.isel(model=part.strong_accuracy.notnull().values)
    for name, labels in {"tree": {"method": "tree"}, **_ways(kept)}.items():
        strong = (
            differences(*(by_group(kept.strong_accuracy, **which) for which in (labels, {"method": "tree"}))) * PERCENT
        )
        if name != "tree":
            tests.append(defined(f"strong FGSM: {name} minus tree, {size} models", strong, POINTS))
        if labels["method"] not in NOT_MERGED:
            gained = by_group(kept.repaired_accuracy - kept.test_accuracy, **labels).values * PERCENT
            tests.append(defined(f"REPAIR on top of {name}, {size} models", gained, POINTS))
    return tests


def _between_orders(data: xr.Dataset, size: int) -> list[Test]:
    """How much each way varies over the orders of networks, layers and images, where there are several."""
    part, tests = _of_size(data, size), []
    part = part.isel(model=((part.method != "merge-many") | (part.sweeps == CONVERGENCE)).values)
    for method in sorted(set(part.method.values[part.order.values > 0].tolist())):
        one = part.isel(model=(part.method == method).values)
        spreads = one.test_accuracy.groupby("group").std(ddof=1).values * PERCENT
        name = "converged MergeMany" if method == "merge-many" else NAMES.get(method, method)
        tests.append(defined(f"deviation between orders of {name}, {size} models", spreads, POINTS))
    return tests


def _left_out(data: xr.Dataset, size: int) -> list[Test]:
    """Loss of the means that MergeMany aligns networks to, over that of the tree's network."""
    kept, tests = data.isel(model=((data.method == LEFT_OUT) & (data.n_merged == size - 1)).values), []
    for sweeps in np.unique(kept.sweeps.values).tolist():
        loss = differences(
            by_group(kept.test_loss, sweeps=sweeps), by_group(data.test_loss, method="tree", n_merged=size)
        )
        when = f"after {sweeps_in_words(sweeps)}" if sweeps else "before any sweep"
        beside = when.replace("after converged", "converged")
        title = f"loss of means of all but one {beside} minus that of the tree, {size} models"
        tests.append(defined(title, loss, "nat"))
    return tests


def _outside_of_a_basin(data: xr.Dataset, size: int) -> Iterator[str]:
    """Whether means of all networks but one are ever worse than each of the tree's nodes, and whether that costs.

    Data from before the number of ``images`` was noted are silent: there, both losses are of different images.
    """
    left = data.isel(model=((data.method == LEFT_OUT) & (data.n_merged == size - 1)).values)
    nodes = data.isel(model=((data.method == "tree") & (data.n_merged <= size) & (data.order == 0)).values)
    if "images" not in data or not left.sizes["model"] or not nodes.sizes["model"]:
        return
    worst, beside = (part.test_loss.groupby("group").max() for part in (left, nodes))
    excess = defined(f"worst loss of means of all but one, {size} models", differences(worst, beside), "nat")
    yield (
        f"Is a mean of all networks but one ever outside of a basin? {excess.yes_or_no()}: its worst loss over the "
        f"sweeps minus that of the tree's worst node is {excess.told()}."
    )
    accuracy = by_group(_of_size(data, size).test_accuracy, method="merge-many", sweeps=CONVERGENCE)
    both = xr.align(worst - beside, accuracy)
    if both[0].size > 2 and all(len(np.unique(each)) > 1 for each in both):
        rank = spearmanr(*both)
        told = "does not go" if rank.pvalue > 0.05 else "goes"
        lower = "lower" if rank.statistic < 0 or rank.pvalue > 0.05 else "higher"
        yield (
            f"It {told} with {lower} accuracy of converged MergeMany: their rank correlation over {both[0].size} trees "
            f"is {rank.statistic:.2g} (p = {rank.pvalue:.2g})."
        )


def _barriers(data: xr.Dataset) -> list[Test]:
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


def _calibration(data: xr.Dataset, sizes) -> list[Test]:
    """Calibration error and likelihood of the tree by number of models, 1 for unmerged networks."""
    tests = []
    about = {"ece": "calibration error", "nll": "negative log-likelihood"}
    for name, text in about.items():
        for variable, fitted in ((name, ""), (f"{name}_fitted", ", temperature fitted")):
            for size in (1, *sizes) if variable in data else ():
                values = by_group(data[variable], method="tree" if size > 1 else "unmerged", n_merged=size).values
                tests.append(defined(f"{text} of the tree of {size}{fitted}", values, "nat" if name == "nll" else "1"))
    return tests


def _rank_correlation(data: xr.Dataset, size: int) -> np.ndarray:
    """Spearman's correlation over all merges of the same networks, naive averages left out, (group,)."""
    kept = _of_size(data, size)
    kept = kept.isel(model=(~kept.method.isin(("naive", "ensemble"))).values)
    values = []
    for group in np.unique(kept.group.values):
        part = kept.isel(model=(kept.group == group).values)
        values.append(spearmanr(part.pairwise_distance, part.test_accuracy).statistic)
    return np.array(values)


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    size = int(data.n_merged.values[data.method.values == "tree"].max())
    test = _beside_the_tree(data, size)[0].get(f"MergeMany, {sweeps_in_words(CONVERGENCE)}")
    if test is None:
        return ""
    place = {1: "more accurate than", -1: "less accurate than", 0: "not resolved from"}[test.sign]
    return f"Converged MergeMany of {size} is {place} the tree."


@captioned(
    "Test accuracy of networks merged from the same leaves in several ways against the mean squared distance of the "
    "aligned leaves, the objective of MergeMany; MergeMany stopped after several numbers of sweeps.",
    seen=_seen,
)
def draw(data: xr.Dataset) -> Figure:
    """Test accuracy against the mean squared distance of aligned networks, a panel a number of merged networks."""
    sizes = np.unique(data.n_merged.values[data.method.values == "tree"])
    figure = Figure((COLUMN, (34 + 46 * len(sizes)) / 25.4))
    panels = np.atleast_1d(figure.subplots(len(sizes), 1))
    for axes, size in zip(panels, sizes, strict=True):
        part = _of_size(data, size)
        part = part.isel(model=(~part.method.isin(("naive", "ensemble"))).values)
        many = sorted(set(part.sweeps.values[part.method.values == "merge-many"].tolist()))
        look = {"color": COLOURS["merge-many"], "marker": "o", "markersize": 3}
        labels = [{"method": "merge-many", "sweeps": limit} for limit in many]
        places = _against_distance(axes, part, size, labels, "MergeMany, by sweeps", **look)
        for limit, place in zip(many, places, strict=True):
            if limit in (many[0], many[-1]):
                where, side = ((5, 3), "left") if limit == many[-1] else ((-5, -6), "right")  # into the panel
                text = {"xytext": where, "textcoords": "offset points", "fontsize": 6, "ha": side}
                axes.annotate(sweeps_in_words(limit), place, **text)
        for method, (colour, marker) in SHOWN.items():
            label = "tree, neighbours" if method == "tree" else NAMES.get(method, method)
            if method in part.method.values:
                look = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 4}
                _against_distance(axes, part, size, [{"method": method}], label, **look)
        axes.set(title=f"{size} models", ylabel="test accuracy (%)")
        axes.margins(0.12)
    panels[-1].set_xlabel("mean squared distance of aligned networks (1)")
    return draw_legend(figure, count_groups(data), columns=2)


def _against_distance(axes, part: xr.Dataset, size: int, labels: list[dict], label: str, **look) -> list[tuple]:
    """Means over groups of networks with these labels, with the spread of their accuracy; their places."""
    pairs, places = size * (size - 1) / 2, []
    for each in labels:
        distance, accuracy = by_group(part.pairwise_distance, **each), by_group(part.test_accuracy, **each) * PERCENT
        places.append((distance.values.mean() / pairs, accuracy.values.mean()))
        if len(accuracy) > 1:
            axes.vlines(places[-1][0], *spread(accuracy.values), color=look["color"], linewidth=1)
    axes.plot(*np.transpose(places), label=label, **look)
    return places
