"""A figure that reacts to the reader without server or network: values under the pointer, curves on and off.

It is made from the drawn figure, so that both show the same; Bokeh's script is part of the page.
"""

import json
import re

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ..figures.alt_text import Curve, axis_label, curves, told

MARKERS = {"o": "circle", "s": "square", "^": "triangle", "D": "diamond", "v": "inverted_triangle", "*": "star"}
PLACE = "live"  # id of the element that it is drawn in
HEIGHT = 380  # pixels of a panel


def live_figure(figure: Figure) -> dict:
    """What the page needs: ``names`` with the colour of each curve, the ``figure`` as JSON, and Bokeh's ``script``."""
    from bokeh.embed import json_item
    from bokeh.layouts import column
    from bokeh.resources import Resources

    names: dict[str, str] = {}
    panels = [_panel(axes, names) for axes in figure.axes]
    for panel in panels[1:]:
        panel.x_range = panels[0].x_range
    item = json.dumps(json_item(column(panels, sizing_mode="stretch_width"), PLACE))
    script = "\n".join(Resources(mode="inline", components=["bokeh"], log_level="error").js_raw)
    return {
        "names": [{"name": name, "colour": colour} for name, colour in names.items()],
        "figure": _numbered(item).replace("</", "<\\/"),
        "script": script.replace("</script", "<\\/script"),
    }


def _panel(axes: Axes, names: dict[str, str]):
    """A panel as a Bokeh figure; its curves are tagged with their place in ``names``, where new ones are added."""
    from bokeh.models import ColumnDataSource, HoverTool
    from bokeh.plotting import figure

    drawn = curves(axes)
    across, up = axis_label(axes, "x"), axis_label(axes, "y")
    panel = figure(
        height=HEIGHT, sizing_mode="stretch_width", title=axes.get_title(), tools="pan,box_zoom,wheel_zoom,reset",
        active_scroll=None, toolbar_location="above", x_axis_label=across, y_axis_label=up, output_backend="svg",
    )  # fmt: skip
    panel.toolbar.logo = None
    points = []
    for line, curve in drawn.items():
        colour, columns = to_hex(line.get_color()), _columns(curve)
        names.setdefault(curve.name, colour)
        every = line.get_markevery() or slice(None)  # curves that start in one point mark it once
        marked = {name: values[every] for name, values in columns.items()}
        marker = MARKERS.get(line.get_marker(), "circle")
        points.append(panel.scatter("x", "y", marker=marker, size=9, color=colour, source=marked))
        source = ColumnDataSource(columns)
        along = panel.line("x", "y", line_width=2, color=colour, source=source)
        bars = panel.segment("x", "low", "x", "high", line_width=1.5, color=colour, source=source)
        for each in (points[-1], along, bars):
            each.tags = [list(names).index(curve.name)]
    rows = [("", "@name"), (across, "@x{0.0}"), (up, "@told")]
    panel.add_tools(HoverTool(renderers=points, tooltips=rows))
    return panel


def _columns(curve: Curve) -> dict[str, list]:
    ends = [pair or (height, height) for pair, height in zip(curve.spread, curve.y, strict=True)]
    return {
        "x": curve.x,
        "y": curve.y,
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
        "name": [curve.name] * len(curve.x),
        "told": [told(*point) for point in zip(curve.y, curve.spread, strict=True)],
    }


def _numbered(item: str) -> str:
    """The JSON with ids counted from one on, which Bokeh counts through a whole process: drawn again it is the same."""
    ids = dict.fromkeys(re.findall(r'"(p\d+)"', item))
    numbers = {old: f"p{number}" for number, old in enumerate(ids, start=1)}
    return re.sub(r'"(p\d+)"', lambda match: f'"{numbers[match[1]]}"', item)
