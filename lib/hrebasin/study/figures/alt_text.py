"""Figures in words and numbers, for whoever cannot see them."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


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
    """A named curve: its panel and name, and for each point its place, its height and the interval there, or None."""

    panel: str
    name: str
    x: list[float]
    y: list[float]
    spread: list[tuple[float, float] | None]


def curves(axes: Axes) -> dict[Line2D, Curve]:
    """Every named curve of a panel, by the line that draws it."""
    panel = ", ".join(filter(None, (axis_label(axes, "y"), _title(axes))))
    found = {}
    for line in axes.lines:
        x, y = (np.asarray(side, dtype=float).tolist() for side in line.get_data())
        if not line.get_label().startswith("_") and y:
            found[line] = Curve(panel, line.get_label(), x, y, _spreads(axes, line, x, y))
    return found


def _spreads(axes: Axes, line: Line2D, x: list[float], y: list[float]) -> list[tuple[float, float] | None]:
    """The ends of the narrowest bar or band in a line's colour around each of its points."""
    colour, ends = to_rgb(line.get_color()), {}
    for mark in axes.collections:
        drawn = mark.get_edgecolor() if isinstance(mark, LineCollection) else mark.get_facecolor()
        if not len(drawn) or not np.allclose(drawn[0][:3], colour):
            continue
        for path in mark.get_paths():
            for place in dict.fromkeys(path.vertices[:, 0].tolist()):
                heights = path.vertices[path.vertices[:, 0] == place, 1]
                ends.setdefault(place, []).append((float(heights.min()), float(heights.max())))
    around = [
        [end for end in ends.get(place, []) if end[0] <= height <= end[1]] for place, height in zip(x, y, strict=True)
    ]
    return [min(pairs, key=lambda end: end[1] - end[0], default=None) for pairs in around]


def curve_values(figure: Figure) -> list[dict[str, str]]:
    """Every named curve in numbers: ``panel``, ``curve``, its heights at ``left`` and ``right``, with their intervals
    where the figure shows some, and ``low`` and ``high``.
    """
    rows = []
    for curve in (curve for axes in figure.axes for curve in curves(axes).values()):
        left, right = (told(curve.y[end], curve.spread[end]) for end in (0, -1))
        values = {"left": left, "right": right, "low": told(min(curve.y), None), "high": told(max(curve.y), None)}
        rows.append({"panel": curve.panel, "curve": curve.name} | values)
    return rows


def told(height: float, spread: tuple[float, float] | None) -> str:
    """A height with its interval.

    >>> told(0.5, (0.41, 0.6)), told(0.5, None)
    ('0.5 (0.41 to 0.6)', '0.5')
    """
    return f"{height:.3g}" + (f" ({spread[0]:.3g} to {spread[1]:.3g})" if spread else "")


def axis_label(axes: Axes, which: str) -> str:
    """Label of the x or y axis on one line; where panels share an axis, that of the panel which shows it."""
    shared = axes.get_shared_x_axes() if which == "x" else axes.get_shared_y_axes()
    labels = (getattr(other, f"get_{which}label")() for other in (axes, *shared.get_siblings(axes)))
    return " ".join(next(filter(None, labels), "").split())


def _title(axes: Axes) -> str:
    """Title of a panel, or of its column."""
    column = axes.get_subplotspec().colspan
    above = (other for other in axes.figure.axes if other.get_subplotspec().colspan == column)
    return next(filter(None, (other.get_title() for other in (axes, *above))), "")
