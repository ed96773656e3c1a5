"""Which way to merge: a table of accuracies, and what each setting recommends."""

from operator import itemgetter

import xarray as xr

from ..groups import count_groups
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
    columns = {name: accuracies(data) for name, data in tried.items()}
    orders = [sorted(ways, key=lambda way: -rank(ways[way])) for ways in columns.values() for rank in RANKS]
    most = {name: [max(column) for column in zip(*ways.values(), strict=True)] for name, ways in columns.items()}
    shown = dict.fromkeys(["tree", "merge-many", *(way for order in orders for way in order[:2])])
    heads = [f"`{name}`, {size_of(data)} networks, n = {count_groups(data)}" for name, data in tried.items()]
    lines = []
    for way in shown:
        cells = []
        for name, ways in columns.items():
            marks = zip(ways.get(way, ()), most[name], strict=False)
            told = [f"**{value:.1f}**" if value == top else f"{value:.1f}" for value, top in marks if value == value]
            cells.append(" → ".join(told) or "–")
        lines.append([f"`{way}`", *cells])
    return markdown_table(["`method=`", *heads], lines)


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
