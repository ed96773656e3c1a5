"""MergeMany or tree? Every known way to merge the same networks stands beside them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ...merging.distances import CONVERGENCE
from ..figures.captions import captioned
from ..figures.headlines import PLACES
from ..figures.style import FEWEST
from ..groups import PERCENT, POINTS, by_group, differences, sweeps_in_words
from ..statistics import Test, defined
from .measured_mergers import BESIDE, LEFT_OUT, measure
from .merger_figure import draw_mergers
from .ways_beside_the_tree import (
    NAMES,
    also_beside,
    barriers,
    beside_the_tree,
    between_orders,
    calibration,
    left_out,
    of_size,
    orders_of,
    rank_correlation,
    size_of,
    strong_beside,
    ways_of,
)
from .wording import amount, listed, signed, span, way_at_first, way_in_words, within

__all__ = ["BESIDE", "NAMES", "SCHEMA", "TITLE", "answer", "draw", "measure"]

TITLE = "Is the tree ever more accurate than converged MergeMany?"
# Further variables, see `measure`, are in data sets that were measured since there are rivals.
SCHEMA = {"model": "test_accuracy test_loss pairwise_distance sweeps_done converged seconds order"}
CLOSE = 1.0  # percentage points below the best that a cheaper way may lie


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """Accuracy, robustness and time of every way beside the tree's, by number of models; what distances and means of
    all networks but one say; barriers and calibration."""
    tests, converged = [], {}
    sizes = np.unique(data.n_merged.values[data.method.values == "tree"]).tolist()
    for size in sizes:
        ahead, times = beside_the_tree(data, size)
        tests += [*ahead.values(), *times.values(), *also_beside(data, size), *between_orders(data, size)]
        tests += left_out(data, size)
        title = f"rank correlation of accuracy with distance, {size} models"
        tests.append(defined(title, rank_correlation(data, size), "1"))
        if size > 2:  # of two networks both are the same
            converged[size] = ahead[f"MergeMany, {sweeps_in_words(CONVERGENCE)}"]
    # of the most models
    said = [*_tree_or_merge_many(converged), *_recommended(ahead, times, size), *_most_robust(data, size)]
    said += [*_spreads(data), *_outside_of_a_basin(data, size)]
    return [*tests, *barriers(data), *calibration(data, sizes)], " ".join(said)


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
        yield f"Among these {test.n} trees the difference at {listed(open_sizes)} networks is not resolved."


def _recommended(ahead: Mapping[str, Test], times: Mapping[str, Test], size: int) -> Iterator[str]:
    """The way with the highest mean accuracy and the next one, its time, and a cheaper one that comes close."""
    known = _ranked(ahead, times)
    if not known:
        yield f"No way's accuracy beside the tree's is known for {size} networks."
        return
    best = known[0]
    if ahead[best].effect <= 0:
        yield f"No way makes a more accurate network of {size} than the tree."
        return
    yield f"{way_at_first(best)} has {_highest(times, size)}: {_above(ahead[best])}."
    yield f"It takes {span(times[best].values)} times the tree's time."
    yield from _next(ahead, known)
    close = [name for name in known if ahead[name].effect >= ahead[best].effect - CLOSE]
    cheapest = min(close, key=lambda name: times[name].effect)
    if cheapest != best:
        took = f"in {span(times[cheapest].values)} times the tree's time"
        yield f"{way_at_first(cheapest)} comes within {CLOSE:g} point of the best {took}."


def _ranked(ahead: Mapping[str, Test], times: Mapping[str, Test]) -> list[str]:
    """The ways whose accuracy beside the tree's is known, the highest first."""
    return sorted((name for name in times if ahead[name].n), key=lambda name: -ahead[name].effect)


def _highest(times: Mapping[str, Test], size: int) -> str:
    return f"the highest mean accuracy of {_several(times) + 1} ways to merge {size} networks"


def _above(test: Test) -> str:
    return f"{amount(test)} above the tree {within(test)}"


def _next(ahead: Mapping[str, Test], ranked: Sequence[str]) -> Iterator[str]:
    """The way that follows the best one, of those measured on as many trees."""
    best, *others = ranked
    if following := next((name for name in others if ahead[name].n == ahead[best].n), None):
        behind = defined("behind", ahead[best].values - ahead[following].values, POINTS)
        yield f"The next is {way_in_words(following)}; the difference is {signed(behind)}."


def _several(ways: Iterable[str]) -> int:
    """How many methods there are among ways; MergeMany counts once, whenever it was stopped."""
    return len({"MergeMany" if way.startswith("MergeMany, ") else way for way in ways})


def most_accurate(data: xr.Dataset) -> str:
    """The way with the highest mean accuracy of most networks, and the next one: sentences behind a comma."""
    size = size_of(data)
    ahead, times = beside_the_tree(data, size)
    ranked = _ranked(ahead, times)
    if not ranked or ahead[ranked[0]].effect <= 0:
        said = next(_recommended(ahead, times, size))
        return f"{said[0].lower()}{said[1:]}"
    best = ranked[0]
    accuracy = PERCENT * by_group(of_size(data, size).test_accuracy, **ways_of(data)[best]).mean().item()
    first = f"{way_in_words(best)} has {_highest(times, size)}: {accuracy:.1f} %, {_above(ahead[best])}."
    return " ".join([first, *_next(ahead, ranked)])


def _repaired(data: xr.Dataset, ahead: Mapping[str, Test], size: int) -> Iterator[str]:
    """How accurate REPAIR makes the tree and the most accurate way to merge, where it was measured."""
    if "repaired_accuracy" not in data:
        return
    part = of_size(data, size)
    part = part.isel(model=part.repaired_accuracy.notnull().values)
    best, told = max(ahead, key=lambda name: ahead[name].effect), []
    for name, labels in ({"the tree": {"method": "tree"}} | {best: ways_of(part).get(best, {})}).items():
        if labels:
            both = (by_group(each, **labels).mean().item() for each in (part.test_accuracy, part.repaired_accuracy))
            without, repaired = (PERCENT * value for value in both)
            told.append(f"{way_in_words(name)} from {without:.1f} to {repaired:.1f} %")
    if told:
        yield f"REPAIR (`repair=True`) changes the accuracy of {listed(told)}."


def _most_robust(data: xr.Dataset, size: int) -> Iterator[str]:
    """The way whose network withstands strong attacks best, where these were tried."""
    strong = strong_beside(of_size(data, size), size)
    known = {name: test for name, test in strong.items() if name != NAMES["ensemble"] and test.n}
    if known:
        best = max(known, key=lambda name: known[name].effect)
        yield (
            f"{way_at_first(best)} has the highest mean accuracy of all {_several(known) + 1} under strong FGSM; the "
            f"difference from the tree is {signed(known[best])}."
        )


def _spreads(data: xr.Dataset) -> Iterator[str]:
    """How much matching seeds move an accuracy, beside how much trees do: in the median of the ways that draw some."""
    several = [(n, ways) for n in np.unique(data.n_merged.values).tolist() if (ways := orders_of(data, n))]
    if not several:
        return
    size, seeds = several[-1]
    (orders, groups), own = next(iter(seeds.values())).shape, [each.std(0, ddof=1).mean() for each in seeds.values()]
    ways = f"the median of {len(seeds)} ways" if len(seeds) > 1 else way_in_words(next(iter(seeds)))
    told = f"the accuracy of {size} models deviates by {np.median(own):.2g} points ({ways})"
    yield f"Over {orders} matching seeds, {told}."
    if groups > 1:
        trees = np.median([each.mean(0).std(ddof=1) for each in seeds.values()])
        yield f"Over {groups} trees it deviates by {trees:.2g} points."


def recommendation(data: xr.Dataset) -> str:
    """Which way to take for the most networks that were merged, in sentences with numbers, and how it is called."""
    size = size_of(data)
    ahead, times = beside_the_tree(data, size)
    said = [
        *_recommended(ahead, times, size),
        *_repaired(data, {name: ahead[name] for name in times}, size),
        *_most_robust(data, size),
    ]
    methods = {way: labels["method"] for way, labels in ways_of(of_size(data, size)).items()}
    told = {
        way: f"`{method}` for {way_in_words(way)}"
        for one in said
        for way, method in methods.items()
        if one.startswith((f"{way_at_first(way)} has the highest", f"The next is {way_in_words(way)};"))
    }
    return " ".join([*said, *([f"As `method=`, write {listed(list(told.values()))}."] if told else [])])


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
    by_sweeps = left.test_loss.groupby("sweeps").max()
    sweeps = int(by_sweeps.sweeps[np.argmax(by_sweeps.values)])
    when = f"after {sweeps_in_words(sweeps)}" if sweeps else "before any sweep"
    yield (
        f"MergeMany aligns each network to the mean of the others. At its worst, {when}, the loss of such a mean minus "
        f"that of the tree's worst network is {signed(excess)}."
    )
    accuracy = by_group(of_size(data, size).test_accuracy, method="merge-many", sweeps=CONVERGENCE)
    both = xr.align(worst - beside, accuracy)
    if both[0].size >= FEWEST and all(len(np.unique(each)) > 1 for each in both):
        rank = spearmanr(*both)
        told = "does not go" if rank.pvalue > 0.05 else "goes"
        lower = "lower" if rank.statistic < 0 or rank.pvalue > 0.05 else "higher"
        yield (
            f"It {told} with {lower} accuracy of converged MergeMany: their rank correlation over {both[0].size} trees "
            f"is {rank.statistic:.2g} (p = {rank.pvalue:.2g})."
        )


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    size = size_of(data)
    test = beside_the_tree(data, size)[0].get(f"MergeMany, {sweeps_in_words(CONVERGENCE)}")
    if test is None:
        return ""
    return f"Converged MergeMany of {size} is {PLACES[test.sign]} the tree."


@captioned(
    "Networks merged from the same leaves in every way, by their number: test accuracy, accuracy under strong FGSM, "
    "the sum of squared distances between aligned networks over that between networks as they are, and the time that "
    "merging took. MergeMany is stopped after several numbers of sweeps. The tree and the ensemble, which runs all "
    "networks and merges none, stand in every column.",
    seen=_seen,
)
def draw(data: xr.Dataset) -> Figure:
    """Accuracy, robustness, distance and time of every way, by number of networks: `draw_mergers`."""
    return draw_mergers(data)
