"""Figures of the tour: the landscape between two networks, a tree and its accuracies, one image under attack."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..figures.style import COLOURS, SCREEN, added_methods, looks, styled
from ..groups import PERCENT

HALO = [withStroke(linewidth=2.2, foreground="white")]
# Greys, so that colour stands for methods alone; the darkest are left out for the marks to be seen
SHADES = LinearSegmentedColormap.from_list("greys", ("#FFFFFF", "#D9D9D9", "#A6A6A6", "#6B6B6B"))
LEVELS = 15
PAIR = {"before": ("naive", "as trained", "s"), "after": ("tree", "matched", "o")}
CORNERS = {"first": "before", "second": "before", "second, matched": "after"}
MAGNIFIED = 0.25  # the largest perturbation is shown as a quarter of the pixel range
SHOWN_CLASSES = 3


@styled
def draw_landscape(landscape: xr.Dataset, *, n_classes: int) -> Figure:
    """The plane through two networks and the matched second as a map of the loss, and the loss along both lines."""
    figure = Figure((SCREEN, 84 / 25.4))
    plane, line = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_map(figure, plane, landscape, highest=2.5 * float(landscape.line_loss.max() - landscape.loss.min()))
    start = landscape.place.sel(corner="first").values
    average = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 1, "zorder": 4}
    for corner, alignment in list(CORNERS.items())[1:]:
        method, name, marker = PAIR[alignment]
        look, end = {"color": COLOURS[method], "marker": marker}, landscape.place.sel(corner=corner).values
        plane.plot(*np.stack([start, end]).T, color=COLOURS[method], linewidth=1.8, path_effects=HALO)
        plane.plot(*(start + end) / 2, **look, **average)
        values = landscape.line_loss.sel(alignment=alignment)
        weight = values["lambda"].values
        line.plot(weight, values, color=COLOURS[method], linewidth=1.6)
        line.plot(0.5, np.interp(0.5, weight, values), label=f"average, second network {name}", **look, **average)
    for corner in CORNERS:
        x, y = landscape.place.sel(corner=corner).values
        plane.plot(x, y, color="white", marker="o", markersize=5, markeredgecolor="black", markeredgewidth=1.2)
        above = corner == "second"
        plane.annotate(corner, (x, y), (0, 6 if above else -6), textcoords="offset points", path_effects=HALO,
                       ha="center", va="bottom" if above else "top")  # fmt: skip
    line.axhline(np.log(n_classes), color="black", linewidth=0.6, linestyle=(0, (4, 3)))
    line.annotate(f"guessing among {n_classes}", (0, np.log(n_classes)), (0, 3), textcoords="offset points")
    line.set(title="along the two lines", xlabel="weight of the second network, lambda (1)")
    line.set_ylabel("mean cross-entropy (nat)")
    line.margins(y=0.15)
    handles, labels = line.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _draw_map(figure: Figure, axes: Axes, landscape: xr.Dataset, *, highest: float) -> None:
    """The loss as shades up to so many nat above its lowest; what lies higher is as dark."""
    loss = landscape.loss
    levels = float(loss.min()) + np.linspace(0, highest, LEVELS)
    shown = axes.contourf(loss.x, loss.y, loss, levels=levels, cmap=SHADES, extend="max")
    axes.contour(loss.x, loss.y, loss, levels=levels, colors="white", linewidths=0.5)
    ticks = [tick for tick in MaxNLocator(5).tick_values(levels[0], levels[-1]) if levels[0] <= tick <= levels[-1]]
    figure.colorbar(shown, ax=axes, label="mean cross-entropy (nat)", shrink=0.85, pad=0.02, ticks=ticks)
    axes.set(aspect="equal", title="on the plane through the three networks")
    axes.set(xlabel="distance over all parameters (1)", ylabel="distance over all parameters (1)")
    axes.grid(visible=False)


@styled
def draw_tree(merged: xr.Dataset, *, chance: float) -> Figure:
    """A tree of networks, each node at its test accuracy, beside what other methods make of the same networks.

    Args:
        merged: ``accuracy`` of the networks of one group, with the labels of `hrebasin.bank.LABELS`.
        chance: accuracy of guessing.
    """
    figure = Figure((SCREEN, 68 / 25.4))
    axes, accuracy = figure.subplots(), merged.accuracy * PERCENT
    family = accuracy[np.isin(merged.method.values, ["unmerged", "tree"])]
    rows = zip(family.stage.values, family.node.values, family.values, strict=True)
    # a node stands above the middle of its leaves
    places = {(stage, node): ((node + 0.5) * 2**stage - 0.5, value) for stage, node, value in rows}
    leaves = 2 ** max(stage for stage, _ in places)
    for (stage, node), spot in places.items():
        if (parent := places.get((stage + 1, node // 2))) is not None:
            axes.plot(*zip(spot, parent, strict=True), color="#8A8A8A", linewidth=1, zorder=1)
        look = {"color": COLOURS["tree" if stage else "unmerged"], "markersize": 5 + 2 * stage}
        axes.plot(*spot, marker="o", markeredgecolor="white", zorder=2, **look)
        axes.annotate(f"{spot[1]:.1f}", spot, (0, -6 - stage if stage else 5), textcoords="offset points",
                      ha="center", va="top" if stage else "bottom", path_effects=HALO)  # fmt: skip
    ticks = {leaf: f"network {leaf + 1}" for leaf in range(leaves)}
    for x, (method, look) in enumerate(_others(accuracy, leaves).items(), start=leaves):
        value = float(accuracy[(merged.method.values == method) & (merged.n_merged.values == leaves)].mean())
        axes.plot(x, value, markersize=8, markeredgecolor="white", **look)
        axes.annotate(f"{value:.1f}", (x, value), (8, -2), textcoords="offset points")
        ticks[x] = f"{looks(merged)[method][0]}\nof {leaves}"
    axes.axvline(leaves - 0.5, color="#8A8A8A", linewidth=0.6)
    axes.axhline(PERCENT * chance, color="black", linewidth=0.6, linestyle=(0, (4, 3)))
    axes.annotate("chance", (-0.45, PERCENT * chance), (0, 3), textcoords="offset points")
    axes.set(ylabel="test accuracy (%)", xlim=(-0.5, max(ticks) + 0.6))
    axes.set_ylim(0, 1.1 * float(accuracy.max()))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.grid(axis="x", visible=False)
    return figure


def _others(accuracy: xr.DataArray, leaves: int) -> dict[str, dict]:
    """Colour and marker of the methods, beside the tree, that merge all of its leaves."""
    shown = {"merge-many": {"marker": "s"}, "naive": {"marker": "X"}}
    shown = {name: look | {"color": COLOURS[name], "linestyle": "none"} for name, look in shown.items()}
    shown |= {name: look | {"linestyle": "none"} for name, look in added_methods(accuracy).items()}
    there = set(accuracy.method.values[accuracy.n_merged.values == leaves])
    return {name: look for name, look in shown.items() if name in there}


@styled
def draw_closeup(closeup: xr.Dataset) -> Figure:
    """One image under attack: a row per network, with the image, what is added, the sum, and the answers to both."""
    n = closeup.sizes["model"]
    figure = Figure((SCREEN, (14 + 30 * n) / 25.4))
    panels = figure.subplots(n, 4, width_ratios=(1, 1, 1, 2.1), squeeze=False)
    original = closeup.original.transpose("y", "x", "channel").values
    factor = MAGNIFIED / closeup.attrs["epsilon"] if closeup.attrs["epsilon"] else 1.0
    for row, (model, label) in enumerate(zip(closeup.model.values, _labels(closeup), strict=True)):
        one = closeup.sel(model=model)
        attacked = one.attacked.transpose("y", "x", "channel").values
        change = np.clip(0.5 + factor * (attacked - original), 0, 1)
        titles = (f"image: {closeup.attrs['label']}", f"perturbation x {factor:.3g}", "image + perturbation")
        for axes, picture, title in zip(panels[row], (original, change, attacked), titles, strict=False):
            axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            if not row:
                axes.set_title(title)
        panels[row, 0].set_ylabel(label)
        _draw_answers(panels[row, 3], one.probability, closeup.attrs["label"], last=row == n - 1)
    handles, labels = panels[0, 3].get_legend_handles_labels()
    size = f"FGSM, L-infinity, epsilon = {closeup.attrs['epsilon']:g} of the pixel range"
    figure.legend(handles, labels, loc="outside lower right", ncols=2, title=size)
    return figure


def _labels(closeup: xr.Dataset) -> list[str]:
    """Names of the networks: method and how many are in it."""
    names = {"unmerged": "one network", "tree": "tree of {}", "naive": "average of {}"}
    columns = zip(closeup.method.values, closeup.n_merged.values, strict=True)
    return [names.get(method, looks(closeup)[method][0] + " of {}").format(n) for method, n in columns]


def _draw_answers(axes: Axes, probability: xr.DataArray, truth: str, *, last: bool) -> None:
    """Probabilities of the classes that matter most before (hollow) and after the attack (filled)."""
    order = probability.max("state").sortby(probability.max("state"), ascending=False)["class"].values
    classes = [truth, *(name for name in order if name != truth)][:SHOWN_CLASSES]
    for place, name in enumerate(classes):
        colour = COLOURS["l2" if name == truth else "merge-many"]
        before, after = (float(probability.sel({"class": name, "state": state})) for state in ("before", "after"))
        axes.barh(place - 0.19, before, 0.36, facecolor="white", edgecolor=colour, linewidth=1)
        axes.barh(place + 0.19, after, 0.36, color=colour)
    axes.barh(np.nan, 0, facecolor="white", edgecolor="black", linewidth=1, label="before the attack")
    axes.barh(np.nan, 0, color="black", label="after")
    answers = [str(probability["class"].values[probability.sel(state=s).argmax("class")]) for s in ("before", "after")]
    verdict = "still " + answers[1] if answers[0] == answers[1] else " becomes ".join(answers)
    axes.set_title(f"answer: {verdict}", loc="left")
    axes.set(yticks=range(len(classes)), yticklabels=classes, xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    if last:
        axes.set_xlabel("probability (1)")
    else:
        axes.set_xticklabels([])
