"""Figures of the open questions: a data set in, a Figure out."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..figures.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    NAMES,
    STAGE_COLOURS,
    draw_curve,
    draw_legend,
    draw_points,
    label_stages,
    shape,
    spread,
    stacked,
    stage_look,
    styled,
)
from ..groups import PERCENT, by_group, count_groups, large, minus, sweeps_in_words, tree, tree_stages
from .robustness_answers import equally_accurate

SHOWN_ATTACKS = ("fgsm", "pgd-cross-entropy", "pgd-margin", "worst")
ATTACK_NAMES = {
    "pgd-cross-entropy": "PGD, cross-entropy",
    "pgd-margin": "PGD, margin",
    "worst": "every attack together",
}
CONTROLS = {
    "stopped": ("training stopped early", COLOURS["merge-many"]),
    "narrow": ("fewer units", COLOURS["l2"]),
    "noised": ("noise on the weights", COLOURS["naive"]),
    "line": ("towards a naive average", COLOURS["unmerged"]),
}
OTHER_MERGERS = {  # method -> colour, in the order of their markers
    "tree": COLOURS["tree"],
    "tree-random": COLOURS["tree"],
    "tree-nearest": COLOURS["tree"],
    "merge-many-from-tree": COLOURS["l1"],
    "star": COLOURS["unmerged"],
    "fold": COLOURS["unmerged"],
}
REPAIRED = {"repair-children": COLOURS["merge-many"], "repair-leaves": COLOURS["l2"], "repair-along": COLOURS["naive"]}
STRONGEST = 0.05  # epsilons above it only show that attacks work; they would squeeze the curves


@styled
def controls(data: xr.Dataset) -> Figure:
    """What withstands strong attacks, merged networks beside unmerged ones nearest in accuracy, by stage."""
    kinds, stages = list(data.attack.values), tree_stages(data)[1:]
    figure, panels = stacked(len(kinds) + 1)
    shown = [(large(data.robust_at_stage.sel(attack=kind)) * PERCENT, NAMES.get(kind, kind)) for kind in kinds]
    shown.append((data.median_perturbation, "DeepFool, median of the minimal norms"))
    series = {"tree": ("merged, tree", COLOURS["tree"])} | CONTROLS
    for axes, (values, title) in zip(panels, shown, strict=True):
        for position, (method, (label, colour)) in enumerate(series.items()):
            parts = [by_group(values, method=method, stage=stage) for stage in stages]
            parts = [part.values[np.isfinite(part.values)] for part in parts]
            given = [(stage, part) for stage, part in zip(stages, parts, strict=True) if len(part)]
            if given:
                where, parts = np.array([stage for stage, _ in given]), [part for _, part in given]
                draw_points(axes, where + 0.08 * (position - 2), parts, label, color=colour, **shape(position))
        axes.set(title=title, ylabel="still right at epsilon\n0.015 to 0.02 (%)")
    label_stages(panels[-1], stages, "median perturbation\n(pixel range)")
    return draw_legend(figure, count_groups(data), columns=2)


@styled
def strong(data: xr.Dataset) -> Figure:
    """Robust accuracy by size of the attack, a panel an attack, a curve a stage."""
    kinds = [kind for kind in SHOWN_ATTACKS if kind in data.attack.values]
    figure, panels = stacked(len(kinds), sharey=True)
    few = data.robust_accuracy.isel(epsilon=(data.epsilon <= STRONGEST).values)
    for axes, kind in zip(panels, kinds, strict=True):
        for stage in tree_stages(data):
            curve = tree(few.sel(attack=kind), stage) * PERCENT
            label = f"stage {stage}" if stage else "stage 0 (unmerged)"
            draw_curve(axes, few.epsilon.values, curve, label, **stage_look(stage) | shape(stage))
        axes.set(title=ATTACK_NAMES.get(kind, NAMES.get(kind, kind)), ylabel="robust accuracy (%)")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("size of the attack, L-infinity (pixel range)")
    panels[-1].locator_params(axis="x", nbins=5)
    return draw_legend(figure, count_groups(data), columns=2)


@styled
def mergers(data: xr.Dataset) -> Figure:
    """Test accuracy against the mean squared distance of aligned networks, a panel a number of merged networks."""
    sizes = np.unique(data.n_merged.values)
    figure = Figure((COLUMN, (34 + 46 * len(sizes)) / 25.4))
    panels = np.atleast_1d(figure.subplots(len(sizes), 1))
    for axes, size in zip(panels, sizes, strict=True):
        part = data.isel(model=((data.n_merged == size) & (data.method != "naive")).values)
        many = sorted(set(part.sweeps.values[part.method.values == "merge-many"].tolist()))
        look = {"color": COLOURS["merge-many"], "marker": "o", "markersize": 3}
        labels = [{"method": "merge-many", "sweeps": limit} for limit in many]
        places = _against_distance(axes, part, size, labels, "MergeMany, by sweeps", **look)
        for limit, place in zip(many, places, strict=True):
            if limit in (many[0], many[-1]):
                axes.annotate(sweeps_in_words(limit), place, xytext=(5, 3), textcoords="offset points", fontsize=6)
        for position, (method, colour) in enumerate(OTHER_MERGERS.items()):
            label = "tree, neighbours" if method == "tree" else NAMES.get(method, method)
            if method in part.method.values:
                look = {"color": colour, "marker": MARKERS[1 + position], "linestyle": "none", "markersize": 4}
                _against_distance(axes, part, size, [{"method": method}], label, **look)
        axes.set(title=f"{size} models", ylabel="test accuracy (%)")
        axes.margins(0.12)
    panels[-1].set_xlabel("mean squared distance of aligned networks (1)")
    return draw_legend(figure, count_groups(data), columns=2)


def _against_distance(axes, part: xr.Dataset, size: int, labels: list[dict], label: str, **look) -> list[tuple]:
    """Means over groups of networks with these labels, with the spread of their accuracy; their places."""
    pairs, places = size * (size - 1) / 2, []
    for each in labels:
        distance, accuracy = by_group(part.pairwise_distance, **each), by_group(part.test_accuracy, **each) * PERCENT
        places.append((distance.values.mean() / pairs, accuracy.values.mean()))
        if len(accuracy) > 1:
            axes.vlines(places[-1][0], *spread(accuracy.values, f"{label}/{each}"), color=look["color"], linewidth=1)
    axes.plot(*np.transpose(places), label=label, **look)
    return places


@styled
def scale(data: xr.Dataset) -> Figure:
    """Global bound by stage, of the tree, of unmerged networks at its norms, of regularised ones; certified radii."""
    figure, (above, below) = stacked(2)
    stages, bound = tree_stages(data), data.lipschitz.sel(bound="global").rename("lipschitz")
    rescaled = [by_group(bound, method="rescaled", stage=s) if s else tree(bound, 0) for s in stages]
    draw_points(above, stages, [tree(bound, s).values for s in stages], "tree", color=COLOURS["tree"], marker="o")
    look = {"color": COLOURS["unmerged"], "marker": "s", "linestyle": "--"}
    parts = [values.values for values in rescaled]
    draw_points(above, np.array(stages) + 0.1, parts, "unmerged at the norms of the stage", **look)
    if alike := equally_accurate(data, "l2"):
        look = {"color": COLOURS["l2"], "marker": "D", "linestyle": "none"}
        parts = [by_group(bound, method="l2", strength=strength).values for strength in alike.values()]
        draw_points(above, np.array(list(alike)) - 0.1, parts, "L2-regularised, as accurate as the stage", **look)
    above.set_yscale("log")
    above.set_ylabel("global bound\n(logits per pixel range)")
    for position, name in enumerate(data.certificate.values):
        radius = data.certified_radius.sel(certificate=name).rename("certified_radius")
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        parts = [tree(radius, s).values for s in stages]
        draw_points(
            below, np.array(stages) + 0.08 * (position - 1), parts, f"certified: {NAMES.get(name, name)}", **look
        )
    below.set_ylim(bottom=0)
    label_stages(below, stages, "mean certified radius, L2\n(pixel range)")
    return draw_legend(figure, count_groups(data), columns=1)


@styled
def repair(data: xr.Dataset) -> Figure:
    """Accuracy of the tree by stage with and without REPAIR, and the variance of activations that is left."""
    figure, (above, below) = stacked(2)
    stages = tree_stages(data)
    draw_points(
        above,
        stages,
        [tree(data.test_accuracy, s).values * PERCENT for s in stages],
        "tree",
        color=COLOURS["tree"],
        marker="o",
    )
    for position, (method, colour) in enumerate(REPAIRED.items()):
        parts = [by_group(data.test_accuracy, method=method, stage=s).values * PERCENT for s in stages[1:]]
        where = np.array(stages[1:]) + 0.08 * (position + 1)
        draw_points(above, where, parts, NAMES[method], color=colour, **shape(position + 1))
    above.set_ylabel("test accuracy (%)")
    for position, layer in enumerate(data.layer.values):
        parts = [tree(data.variance_ratio.sel(layer=layer), s).values for s in stages]
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        draw_points(below, stages, parts, f"layer {layer}", **look)
    below.set_ylim(bottom=0)
    label_stages(below, stages, "variance of activations\nover that of the leaves (1)")
    return draw_legend(figure, count_groups(data), columns=2)


@styled
def recipes(data: xr.Dataset) -> Figure:
    """The tree minus converged MergeMany, and what robustness the tree gains, a row a recipe or width."""
    names, top = list(dict.fromkeys(data.recipe.values.tolist())), tree_stages(data)[-1]
    figure = Figure((COLUMN, (30 + 2 * (14 + 5 * len(names))) / 25.4))
    above, below = figure.subplots(2, 1)
    rows = [data.isel(model=(data.recipe == name).values) for name in names]
    ahead = [
        minus(
            by_group(row.test_accuracy, method="tree", stage=top),
            by_group(row.test_accuracy, method="merge-many", stage=top),
        )
        for row in rows
    ]
    _by_recipe(above, names, ahead, f"tree minus MergeMany, {2**top} models", color=COLOURS["tree"], marker="o")
    above.set(title=f"accuracy, tree minus MergeMany of {2**top}", xlabel="difference (percentage points)")
    for position, kind in enumerate(data.attack.values):
        robust = [large(row.robust_accuracy.sel(attack=kind)) for row in rows]
        gain = [minus(tree(values, top), tree(values, 0)) for values in robust]
        look = {"color": (COLOURS["merge-many"], COLOURS["l2"])[position % 2], "marker": MARKERS[1 + position % 6]}
        _by_recipe(below, names, gain, NAMES.get(kind, kind), shift=0.2 * (position - 0.5), **look)
    below.set(title=f"robust accuracy, stage {top} minus 0", xlabel="difference (percentage points)")
    return draw_legend(figure, count_groups(data), columns=1)


def _by_recipe(axes, names: list[str], parts: list[np.ndarray], label: str, *, shift: float = 0, **look) -> None:
    """Means over groups with their spread, a row a recipe."""
    places = np.arange(len(names))[::-1] + shift
    for place, part in zip(places, parts, strict=True):
        if len(part) > 1:
            axes.hlines(place, *(PERCENT * end for end in spread(part, label)), color=look["color"], linewidth=1.4)
    axes.plot([part.mean() * PERCENT for part in parts], places, label=label, linestyle="none", markersize=4, **look)
    axes.axvline(0, color="#000000", linewidth=0.6)
    axes.set_yticks(np.arange(len(names))[::-1], names)
