"""Which way to merge: a table of accuracies, and what each setting recommends."""

from collections.abc import Mapping
from operator import itemgetter

import numpy as np
import xarray as xr

from ..groups import PERCENT, by_group, count_groups
from ..questions.ways_beside_the_tree import accuracies, size_of
from ..questions.ways_to_merge import most_accurate, recommendation
from .ledger_text import markdown_table
from .places import Settings

RANKS = (max, itemgetter(0))  # with REPAIR or without, and without


def ways_table(settings: Settings) -> str:
    """Accuracy of most merged networks by way and setting, without and with REPAIR, as Markdown.

    Ways are shown that are among the first two somewhere, and those of the paper.
    """
    if not (tried := _tried(settings)):
        return "Not measured yet.\n"
    columns = {name: _accuracies(settings[name].results) for name in tried}
    orders = [sorted(ways, key=lambda way: -rank(ways[way])) for ways in columns.values() for rank in RANKS]
    most = {
        name: [np.fmax.reduce(column) for column in zip(*ways.values(), strict=True)] for name, ways in columns.items()
    }
    shown = dict.fromkeys(["tree", "merge-many", *(way for order in orders for way in order[:2])])
    heads = [f"`{name}`, {size_of(data)} networks, n = {count_groups(data)}" for name, data in tried.items()]
    lines = [[f"`{way}`", *(_cell(ways.get(way), most[name]) for name, ways in columns.items())] for way in shown]
    return markdown_table(["`method=`", *heads], lines)


def _accuracies(results: Mapping[str, xr.Dataset]) -> dict[str, tuple[float, float]]:
    """`accuracies` of a setting; the tree's with REPAIR from the question on REPAIR where only that has measured it."""
    ways = accuracies(results["mergers"])
    without, repaired = ways["tree"]
    if np.isnan(repaired) and "repair" in results:
        accuracy = results["repair"].test_accuracy
        repaired = PERCENT * float(by_group(accuracy, method="repair-leaves", stage=int(accuracy.stage.max())).mean())
    return ways | {"tree": (without, repaired)}


def _cell(values: tuple[float, float] | None, most: np.ndarray) -> str:
    """Accuracy without and with REPAIR, the highest of a column in bold; the second where any way has one."""
    if values is None:
        return "–"
    told = []
    for value, top in zip(values, most, strict=True):
        if not np.isnan(top):
            told.append("–" if np.isnan(value) else f"**{value:.1f}**" if value == top else f"{value:.1f}")
    return " → ".join(told)


def recommended(settings: Settings) -> str:
    """Which way to merge, from the first setting that has tried many, and which is the best in each of the others."""
    if not (tried := _tried(settings)):
        return "Not measured yet.\n"
    (main, data), *others = tried.items()
    best = "".join(f"- In `{name}`, {most_accurate(other)}\n" for name, other in others)
    rest = f"\nIn the other settings:\n\n{best}" if others else ""
    return f"Measured in `{main}`: {recommendation(data)}\n{rest}"


def _tried(settings: Settings) -> dict[str, xr.Dataset]:
    return {name: each.results["mergers"] for name, each in settings.items() if "mergers" in each.results}
