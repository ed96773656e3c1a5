"""Figures in words and numbers, for whoever cannot see them."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from ..statistics import rounded


def alt_text(figure: Figure) -> str:
    """What a figure is, in a few sentences: panels, axes and curves; values are in `curve_values`."""
    panels = figure.axes
    kind = "Bar chart" if any(axes.containers for axes in panels) else "Chart"
    count = f" of {len(panels)} panels" if len(panels) > 1 else ""
    across: dict[str, dict[str, None]] = {}  # label of the x axis -> those of the y axes of its panels
    for axes in panels:
        across.setdefault(axis_label(axes, "x"), {})[axis_label(axes, "y")] = None
    shown = [" by ".join(filter(None, (", ".join(filter(None, ups)), along))) for along, ups in across.items()]
    names = dict.fromkeys(name for axes in panels for name in axes.get_legend_handles_labels()[1])
    return f"{kind}{count}: {'; '.join(shown)}. Shown: {'; '.join(names)}."


class Curve(NamedTuple):
    """A named curve: its panel and name, and for each point its place, its height and the interval there, or None.

    Where rows have names, ``rows`` holds that of each point, whose height then lies along x.
    """

    panel: str
    name: str
    x: list[float]
    y: list[float]
    spread: list[tuple[float, float] | None]
    rows: list[str]


def curves(axes: Axes) -> dict[Line2D, Curve]:
    """Every named curve of a panel, by the line that draws it."""
    named = _named_rows(axes)
    panel = ", ".join(filter(None, (axis_label(axes, "x" if named else "y"), _title(axes))))
    found = {}
    for line in axes.lines:
        x, y = (np.asarray(side, dtype=float).tolist() for side in line.get_data())
        if named:
            x, y = y, x
        if not line.get_label().startswith("_") and y:
            rows = [named[min(named, key=lambda at: abs(at - place))] for place in x] if named else []
            found[line] = Curve(panel, line.get_label(), x, y, _spreads(axes, line, x, y, along=int(bool(named))), rows)
    return found


def _named_rows(axes: Axes) -> dict[float, str]:
    """Place on the y axis -> name, where that axis holds names in place of numbers."""
    called, places = axes.yaxis.get_major_formatter(), axes.yaxis.get_major_locator()
    named = {float(at): called(at) for at in places.locs} if isinstance(places, FixedLocator) else {}
    return {at: name for at, name in named.items() if not _number(name)}


def _number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-\u2212").isdigit()


def _spreads(axes: Axes, line: Line2D, x, y, *, along: int) -> list[tuple[float, float] | None]:
    """The ends of the narrowest bar or band in a line's colour around each of its points, whose places lie along an
    axis."""
    colour, ends = to_rgb(line.get_color()), {}
    for mark in axes.collections:
        drawn = mark.get_edgecolor() if isinstance(mark, LineCollection) else mark.get_facecolor()
        if not len(drawn) or not np.allclose(drawn[0][:3], colour):
            continue
        for path in mark.get_paths():
            for place in dict.fromkeys(path.vertices[:, along].tolist()):
                heights = path.vertices[path.vertices[:, along] == place, 1 - along]
                ends.setdefault(place, []).append((float(heights.min()), float(heights.max())))
    around = [
        [end for end in ends.get(place, []) if end[0] <= height <= end[1]] for place, height in zip(x, y, strict=True)
    ]
    return [min(pairs, key=lambda end: end[1] - end[0], default=None) for pairs in around]


def curve_values(figure: Figure) -> list[dict[str, str]]:
    """Every named curve in numbers: ``panel``, ``curve``, its heights at ``left`` and ``right``, with their intervals
    where the figure shows some, and ``low`` and ``high``. Of rows with names each has one of its own, with ``left``.
    """
    rows = []
    for curve in (curve for axes in figure.axes for curve in curves(axes).values()):
        for name, height, spread in zip(curve.rows, curve.y, curve.spread, strict=False):
            values = {"left": told(height, spread)} | dict.fromkeys(("right", "low", "high"), "")
            rows.append({"panel": curve.panel, "curve": f"{curve.name}, {name}"} | values)
        if curve.rows:
            continue
        left, right = (told(curve.y[end], curve.spread[end]) for end in (0, -1))
        values = {"left": left, "right": right, "low": told(min(curve.y), None), "high": told(max(curve.y), None)}
        rows.append({"panel": curve.panel, "curve": curve.name} | values)
    return rows


def told(height: float, spread: tuple[float, float] | None) -> str:
    """A height with its interval.

    >>> told(0.5, (0.41, 0.6)), told(0.5, None)
    ('0.50 (0.41 to 0.60)', '0.5')
    """
    if not spread:
        return f"{height:.3g}"
    middle, *ends = rounded(height, *spread)
    return f"{middle} ({' to '.join(ends)})"


def axis_label(axes: Axes, which: str) -> str:
    """Label of the x or y axis on one line; where panels share an axis, that of the panel which shows it."""
    shared = axes.get_shared_x_axes() if which == "x" else axes.get_shared_y_axes()
    labels = (getattr(other, f"get_{which}label")() for other in (axes, *shared.get_siblings(axes)))
    return " ".join(next(filter(None, labels), "").split())


def _title(axes: Axes) -> str:
    """Title of a panel, or of its column."""
    place = axes.get_subplotspec()
    column = [other for other in axes.figure.axes if other.get_subplotspec().colspan == place.colspan]
    above = [other for other in column if other.get_subplotspec().rowspan.start <= place.rowspan.start]
    above.sort(key=lambda other: -other.get_subplotspec().rowspan.start)  # the nearest first
    return next(filter(None, (other.get_title() for other in above)), "")
