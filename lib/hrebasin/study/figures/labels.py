"""Names beside curves, where they cover neither a curve nor one another."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SIZE = 6.5  # points
DARKER = 0.65  # than its curve, so that small letters are read
AWAY = (4, 11, 18)  # points between a mark and its name, the nearest first; a thin line leads to the others
DIRECTIONS = [
    (1, 0, "left", "center"), (-1, 0, "right", "center"), (0, 1, "center", "bottom"), (0, -1, "center", "top"),
    (0.7, 0.7, "left", "bottom"), (0.7, -0.7, "left", "top"), (-0.7, 0.7, "right", "bottom"),
    (-0.7, -0.7, "right", "top"),
]  # fmt: skip
STEPS = 25  # points along a piece of a curve that a name must keep off


def label_curves(axes: Axes, curves: Sequence[Line2D]) -> list[Line2D]:
    """Write the name of each curve beside one of its marks, the ends first.

    Args:
        axes: in about their final place, with their final limits.
        curves: that are drawn there.

    Returns:
        Curves for whose name there is no room.
    """
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    places = [axes.transData.transform(np.transpose(curve.get_data())) for curve in curves]
    bars = [axes.transData.transform(path.vertices) for mark in axes.collections for path in mark.get_paths()]
    inked = np.concatenate([_along(marks) for marks in (*places, *bars)])
    taken, left = [], []
    for curve, marks in zip(curves, places, strict=True):
        data = np.transpose(curve.get_data())
        for away, k, (right, up, ha, va) in _tries(len(marks)):
            if not axes.bbox.contains(*marks[k]):
                continue
            colour = DARKER * np.array(to_rgb(curve.get_color()))
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
            text = axes.annotate(
                curve.get_label(), data[k], (away * right, away * up), textcoords="offset points", ha=ha, va=va,
                color=colour, fontsize=SIZE, annotation_clip=False, arrowprops=line if away > AWAY[0] else None,
            )  # fmt: skip
            text.set_in_layout(False)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the line
            centre = [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]
            lead = _along(np.array([marks[k], centre]))
            crosses = any(other.count_contains(lead) for other in taken)
            if not crosses and _free(box, axes, inked, taken):
                taken.append(box.padded(2))
                break
            text.remove()
        else:
            left.append(curve)
    return left


def _tries(n: int) -> list[tuple]:
    """Distances, the nearest first, with marks, the ends first, each with all directions; without the first mark, which
    curves share."""
    order = sorted(range(min(1, n - 1), n), key=lambda k: min(k + 1, n - 1 - k))
    return list(product(AWAY, order, DIRECTIONS))


def _along(marks: np.ndarray) -> np.ndarray:
    pieces = [np.linspace(a, b, STEPS) for a, b in zip(marks[:-1], marks[1:], strict=True)]
    return np.concatenate([marks, *pieces])


def _free(box: Bbox, axes: Axes, inked: np.ndarray, taken: list[Bbox]) -> bool:
    inside = axes.bbox
    if box.x0 < inside.x0 or box.x1 > axes.figure.bbox.x1 - 2 or box.y0 < inside.y0 or box.y1 > inside.y1:
        return False
    covers = (inked[:, 0] > box.x0 - 1) & (inked[:, 0] < box.x1 + 1) & (inked[:, 1] > box.y0) & (inked[:, 1] < box.y1)
    return not covers.any() and not any(box.overlaps(other) for other in taken)
