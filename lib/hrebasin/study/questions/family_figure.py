"""The figure of all families: accuracy under strong attack over clean accuracy."""

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ...merging.looks import ENSEMBLE, RIVALS
from ..figures.labels import label_curves
from ..figures.style import COLUMN, DASHES, MARKERS, TITLE_WIDTH, UNKNOWN, looks, spread, what_is_drawn
from ..groups import PERCENT, count_groups, large, tree, tree_stages
from .equal_accuracy import RISING
from .wording import listed

# Title and colour of families that every run lacks; others have those of their method
CONTROLS = {
    "stopped": ("stopped early", "#FC0054"),
    "narrow": ("fewer units", "#004200"),
    "noised": ("noise on weights", "#9084FC"),
    "ensemble": ENSEMBLE,
    "line": ("towards a naive average", "#6C427E"),
    "activations": RIVALS["activations"],
}
# in the order in which names look for room
ORDER = (
    "tree",
    "activations",
    "merge-many",
    "merge-many-from-tree",
    "stopped",
    "l2",
    "l1",
    "ensemble",
    "narrow",
    "noised",
    "naive",
)
ROOM = 2.1  # times the accuracy that full merging costs, along the axis of accuracy
PANEL, REST = 62, 40  # mm: the height of a panel, and of what is above and below all


def draw_families(data: xr.Dataset, kinds: Mapping[str, str], title: str) -> Figure:
    """A panel per attack, of those that ``kinds`` names in words, a curve per family; of stage ``controls``."""
    figure = Figure((COLUMN, (PANEL * len(kinds) + REST) / 25.4))
    figure.suptitle(fill(title, TITLE_WIDTH), fontsize="medium", fontweight="bold")
    panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (kind, name) in zip(panels, kinds.items(), strict=True):
        robust = (large(data.robust_accuracy.sel(attack=kind)) * PERCENT).values
        start = _groups(data, robust, data.method.values == "unmerged")
        lines = [_draw(axes, data, robust, start, method, place) for place, method in enumerate(_methods(data))]
        [unmerged] = axes.plot(*(side.mean() for side in start), "k*", markersize=7, label="unmerged", zorder=4)
        _zoom(axes, data)
        axes.set(title=name, ylabel="correct under strong attack (%)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if axes is panels[0]:
            curves = [unmerged, *lines]
    panels[-1].set_xlabel("test accuracy without attack (%)")
    about = what_is_drawn(count_groups(data))
    legend = {"loc": "outside lower center", "ncols": 2, "title": about}
    whole = figure.legend(curves, [line.get_label() for line in curves], **legend)
    figure.draw_without_rendering()  # lays out panels, which names must fit into
    left = label_curves(panels[0], curves)
    whole.remove()
    figure.legend(left, [line.get_label() for line in left], **legend)
    return figure


def left_out(data: xr.Dataset) -> list[str]:
    """Which networks are too inaccurate to be shown, in a sentence."""
    few = data.method.values[(PERCENT * data.test_accuracy < _least(data)).values]
    names = [f'"{_look(data, method)[0]}"' for method in dict.fromkeys(few.tolist())]
    far = "Networks that lose more than twice the accuracy that full merging costs are left out"
    return [f"{far}: some of {listed(names)}."] if names else []


def _least(data: xr.Dataset) -> float:
    """The least accuracy that is shown, percent: where `ROOM` times is lost what full merging costs."""
    accurate, *_, merged = (PERCENT * float(tree(data.test_accuracy, stage).mean()) for stage in tree_stages(data))
    return accurate - ROOM * (accurate - merged) if merged < accurate else 0.0


def _zoom(axes: Axes, data: xr.Dataset) -> None:
    """Show what is not `left_out`; from zero upwards, unless all that is left lies far above it."""
    least = max(axes.get_xlim()[0], _least(data))
    most = max(line.get_xdata().max() for line in axes.get_lines())
    axes.set_xlim(least, most + (most - least) / 20)
    heights = np.concatenate([line.get_ydata()[line.get_xdata() >= least] for line in axes.get_lines()])
    axes.set_ylim(bottom=0 if heights.min() < heights.max() / 2 else heights.min() - (np.ptp(heights) / 10))


def _methods(data: xr.Dataset) -> list[str]:
    there = list(dict.fromkeys(data.method.values))
    return [name for name in ORDER if name in there] + [name for name in there if name not in (*ORDER, "unmerged")]


def _draw(axes: Axes, data: xr.Dataset, robust: np.ndarray, start: tuple, method: str, place: int) -> Line2D:
    """One family, from the unmerged networks on, with the spread of its heights."""
    points = [start, *_points(data, robust, method)]
    title, colour = _look(data, method)
    look = {"color": colour, "linestyle": DASHES[place % len(DASHES)], "marker": MARKERS[place % len(MARKERS)]}
    heavy = {"linewidth": 1.6, "zorder": 3} if data.stage.values[data.method.values == method].any() else {}
    for x, y in points[1:]:
        if len(y) > 1:
            axes.vlines(x.mean(), *spread(y), color=colour, linewidth=0.7, alpha=0.6)
    means = np.array([(x.mean(), y.mean()) for x, y in points])
    [line] = axes.plot(*means.T, label=title, markevery=slice(1, None), **look, **heavy)
    if method == "tree":
        for stage, point in enumerate(means[1:], start=1):
            place = {"xytext": (0, -9), "textcoords": "offset points", "ha": "center", "fontsize": 6, "zorder": 5}
            number = axes.annotate(f"{2**stage}", point, color=colour, **place)
            number.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    return line


def _look(data: xr.Dataset, method: str) -> tuple[str, str]:
    """Title and colour of a family."""
    return CONTROLS.get(method) or looks(data).get(method, (method, UNKNOWN))


def _points(data: xr.Dataset, robust: np.ndarray, method: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Test accuracy and robustness (group,) of each stage or strength of a family, from the unmerged networks away."""
    here = data.method.values == method
    place = data.strength.values if data.strength.values[here].any() else data.stage.values
    points = [_groups(data, robust, here & (place == at)) for at in np.unique(place[here])]
    return points[::-1] if method in RISING and place is data.strength.values else points


def _groups(data: xr.Dataset, robust: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the networks of each group, (group,): test accuracy and robustness, in percent."""
    groups = [rows & (data.group.values == group) for group in np.unique(data.group.values[rows])]
    accuracy = data.test_accuracy.values * PERCENT
    return tuple(np.array([values[group].mean() for group in groups]) for values in (accuracy, robust))
