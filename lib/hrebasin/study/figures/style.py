"""What all figures share: style, palette, marks with their spread, the legend, and saving."""

import io
import json
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...files import replacing
from ...merging.distances import CONVERGENCE
from ...merging.looks import LOOKS, PAPER
from ..groups import PERCENT, mask, of_stage, tree, tree_stages
from ..resampling import interval

FEWEST = 5  # groups that an interval needs; of fewer, figures show the range instead
STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN = 85 / 25.4  # inches; the width of one column of print, which every figure keeps to
TITLE_WIDTH = 54  # characters of a title on one line of a column
SCREEN = 178 / 25.4  # inches; figures that only notebooks show

COLOURS = {method: LOOKS[method][1] for method in PAPER}
NAMES = {method: LOOKS[method][0] for method in PAPER} | {
    "fgsm": "FGSM",
    "deepfool-linf": "DeepFool, minimal norm",
    "deepfool-linf-clipped": "DeepFool, clipped",
    "global": "product of spectral norms",
    "eclipse-fast": "ECLipsE-Fast",
}
UNKNOWN = "#777777"  # a method of a data set that is not registered here
# Stages by lightness, dash and marker, so that print in grey works; further stages repeat the last colour
STAGE_COLOURS = ("#000000", "#161F62", "#214393", "#217695", "#1A99EF")
DASHES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STOPPED = "stopped"  # what snapshots of a training are called
SWEEP_COLOURS = ("#5A2600", "#8A3C00", "#B04E00", "#D55E00")  # MergeMany, darker for fewer sweeps
FAINT = {"linestyle": "none", "marker": ".", "markersize": 3, "alpha": 0.5, "markeredgewidth": 0, "zorder": 1}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the style of the paper, whatever the session's style is."""

    @wraps(draw)
    def inner(*args, **kwargs):
        with plt.style.context(["default", STYLE]):
            drawn = draw(*args, **kwargs)
        if isinstance(drawn, Figure):
            drawn._repr_png_ = partial(_png, drawn)  # notebooks know by themselves only how to show pyplot's figures
        return drawn

    return inner


def _png(figure: Figure) -> bytes:
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi="figure")
        return buffer.getvalue()


@styled
def save(figure: Figure, path_stem: Path | str, *, source: str) -> list[Path]:
    """Write a figure as PDF and PNG (300 dpi), whole or not at all; drawing again gives the same bytes.

    Args:
        figure: as the functions here return it.
        path_stem: path without ending.
        source: what the figure was drawn from; goes into the files' metadata, which hold no dates.
    """
    stem = Path(path_stem)
    pdf, png = (stem.with_name(f"{stem.name}.{ending}") for ending in ("pdf", "png"))
    about = {"Title": stem.name, "Subject": source, "Creator": "hrebasin", "Producer": "Matplotlib"}
    with replacing(pdf) as temporary:
        figure.savefig(temporary, format="pdf", metadata=about | {"CreationDate": None})
    info = PngInfo()
    for key, value in {"Title": stem.name, "Description": source, "Software": "hrebasin"}.items():
        info.add_text(key, value)
    dpi = plt.rcParams["savefig.dpi"]
    with io.BytesIO() as buffer, replacing(png) as temporary:
        figure.savefig(buffer, format="png")
        # A palette of 256 colours is seen as the same picture and takes a third of the bytes
        picture = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(temporary, pnginfo=info, dpi=(dpi, dpi), optimize=True)
    return [pdf, png]


def stacked(n: int, *, sharey: bool = False) -> tuple[Figure, np.ndarray]:
    """A figure of n panels below one another that share the x axis, one column wide, and the panels."""
    figure = Figure((COLUMN, (25 + 44 * n) / 25.4))
    return figure, figure.subplots(n, 1, sharex=True, sharey=sharey, squeeze=False)[:, 0]


def fewer(curve: xr.DataArray, n_max: int) -> str:
    """What a legend entry adds for a curve over fewer groups than the figure's title says."""
    return "" if curve.sizes["group"] == n_max else f" (n = {curve.sizes['group']})"


def stage_name(stage: int) -> str:
    """A stage of the tree in a legend."""
    return f"stage {stage}" if stage else "stage 0 (unmerged)"


def stage_look(stage: int) -> dict:
    """Colour and dash of a stage of the tree."""
    return {"color": STAGE_COLOURS[min(stage, 4)], "linestyle": DASHES[stage % 5]}


def shape(position: int) -> dict:
    """Dash and marker of the series at a position, so that print in grey tells them apart."""
    return {"linestyle": DASHES[position % len(DASHES)], "marker": MARKERS[position % len(MARKERS)]}


def looks(dataset: xr.Dataset | xr.DataArray) -> dict[str, tuple[str, str]]:
    """Title and colour of each method in a data set, which it carries of those that are none of the paper's."""
    carried = json.loads(dataset.method.attrs.get("looks", "{}"))
    known = {name: (name, UNKNOWN) for name in dict.fromkeys(dataset.method.values)}
    return known | LOOKS | {name: tuple(look) for name, look in carried.items()}


def spoken(kind: str) -> str:
    """An attack as a sentence names it, without the variant.

    >>> spoken("deepfool-linf")
    'DeepFool'
    """
    return NAMES.get(kind, kind).partition(",")[0]


def method_label(title: str, limit: int, converged: bool = True) -> str:
    """A method's title, of MergeMany with its limit of sweeps; ``converged``: whether all of its networks did."""
    if not limit:
        return title
    return f"{title}, converged" if limit >= CONVERGENCE and converged else f"{title}, {limit} sweep{'s' * (limit > 1)}"


def added_methods(dataset: xr.Dataset | xr.DataArray) -> dict[str, dict]:
    """Colour, dash and marker of each method in a data set that is none of the paper's (`hrebasin.merging.methods`).

    Early-stopped networks are no method: they have a place in figures that compare families.
    """
    names = [name for name in dict.fromkeys(dataset.method.values) if name not in (*PAPER, STOPPED)]
    return {name: {"color": looks(dataset)[name][1], **shape(2 + place)} for place, name in enumerate(names)}


def spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval of the mean over groups, (group, ...); of the range where groups are too few."""
    if len(values) < FEWEST:
        return values.min(0), values.max(0)
    return interval(values)


def describe_spread(n: int) -> str:
    """What `spread` shows for n groups."""
    return "95 % interval" if n >= FEWEST else "range"


def what_is_drawn(n: int) -> str:
    """The title of a legend over n groups, which are trees."""
    return f"mean and {describe_spread(n)}, n = {n} trees" if n > 1 else "n = 1 tree: no interval"


def draw_curve(
    axes: Axes, x: np.ndarray, values: xr.DataArray, label: str, *, most: float | None = None, **look
) -> None:
    """Mean of values (group, x) with a band for its spread, up to ``most``; over groups where all are numbers."""
    values = values[np.isfinite(values.values).all(1)]
    axes.plot(x, values.mean("group"), label=label, **look)
    if values.sizes["group"] > 1:
        low, high = spread(values.values)
        high = high if most is None else np.clip(high, None, most)
        axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def draw_stage_curves(axes: Axes, x: np.ndarray, values: xr.DataArray, *, most: float | None = None) -> None:
    """`draw_curve` of every stage of the tree, of values (model, x) that are shares, in percent."""
    for stage in tree_stages(values):
        look = stage_look(stage) | shape(stage)
        draw_curve(axes, x, tree(values, stage) * PERCENT, stage_name(stage), most=most, **look)


def draw_points(axes: Axes, x, parts: list, label: str, *, faint: list | None = None, aside: float = 0, **look) -> None:
    """The mean over groups with its spread; parts: for each x (group,).

    Args:
        faint: for each x the faint points, (point,); by default every group is one.
        aside: how far these stand from x.
    """
    for place, part, points in zip(x, parts, faint or parts, strict=True):
        axes.plot(np.full(len(points), place + aside), points, color=look["color"], **FAINT)
        if len(part) > 1:
            axes.vlines(place, *spread(part), color=look["color"], linewidth=1.4)
    axes.plot(x, [part.mean() for part in parts], label=label, **look)


def draw_stages(axes: Axes, values: xr.DataArray, stages: list[int], label: str, **look) -> None:
    """Mean over groups with its spread by stage, and every network as a faint point."""
    parts = [tree(values, stage).values for stage in stages]
    networks = [values.values[mask(values, of_stage(stage))] for stage in stages]
    draw_points(axes, stages, parts, label, faint=networks, aside=-0.05, **look)


def label_stages(axes: Axes, stages: list[int], label: str) -> None:
    """A stage axis, and a label with unit for the other."""
    axes.set(xticks=stages, xlabel="stage, log2 of the merged networks (1)", ylabel=label)


def draw_legend(figure: Figure, n: int, *, columns: int) -> Figure:
    """One legend below all panels, where it covers no data; its title says how many groups there are."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    labels = [fill(label, TITLE_WIDTH) for label in entries]
    look = {"loc": "outside lower center", "title": what_is_drawn(n)}
    for ncols in range(columns, 0, -1):  # fewer where a method has a long title
        legend = figure.legend(entries.values(), labels, ncols=ncols, **look)
        if ncols == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    figure.align_ylabels()
    return figure
