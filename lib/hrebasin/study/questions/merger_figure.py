"""The figure of "MergeMany or tree?": what every way makes of the same networks, and what it costs."""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...merging.looks import ENSEMBLE, LOOKS, RIVALS
from ..figures.style import COLUMN, SWEEP_COLOURS, shape, spread, what_is_drawn
from ..groups import PERCENT, by_group, count_groups, has_numbers, sweeps_in_words

BESIDE_ALL = ("tree", "ensemble")  # in every panel
COLUMNS = {  # title -> methods
    "MergeMany": ("merge-many", "merge-many-from-tree"),
    "other ways": ("naive", "star", "fold", "ot-fusion", "cycle-consistent"),
    "other trees": ("tree-random", "tree-nearest", "activations", "correlations", "straight-through"),
}
ROWS = {  # measure -> label
    "test_accuracy": "test accuracy (%)",
    "strong_accuracy": "under strong FGSM (%)",
    "distance": "distance (% of naive)",
    "seconds": "time (s)",
}
SHORT = {"merge-many-from-tree": "from the tree"}  # below the name of the column
DODGE = 0.05  # between curves, in steps from one number of networks to the next
PANEL, REST = 36, 54  # mm: the height of a panel, and of what is above and below all

Series = tuple[str, str, dict, dict]  # method, label, what selects it, its look


def draw_mergers(data: xr.Dataset) -> Figure:
    """A row of panels per measure, a column per family of methods, a curve per method; n of networks along x.

    Args:
        data: data set of stage ``mergers``. Rows that it does not hold numbers for, because it was measured before they
            were, are left out.
    """
    data, sizes = _measures(data), np.unique(data.n_merged.values[data.method.values == "tree"]).tolist()
    rows = [name for name in ROWS if name in data and has_numbers(data[name])]
    figure = Figure((COLUMN, (REST + PANEL * len(rows)) / 25.4))
    panels = figure.subplots(len(rows), len(COLUMNS), sharex=True, sharey="row", squeeze=False)
    for name, line in zip(rows, panels, strict=True):
        ends = []  # of what every curve but the naive average's reaches
        for axes, methods in zip(line, COLUMNS.values(), strict=True):
            several = list(_series(data, methods))
            for place, each in enumerate(several):
                ends += _draw(axes, data[name], sizes, each, DODGE * (place - (len(several) - 1) / 2))
        line[0].set_ylabel(ROWS[name])
        if name == "seconds":
            line[0].set_yscale("log")
            line[0].yaxis.set_major_formatter("{x:g}")
        elif name != "distance":
            _leave_out_naive(line[1], data[name], min(ends), max(ends))
    for axes, title in zip(panels[0], COLUMNS, strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xticks(range(len(sizes)), map(str, sizes))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.34), fontsize=6, handlelength=2.2, borderpad=0)
    panels[-1, 1].set_xlabel("networks merged (number)")
    about = what_is_drawn(count_groups(data))
    figure.supxlabel(about, fontsize="medium")
    figure.align_ylabels()
    return figure


def _measures(data: xr.Dataset) -> xr.Dataset:
    """What is drawn, in its units: accuracies in percent, distances in percent of those of the same networks as they
    are, and times that were taken."""
    data = data.isel(model=(~data.method.isin(("unmerged", "leave-one-out"))).values)
    distance = np.full(data.sizes["model"], np.nan)
    for size in np.unique(data.n_merged.values):
        naive = by_group(data.pairwise_distance, method="naive", n_merged=size)
        there = data.n_merged.values == size
        distance[there] = (data.pairwise_distance.values / naive.sel(group=data.group).values)[there] * PERCENT
    kept = {"distance": ("model", np.where(data.method == "naive", np.nan, distance))}
    kept["seconds"] = data.seconds.where(data.seconds > 0)
    kept |= {name: data[name] * PERCENT for name in ("test_accuracy", "strong_accuracy") if name in data}
    return data.assign(kept)


def _series(data: xr.Dataset, methods: tuple[str, ...]) -> Iterator[Series]:
    """Curves of a column; MergeMany's are darker for fewer sweeps."""
    looks, place = LOOKS | RIVALS | {"ensemble": ENSEMBLE}, 0
    for method in (*BESIDE_ALL, *methods):
        limits = sorted(set(data.sweeps.values[data.method.values == method].tolist()))
        for left, limit in enumerate(limits, start=-len(limits)):
            title, colour = looks[method]
            label = SHORT.get(method, title.removeprefix("tree, "))
            if method == "merge-many":
                label, colour = sweeps_in_words(limit), SWEEP_COLOURS[max(left, -len(SWEEP_COLOURS))]
            yield method, label, {"method": method, "sweeps": limit}, {"color": colour, **shape(place)}
            place += 1


def _draw(axes: Axes, values: xr.DataArray, sizes: list[int], series: Series, shift: float) -> list[float]:
    """Means over groups with their spread; the ends of the latter, of all but the naive average."""
    method, label, selects, look = series
    x, y, ends = [], [], []
    for place, size in enumerate(sizes):
        part = values.isel(model=((values.n_merged == size) & values.notnull()).values)
        if not all(value in part[name].values for name, value in selects.items()):
            continue
        groups = by_group(part, **selects).values
        x.append(place + shift)
        y.append(groups.mean())
        ends += spread(groups)
        if len(groups) > 1:
            axes.vlines(x[-1], *spread(groups), color=look["color"], linewidth=0.8)
    axes.plot(x, y, label=label, **look)
    return [] if method == "naive" else ends


def _leave_out_naive(axes: Axes, values: xr.DataArray, low: float, high: float) -> None:
    """Limits that the other curves need, where the naive average lies far below, which is then told in words."""
    naive = values.values[values.method.values == "naive"]
    reach = max(high - low, 1.0)
    if not np.isfinite(naive).any() or np.nanmin(naive) > low - reach / 2:
        return
    axes.set_ylim(low - 0.3 * reach, high + 0.08 * reach)
    told = " to ".join(dict.fromkeys(f"{end:.0f}" for end in (np.nanmin(naive), np.nanmax(naive))))
    axes.text(
        0.5, 0.03, f"naive: {told} %", transform=axes.transAxes, fontsize=6, ha="center", color=LOOKS["unmerged"][1]
    )
