"""Figures in words and numbers, for whoever cannot see them."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def alt_text(figure: Figure) -> str:
    """What a figure is, in a few sentences: panels, axes and curves; values are in `curve_values`."""
    panels = figure.axes
    kind = "Bar chart" if any(axes.containers for axes in panels) else "Chart"
    count = f" of {len(panels)} panels" if len(panels) > 1 else ""
    shown = dict.fromkeys(" by ".join(filter(None, (_label(axes, "y"), _label(axes, "x")))) for axes in panels)
    names = dict.fromkeys(name for axes in panels for name in axes.get_legend_handles_labels()[1])
    return f"{kind}{count}: {'; '.join(shown)}. Shown: {'; '.join(names)}."


def curve_values(figure: Figure) -> list[dict[str, str]]:
    """Every named curve in numbers: ``panel``, ``curve``, and its heights ``left``, ``right``, ``low``, ``high``."""
    rows = []
    for axes in figure.axes:
        panel = ", ".join(filter(None, (_label(axes, "y"), _title(axes))))
        for line in axes.lines:
            heights = [float(height) for height in line.get_ydata()]
            if line.get_label().startswith("_") or not heights:
                continue
            values = {"left": heights[0], "right": heights[-1], "low": min(heights), "high": max(heights)}
            texts = {name: f"{value:.3g}" for name, value in values.items()}
            rows.append({"panel": panel, "curve": line.get_label()} | texts)
    return rows


def _label(axes: Axes, which: str) -> str:
    """Label of the x or y axis on one line; where panels share an axis, that of the panel which shows it."""
    shared = axes.get_shared_x_axes() if which == "x" else axes.get_shared_y_axes()
    labels = (getattr(other, f"get_{which}label")() for other in (axes, *shared.get_siblings(axes)))
    return " ".join(next(filter(None, labels), "").split())


def _title(axes: Axes) -> str:
    """Title of a panel, or of its column."""
    column = axes.get_subplotspec().colspan
    above = (other for other in axes.figure.axes if other.get_subplotspec().colspan == column)
    return next(filter(None, (other.get_title() for other in (axes, *above))), "")
