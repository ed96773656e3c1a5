"""MergeMany or tree? A star, a fold, trees of other pairs, and MergeMany from where a tree ends stand beside them."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.distances import CONVERGENCE
from ...merging.looks import LOOKS, RIVALS
from ...merging.many import merge_many_sets
from ...merging.methods import merge_sets
from ...random_streams import Seed
from ..figures.style import COLOURS, COLUMN, MARKERS, captioned, draw_legend, spread
from ..figures.style import NAMES as COMMON_NAMES
from ..groups import PERCENT, POINTS, by_group, count_groups, minus, sweeps_in_words
from ..statistics import Test, defined, not_resolved

TITLE = "MergeMany or tree?"
SCHEMA = {"model": "test_accuracy test_loss pairwise_distance sweeps_done converged seconds order"}
NAMES = COMMON_NAMES | RIVALS | {"merge-many-from-tree": LOOKS["merge-many-from-tree"][0]}
PAIRED = ("tree-nearest", "tree-random")  # the tree with other pairs
BESIDE = ("naive", "tree", "merge-many-from-tree")  # merged whatever the rivals are
SHOWN = {  # method -> colour, in the order of their markers
    "tree": COLOURS["tree"],
    "tree-random": COLOURS["tree"],
    "tree-nearest": COLOURS["tree"],
    "merge-many-from-tree": LOOKS["merge-many-from-tree"][1],
    "star": COLOURS["unmerged"],
    "fold": COLOURS["unmerged"],
}


def measure(
    bank: Bank,
    images: Images,
    *,
    rivals: Sequence[str],
    sizes: Sequence[int],
    limits: Sequence[int],
    orders: int,
    seed: Seed = 0,
) -> xr.Dataset:
    """Every way to merge the same networks: a data set of stage ``mergers``.

    Args:
        bank: unmerged networks of some groups.
        images: to be accurate on.
        rivals: methods beside the tree, MergeMany and the naive average.
        sizes: how many networks of each group are merged, its first ones; powers of two.
        limits: of MergeMany's sweeps; the largest one stands for convergence.
        orders: draws of MergeMany's orders, which are numbered in ``order``; the first is the one of other stages.
        seed: of all orders.
    """
    merged = []
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = bank.where(group=group)
        for size in sizes:
            some = members.select(slice(size))
            merged += merge_sets([some], [*BESIDE, *rivals], seed=seed)
            seeds = [seed, *(f"{seed}/order-{order}" for order in range(1, orders))]
            for order, many in enumerate(merge_many_sets([some] * orders, limits=limits, seeds=seeds)):
                merged.append(many.relabel(node=order))
    everything = Bank.concat(merged)
    scores = evaluate(everything, images).rename(accuracy="test_accuracy", loss="test_loss")
    history = everything.history.reset_coords(drop=True).assign_coords(scores.coords)
    order = everything.array(everything.labels["node"], name="order", long_name="draw of the orders", units="1")
    return xr.merge([scores, history, order.to_dataset()], compat="identical", combine_attrs="override")


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """Accuracy and time of every way minus those of the tree, by number of models; what distances say of accuracy."""
    tests, words, accuracy = [], [], data.test_accuracy
    limits = sorted(set(data.sweeps[(data.method == "merge-many").values].values.tolist()))
    names = sorted(set(data.method.values.tolist()) - {"tree", "merge-many"})
    ways = {f"MergeMany, {sweeps_in_words(limit)}": {"method": "merge-many", "sweeps": limit} for limit in limits}
    ways |= {NAMES.get(name, name): {"method": name} for name in names}
    for size in np.unique(data.n_merged.values):
        base, took = (by_group(each, method="tree", n_merged=size) for each in (accuracy, data.seconds))
        ahead, times = {}, {}
        for name, labels in ways.items():
            merged, seconds = (by_group(each, **labels, n_merged=size) for each in (accuracy, data.seconds))
            ahead[name] = Test(f"{name} minus tree, {size} models", minus(merged, base) * PERCENT, POINTS)
            times[name] = defined(f"time of {name} over the tree's, {size} models", (seconds / took).values, "times")
        tests += [*ahead.values(), *times.values(), *_between_orders(data, size)]
        best = max(ahead, key=lambda name: ahead[name].effect)
        gain, ratio = ahead[best].effect, times[best].effect
        leader = f"{best} ({gain:.1f} points above the tree, {ratio:.2g} times its time)" if gain > 0 else "the tree"
        words.append(f"{leader} for {size} models")
        title = f"rank correlation of accuracy with distance, {size} models"
        tests.append(defined(title, _rank_correlation(data, size), "1"))
    tried = {NAMES[method]: ahead[NAMES[method]] for method in PAIRED if method in names}  # of the most models
    return tests, f"most accurate is {', '.join(words)}; against the tree {not_resolved(tried)}"


def _between_orders(data: xr.Dataset, size: int) -> list[Test]:
    """How much converged MergeMany varies over the orders of its networks, where there are several."""
    many = (data.method == "merge-many") & (data.sweeps == CONVERGENCE) & (data.n_merged == size)
    orders = data.isel(model=many.values)
    if len(np.unique(orders.order)) < 2:
        return []
    spreads = orders.test_accuracy.groupby("group").std(ddof=1).values * PERCENT
    return [Test(f"deviation between orders of converged MergeMany, {size} models", spreads, POINTS)]


def _rank_correlation(data: xr.Dataset, size: int) -> np.ndarray:
    """Spearman's correlation over all merges of the same networks, naive averages left out, (group,)."""
    kept = data.isel(model=((data.n_merged == size) & (data.method != "naive")).values)
    values = []
    for group in np.unique(kept.group.values):
        part = kept.isel(model=(kept.group == group).values)
        values.append(spearmanr(part.pairwise_distance, part.test_accuracy).statistic)
    return np.array(values)


@captioned(
    "Test accuracy of networks merged from the same leaves in several ways against the mean squared distance of the "
    "aligned leaves, the objective of MergeMany; MergeMany stopped after several numbers of sweeps."
)
def draw(data: xr.Dataset) -> Figure:
    """Test accuracy against the mean squared distance of aligned networks, a panel a number of merged networks."""
    sizes = np.unique(data.n_merged.values)
    figure = Figure((COLUMN, (34 + 46 * len(sizes)) / 25.4))
    panels = np.atleast_1d(figure.subplots(len(sizes), 1))
    for axes, size in zip(panels, sizes, strict=True):
        part = data.isel(model=((data.n_merged == size) & (data.method != "naive")).values)
        many = sorted(set(part.sweeps.values[part.method.values == "merge-many"].tolist()))
        look = {"color": COLOURS["merge-many"], "marker": "o", "markersize": 3}
        labels = [{"method": "merge-many", "sweeps": limit} for limit in many]
        places = _against_distance(axes, part, size, labels, "MergeMany, by sweeps", **look)
        for limit, place in zip(many, places, strict=True):
            if limit in (many[0], many[-1]):
                axes.annotate(sweeps_in_words(limit), place, xytext=(5, 3), textcoords="offset points", fontsize=6)
        for position, (method, colour) in enumerate(SHOWN.items()):
            label = "tree, neighbours" if method == "tree" else NAMES.get(method, method)
            if method in part.method.values:
                look = {"color": colour, "marker": MARKERS[1 + position], "linestyle": "none", "markersize": 4}
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
